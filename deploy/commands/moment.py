"""Times on the command line: RFC 3339, or how long ago."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Moment(click.ParamType[str]):
    """``2026-11-21T12:00:00Z``, or ``2h`` for two hours ago; s, m, h and d are known. Becomes RFC 3339."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if found := re.fullmatch(r"(\d{1,6})([smhd])", value):
            return (datetime.now(UTC) - timedelta(**{UNITS[found[2]]: int(found[1])})).isoformat()
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write 2026-11-21T12:00:00Z, or 2h for two hours ago.", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} has no time zone; end it with Z for UTC.", param, ctx)
        return moment.isoformat()
