"""Writes the parts of the documentation that the code knows better: ``python -m deploy.docs``.

A page is written by hand except for its regions: what stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``
is replaced by what ``REGIONS[NAME]`` says. ``--check`` writes nothing and ends with 1 where a page is behind the code.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import click
from fastapi.routing import APIRoute
from pydantic.fields import FieldInfo

from api_shim.errors import CODES, ApiError, Code
from api_shim.http import Scoped
from api_shim.resources import ROUTERS
from api_shim.shapes import SHAPES
from api_shim.shapes.names import FIELDS, RECOGNISED_BY
from api_shim.submission import Shape
from deploy.cli import postroad
from deploy.contract import FEATURES, UNPROVED, proofs
from models.event import WIRE_NAMES
from models.message import OPEN, TRANSITIONS, State
from providers import ADAPTERS, CONFIRMS_DELIVERY, adapter
from providers.base import Provider
from worker.faults import POINTS
from worker.series import SERIES, Series
from worker.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs"

_REGION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def errors() -> str:
    """A section per code, under an anchor of the code's name in lower case."""
    return "\n\n".join(map(_error, CODES.values()))


def _error(code: Code) -> str:
    retryable = "yes, after `Retry-After` seconds" if code.retryable else "no"
    return (
        f"### {code.name}\n\n{code.sentence}\n\n"
        f"- Status: {code.status}\n- What to do: {code.fix}\n- Retryable: {retryable}\n"
        f"- In the mailbox shape: `{_mailbox_name(code.name)}`"
    )


def _mailbox_name(name: str) -> str:
    _, body = SHAPES[Shape.MAILBOX].render_error(ApiError(name))
    spelled: str = body["error"]["code"]
    return spelled


def settings() -> str:
    """Every variable, in the order of `Settings`."""
    said = docstrings(Settings)
    rows = [
        (f"`POSTROAD_{name.upper()}`", _type(field), _default(field), said[name])
        for name, field in Settings.model_fields.items()
    ]
    return _table(("Variable", "Type", "Default", "Meaning"), rows)


def _type(field: FieldInfo) -> str:
    names = re.findall(r"\b(?:str|int|float|bool)\b", str(field.annotation))
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}[names[0]]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none: required"
    return "empty" if field.default in (None, "") else f"`{field.default}`"


def events() -> str:
    """Every event, with the words of webhooks.md."""
    meanings = dict(
        re.findall(r"^\| `[^`]+` \| `(\w+)` \| (.+) \|$", (PAGES / "webhooks.md").read_text(), re.MULTILINE)
    )
    rows = [
        (f"`{wire}`", f"`{kind}`", meanings[kind].removesuffix(" (see below)")) for kind, wire in WIRE_NAMES.items()
    ]
    return _table(("`event`", "`type`", "Meaning"), rows)


def transitions() -> str:
    """Every state and what may follow it."""
    said = docstrings(State)
    rows = [
        (
            f"`{state}`",
            said[state.name],
            "open" if state in OPEN else "finished",
            ", ".join(f"`{after}`" for after in State if after in TRANSITIONS[state]) or "nothing",
        )
        for state in State
    ]
    return _table(("State", "Meaning", "", "May become"), rows)


def providers() -> str:
    """What each adapter is like."""
    rows = [_provider(name, adapter(name)) for name in ADAPTERS]
    names = ("Provider", "Reports delivery", "Can be asked about a mail", "Keeps our Message-ID", "Largest mail")
    return _table(names, rows)


def _provider(name: str, adapter_: type[Provider]) -> tuple[str, ...]:
    return (
        f"`{name}`",
        _yes(name in CONFIRMS_DELIVERY),
        _yes(adapter_.lookup is not Provider.lookup),
        _yes(adapter_.keeps_message_id),
        f"{adapter_.max_bytes / 1024 / 1024:g} MB",
    )


def fields() -> str:
    """The fields of each request shape."""
    rows = [
        (f"`{shape}`", _recognised(shape), ", ".join(f"`{name}`" for name in sorted(FIELDS[shape]))) for shape in FIELDS
    ]
    return _table(("Shape", "Recognised by", "Fields"), rows)


def _recognised(shape: Shape) -> str:
    names = " or ".join(f"`{name}`" for name in sorted(RECOGNISED_BY.get(shape, ())))
    return {Shape.MAILBOX: f"{names}, or `to` as text", Shape.MAILER: "everything else"}.get(shape, names)


def routes() -> str:
    """Every resource by tag: method, path, scope, what it does."""
    sections: dict[str, list[tuple[str, ...]]] = {}
    for route in _api_routes():
        for method in sorted(route.methods or ()):
            row = (method, f"`/v1{route.path.replace(':path', '')}`", _scope(route), _said(route))
            sections.setdefault(str(route.tags[0]), []).append(row)
    return "\n\n".join(
        f"### {tag}\n\n{_table(('Method', 'Path', 'Scope', ''), rows)}" for tag, rows in sorted(sections.items())
    )


def _api_routes() -> Iterator[APIRoute]:
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.include_in_schema:
                yield route


def _scope(route: APIRoute) -> str:
    calls = (dependency.call for dependency in route.dependant.dependencies)
    return next((f"`{call.scope}`" for call in calls if isinstance(call, Scoped)), "none")


def _said(route: APIRoute) -> str:
    return (route.summary or inspect.getdoc(route.endpoint) or route.name.replace("_", " ")).split("\n\n")[0]


def contract() -> str:
    """Every feature with the tests that prove it."""
    proved = proofs(ROOT / "tests")
    rows = [
        (number, what, "<br>".join(_proof(*test) for test in proved.get(number, ())) or UNPROVED.get(number, ""))
        for number, what in FEATURES.items()
    ]
    return _table(("", "Feature", "Proved by"), rows)


def _proof(name: str, path: Path) -> str:
    return f"[{name.removeprefix('test_')}](../{path.relative_to(ROOT)})"


def metrics() -> str:
    """Every series, in the order of the exporter's table."""
    rows = [(f"`{each.full_name}`", each.kind.value, _labels(each), each.help) for each in SERIES.values()]
    return _table(("Series", "Kind", "Labels", "Meaning"), rows)


def _labels(series: Series) -> str:
    return ", ".join(f"`{label}`" for label in series.labels) or "none"


def commands() -> str:
    """Every command with its arguments and options, as ``--help`` has them."""
    return "\n\n".join(_command(path, command) for path, command in _walk((), postroad))


def _walk(path: tuple[str, ...], group: click.Group) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _walk((*path, name), command)
        else:
            yield (*path, name), command


def _command(path: tuple[str, ...], command: click.Command) -> str:
    context = click.Context(command, info_name=" ".join(("postroad", *path)))
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    options = [record for each in shown if (record := each.get_help_record(context))]
    said = " ".join((command.help or "").split("\b")[0].split())
    table = _table(("Option", ""), [(f"`{names}`", text) for names, text in options]) if options else ""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    return "\n\n".join(part for part in (f"### {context.command_path}", said, f"`{usage}`", table) if part)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def docstrings(cls: type[Any] | type[Enum]) -> dict[str, str]:
    """Name -> the string under each attribute of a class that has one; paragraphs become one line."""
    (body,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(body, ast.ClassDef)  # noqa: S101 -- the source of a class
    found = {}
    for attribute, following in zip(body.body, body.body[1:], strict=False):
        name = _attribute_name(attribute)
        if name and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            found[name] = inspect.cleandoc(str(following.value.value))
    return found


def _attribute_name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


def faults() -> str:
    """Every fault point and what is true there."""
    return _table(("Point", "There"), [(f"`{name}`", there) for name, there in POINTS.items()])


REGIONS: dict[str, Callable[[], str]] = {
    "errors": errors,
    "settings": settings,
    "events": events,
    "transitions": transitions,
    "providers": providers,
    "fields": fields,
    "routes": routes,
    "contract": contract,
    "metrics": metrics,
    "commands": commands,
    "faults": faults,
}
"""Name of a region and what writes it."""


def rendered(page: str) -> str:
    """A page with its regions written anew. Raises KeyError for a region that nothing writes."""
    return _REGION.sub(lambda found: f"{found[1]}\n{REGIONS[found[2]]()}\n\n{found[3]}", page)


def main(arguments: Sequence[str]) -> int:
    behind = [path for path in sorted(PAGES.glob("*.md")) if rendered(path.read_text()) != path.read_text()]
    for path in behind:
        if "--check" not in arguments:
            path.write_text(rendered(path.read_text()))
        print(path.relative_to(ROOT))
    return 1 if behind and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
