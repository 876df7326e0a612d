"""`postroad mcp`."""

import click

from deploy.commands.connection import Connection
from deploy.commands.remote import connected


@click.command()
@connected
def mcp(connection: Connection) -> None:
    """Serve mail as tools of the Model Context Protocol, over stdin and stdout."""
    try:
        from deploy.mcp_server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("mcp", "mcp_types", "anyio"):
            raise
        raise click.ClickException("The mcp library is not installed. Run: pip install 'postroad[mcp]'") from None
    serve(connection)
