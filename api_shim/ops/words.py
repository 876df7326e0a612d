"""Figures as people read them: ages, counts, times. All times are UTC."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup

UNITS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))
"""From so many seconds on: the unit, and the smaller one beside it."""


def span(seconds: float | timedelta | None) -> str:
    """``0.2 s``, ``41 s``, ``2 m 41 s``, ``3 h 12 m``, ``4 d 2 h``; a dash for None."""
    if seconds is None:
        return "–"
    amount = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if amount == 0:
        return "0 s"
    if amount < 0.0995:
        return f"{amount * 1000:.0f} ms"
    if amount < 9.95:
        return f"{amount:.1f} s"
    whole = round(amount)
    for size, unit, small, small_unit in UNITS:
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit} {rest} {small_unit}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def count(number: float) -> str:
    """``18 204``: thousands set apart by a narrow space."""
    return f"{number:,}".replace(",", "\u202f")


def number_of(number: int, one: str, many: str = "") -> str:
    """``1 mail``, ``12 mails``; ``many`` where it is not just an s more."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def rate(per_second: float) -> str:
    """``0``, ``0.4``, ``112``."""
    if per_second == 0:
        return "0"
    return f"{per_second:.1f}" if per_second < 10 else count(round(per_second))


def age(moment: datetime | None) -> str:
    """How long ago, or how far ahead."""
    if moment is None:
        return "–"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    return span(max(0.0, seconds)) if seconds >= 0 else f"in {span(-seconds)}"


def moment(value: datetime | str | None) -> Markup:
    """A ``<time>`` with the date and the second."""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    if at is None:
        return Markup("–")
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), at.strftime("%Y-%m-%d %H:%M:%S"))


def clock(value: datetime) -> Markup:
    """A ``<time>`` of today, without its date."""
    at = value.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(at.isoformat(), at.strftime("%H:%M:%S"))


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


FILTERS: Mapping[str, Callable[..., Any]] = {
    "span": span,
    "count": count,
    "number_of": number_of,
    "rate": rate,
    "age": age,
    "moment": moment,
    "clock": clock,
    "share": share,
}
"""What templates call them."""
