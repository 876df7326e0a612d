"""``{{name}}`` variables: the values of each recipient, and whether all that the content needs are there."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from api_shim.shapes.addresses import key_of, normalised
from api_shim.shapes.fields import MAX_SUBJECT, Form, kind_of, line_fault, shown
from models.content import Address
from worker.template import SLOT, variables_in

MAX_LISTED: Final = 100

Substitutions = Mapping[str, Mapping[str, str]]

_TEXT: Final = frozenset({str})


def read_substitutions(form: Form, recipients: Sequence[Address]) -> Substitutions | None:
    """Recipient's address in lower case -> variable -> value. None where none are given; ``{}`` is none."""
    given = form.object("substitutions")
    if given is None or not given.body:
        return None
    known = {key_of(address.email) for address in recipients}
    found: dict[str, Mapping[str, str]] = {}
    strangers: list[str] = []
    for written, values in given.body.items():
        key = _recipient_key(written, known)
        if key is None:
            strangers.append(written)
        elif key in found:
            given.faults.add(given.path, f"substitutions names {shown(written)} twice; merge the two entries.")
        elif not isinstance(values, dict):
            where = f"substitutions.{shown(written)[1:-1]}"
            given.faults.add(where, f'{where} is {kind_of(values)}; send an object such as {{"first_name": "Jane"}}.')
        else:
            found[key] = _values(given, written, values)
    _refuse_strangers(form, strangers)
    return found


def _recipient_key(written: str, known: set[str]) -> str | None:
    key = key_of(written)
    if key in known:
        return key
    good = normalised(written.strip())
    return key_of(good) if good and key_of(good) in known else None


def _refuse_strangers(form: Form, strangers: Sequence[str]) -> None:
    for written in strangers[:MAX_LISTED]:
        form.fault(
            "substitutions", f"names {shown(written)}, which is not in to; add the recipient or remove the entry."
        )
    if len(strangers) > MAX_LISTED:
        form.fault("substitutions", f"names {len(strangers) - MAX_LISTED} more addresses that are not in to.")


def _values(given: Form, written: str, values: dict[str, Any]) -> Mapping[str, str]:
    if set(map(type, values.values())) <= _TEXT:
        return values
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            found[name] = str(value)
            continue
        where = f"substitutions.{shown(written)[1:-1]}.{shown(name)[1:-1]}"
        given.faults.add(where, f"{where} is {kind_of(value)}; send a string or a number.")
        found[name] = ""
    return found


def check_variables(
    form: Form,
    recipients: Iterable[Address],
    values: Substitutions,
    subject: str | None,
    *bodies: str | None,
    provided: frozenset[str],
) -> None:
    """Faults for each recipient that lacks a variable, or whose subject would be no subject any more.

    provided: variables that the server fills.
    """
    needed = variables_in(subject, *bodies) - provided
    in_subject = [name for name in SLOT.findall(subject or "") if name not in provided]
    fixed = len(SLOT.sub("", subject or ""))
    lacking: list[tuple[str, str]] = []
    for address in recipients:
        own = values.get(key_of(address.email), {})
        if not needed <= own.keys():
            lacking += [(address.email, name) for name in sorted(needed - own.keys())]
        elif in_subject:
            _check_subject(form, address.email, [own.get(name, "") for name in in_subject], fixed)
    _refuse_gaps(form, lacking)


def _check_subject(form: Form, email: str, parts: Sequence[str], fixed: int) -> None:
    problem = next(filter(None, (line_fault(part, MAX_SUBJECT) for part in parts)), None)
    if problem:
        form.fault("substitutions", f"has a value for the subject to {email} that {problem}")
        return
    length = fixed + sum(map(len, parts))
    if length > MAX_SUBJECT:
        form.fault(
            "substitutions", f"make the subject for {email} {length} characters long; stay within {MAX_SUBJECT}."
        )


def _refuse_gaps(form: Form, lacking: Sequence[tuple[str, str]]) -> None:
    for email, name in lacking[:MAX_LISTED]:
        form.fault(
            "substitutions",
            f"gives {email} no value for {shown(name)}; add it, or remove {{{{{name}}}}} from the content.",
            "missing_variable",
        )
    if len(lacking) > MAX_LISTED:
        form.fault("substitutions", f"lacks {len(lacking) - MAX_LISTED} more values.", "missing_variable")
