"""`postroad openapi`."""

import json

import click


@click.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 description of the HTTP API as JSON. Needs no server and no settings."""
    from cryptography.fernet import Fernet

    from api_shim.app import create_app
    from worker.settings import Settings

    # Nothing is opened before a request is served.
    nowhere = Settings(database_url="postgresql://127.0.0.1/none", secret_keys=Fernet.generate_key().decode())
    click.echo(json.dumps(create_app(nowhere).openapi(), indent=2))
