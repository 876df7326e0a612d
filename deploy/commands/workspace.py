"""`postroad workspace`: works on the database itself, because nobody has a key yet."""

import click

from deploy.commands.output import Output, as_json


@click.group()
def workspace() -> None:
    """Make workspaces. Needs the POSTROAD_* settings of the server."""


@workspace.command()
@click.argument("name")
@click.option("--mail-domain", help="Domain of its company addresses. [default: POSTROAD_MAIL_DOMAIN]")
@as_json
def create(name: str, mail_domain: str | None, as_json: bool) -> None:
    """Make a workspace; print its id and its first key, which has every scope and is shown this once."""
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import Session

    from api_shim.auth import SCOPES, issue_key
    from api_shim.shapes.addresses import normalised
    from deploy.commands.processes import settings
    from models.access import Workspace

    configuration = settings()
    domain = (mail_domain or configuration.mail_domain).lower()
    if not name.strip() or not name.isprintable():
        raise click.UsageError("NAME must hold printable characters.")
    if normalised(f"a@{domain}") is None:
        raise click.UsageError(f"{domain!r} is no mail domain; give one such as mail.example.com.")
    engine = create_engine(configuration.sqlalchemy_url, poolclass=NullPool, hide_parameters=True)
    try:
        with Session(engine) as session:
            row = Workspace(name=name, mail_domain=domain)
            session.add(row)
            session.flush()
            _, key = issue_key(
                session, workspace_id=row.id, name="first key", scopes=SCOPES, pepper=configuration.keys[0]
            )
            made = {"id": row.id, "name": name, "mail_domain": domain, "key": key}
            session.commit()
    except SQLAlchemyError as error:
        raise click.ClickException(
            f"The database did not take it ({type(error).__name__}). Run `postroad doctor` to see why."
        ) from None
    Output(as_json=as_json).one(made)
