"""`postroad doctor`."""

import sys
from typing import Any

import click

from deploy.commands.output import Output, as_json


@click.command()
@click.option("--invariants", "deep", is_flag=True, help="Count the rows that break what must always hold.")
@as_json
def doctor(deep: bool, as_json: bool) -> None:
    """Check settings, database, Redis, clocks, workers, beat, queues and domains. Ends with 1 if anything is wrong.

    Needs the POSTROAD_* settings of the server.
    """
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import SQLAlchemyError

    from deploy.check import Check
    from deploy.commands.processes import settings
    from deploy.doctor import examine
    from worker.invariants import violations

    output = Output(as_json=as_json)
    try:
        configuration = settings()
    except click.ClickException as error:
        check = Check(name="settings", ok=False, found=error.message, fix="Set it; docs/settings.md lists all.")
        sys.exit(_report(output, [check.as_json()], None))
    engine = create_engine(
        configuration.sqlalchemy_url, poolclass=NullPool, hide_parameters=True, connect_args={"connect_timeout": 5}
    )
    checks = [check.as_json() for check in examine(configuration, engine)]
    try:
        findings = [finding.as_json() for finding in violations(engine)] if deep else None
    except SQLAlchemyError as error:
        raise click.ClickException(f"The invariants could not be read: {type(error).__name__}.") from None
    sys.exit(_report(output, checks, findings))


def _report(output: Output, checks: list[dict[str, Any]], findings: list[dict[str, Any]] | None) -> int:
    """Prints it all; returns the exit code."""
    ok = all(check["ok"] for check in checks) and not any(finding["broken"] for finding in findings or ())
    if output.human:
        for check in checks:
            _line(check["ok"], f"{check['check']}: {check['found']}", check["fix"])
        for finding in findings or ():
            _line(not finding["broken"], f"{finding['holds']}: {finding['broken']} do not", None)
    else:
        output.one({"ok": ok, "checks": checks} | ({} if findings is None else {"invariants": findings}))
    return 0 if ok else 1


def _line(ok: bool, found: str, fix: str | None) -> None:
    mark = click.style("\N{CHECK MARK}", fg="green") if ok else click.style("\N{BALLOT X}", fg="red")
    click.echo(f"{mark} {found}")
    if fix:
        click.echo(f"    {fix}")
