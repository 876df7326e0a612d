"""A procrastinate job for each mail, in PostgreSQL, deferred in one statement. Done jobs stay, as by default."""

from collections.abc import Sequence

import procrastinate

from .job import Variables
from .mail import JOB, send

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=JOB.database_url))
send_mail = app.task(send, name="send_mail")


def prepare() -> None:
    app.open()
    app.schema_manager.apply_schema()


def submit(people: Sequence[tuple[str, Variables]]) -> None:
    send_mail.batch_defer(*({"address": address, "variables": variables} for address, variables in people))
