"""``/v1/templates``: the words of mails, of which every change is a new version."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.errors import ApiError, Fault
from api_shim.http import SessionDep, caller_with
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, decode, page
from api_shim.text import Name, Text
from api_shim.unchanged import UNCHANGED
from models.base import uuid7
from models.template import Template, TemplateVersion
from worker.compose import check_line
from worker.links import html_pieces
from worker.template import (
    UNSUBSCRIBE_URL,
    CompositionError,
    LineVariable,
    Piece,
    Scene,
    Variable,
    join,
    raw,
    split,
    variables_in,
)

router = APIRouter(prefix="/templates", tags=["templates"])
Reader = Annotated[Caller, caller_with("templates:read")]
Writer = Annotated[Caller, caller_with("templates:write")]

WORDS = ("subject", "html", "text", "defaults")


def _line(value: str) -> str:
    if complaint := check_line(value):
        raise ValueError(complaint)
    return value


def _names(values: dict[str, str]) -> dict[str, str]:
    wrong = [name for name in values if variables_in(f"{{{{{name}}}}}") != {name}]
    if wrong:
        raise ValueError(f"no names of variables: {', '.join(map(repr, wrong))}; use letters, digits, _ . and -")
    return values


Subject = Annotated[Text, StringConstraints(max_length=998), AfterValidator(_line)]
Values = Annotated[dict[Text, Text], Field(max_length=1000), AfterValidator(_names)]


class TemplateBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "name": "welcome",
                "subject": "Welcome, {{name}}",
                "html": "<p>Hello {{name}}</p>",
                "text": "Hello {{name}}",
                "defaults": {"name": "friend"},
            }
        },
    )

    name: Name
    subject: Subject | None = None
    html: Text | None = None
    text: Text | None = None
    defaults: Values = {}
    """Values of variables that a recipient does not give."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.html is None and self.text is None:
            raise ValueError("give html or text, or both")
        return self


class TemplateChange(BaseModel):
    """What is left out stays as it is in the current version."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"subject": "Hello, {{name}}"}})

    name: Name = UNCHANGED
    subject: Subject | None = None
    html: Text | None = None
    text: Text | None = None
    defaults: Values = UNCHANGED


class Preview(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"variables": {"name": "Grace"}}})

    variables: Values = {}


@router.post("", status_code=201)
def create_template(body: TemplateBody, session: SessionDep, caller: Writer) -> dict[str, Any]:
    """Makes a template; its words are version 1."""
    statement = insert(Template).values(id=uuid7(), workspace_id=caller.workspace_id, name=body.name, version=1)
    row = session.scalars(statement.on_conflict_do_nothing().returning(Template)).one_or_none()
    if row is None:
        raise _name_taken(body.name)
    version = _add_version(session, row, body.model_dump(include=set(WORDS)))
    audit(session, caller, "template.created", str(row.id), name=body.name)
    session.commit()
    return _show(row, version)


@router.get("")
def list_templates(
    session: SessionDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    """Templates with the words of their current version, newest first."""
    current = (TemplateVersion.template_id == Template.id) & (TemplateVersion.version == Template.version)
    query = select(Template, TemplateVersion).join(TemplateVersion, current)
    query = query.where(Template.workspace_id == caller.workspace_id, *after_id(Template.id, cursor))
    rows: Sequence[Any] = session.execute(query.order_by(Template.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, lambda row: _show(*row), lambda row: [row[0].id])


@router.get("/{id}")
def get_template(id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002 -- the name in the path
    """A template with the words of its current version."""
    row = find_template(session, caller, id)
    return _show(row, _version(session, row, row.version))


@router.put("/{id}")
def replace_template(id: UUID, body: TemplateBody, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Replaces the words of a template by a new version."""
    return _change(session, caller, id, body.model_dump())


@router.patch("/{id}")
def change_template(id: UUID, body: TemplateChange, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Makes a new version of a template from the current one."""
    return _change(session, caller, id, body.model_dump(exclude_unset=True))


@router.delete("/{id}", status_code=204)
def delete_template(id: UUID, session: SessionDep, caller: Writer) -> None:  # noqa: A002
    """Deletes a template with all versions. Mail that was submitted with it keeps its words."""
    session.delete(find_template(session, caller, id, lock=True))
    audit(session, caller, "template.deleted", str(id))
    session.commit()


@router.get("/{id}/versions")
def list_versions(
    id: UUID,  # noqa: A002
    session: SessionDep,
    caller: Reader,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """All versions of a template, newest first."""
    row = find_template(session, caller, id)
    query = select(TemplateVersion).where(TemplateVersion.template_id == row.id)
    if cursor is not None:
        query = query.where(TemplateVersion.version < decode(cursor, [int])[0])
    rows = session.scalars(query.order_by(TemplateVersion.version.desc()).limit(limit + 1)).all()
    return page(rows, limit, _show_version, lambda version: [version.version])


@router.get("/{id}/versions/{version}")
def get_version(id: UUID, version: int, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002
    """One version of a template."""
    return _show_version(_version(session, find_template(session, caller, id), version))


@router.post("/{id}/versions/{version}/restore")
def restore_version(id: UUID, version: int, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Makes the words of an earlier version current again, as a new version."""
    old = _version(session, find_template(session, caller, id), version)
    return _change(session, caller, id, {name: getattr(old, name) for name in WORDS})


@router.post("/{id}/preview")
def preview_template(id: UUID, body: Preview, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002
    """The words as a recipient with these variables would get them, and the variables that have no value.

    A variable without a value stays as it is written, the unsubscribe link too; ``errors`` says which part could not
    be filled, and why.
    """
    row = find_template(session, caller, id)
    version = _version(session, row, row.version)
    values = {name: str(value) for name, value in version.defaults.items()} | body.variables
    missing = variables_in(version.subject, version.html, version.text) - values.keys() - {UNSUBSCRIBE_URL}
    return {**_filled(version, values), "missing": sorted(missing), "version": version.version}


def find_template(session: Session, caller: Caller, id_: UUID, *, lock: bool = False) -> Template:
    """The caller's template. ``lock`` keeps others from changing it before the commit. Raises NOT_FOUND."""
    query = select(Template).where(Template.id == id_, Template.workspace_id == caller.workspace_id)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise ApiError("NOT_FOUND", details={"id": str(id_)})
    return row


def _version(session: Session, row: Template, number: int) -> TemplateVersion:
    found = session.get(TemplateVersion, (row.id, number)) if 0 < number < 2**31 else None
    if found is None:
        raise ApiError("NOT_FOUND", details={"id": str(row.id), "version": number})
    return found


def _change(session: Session, caller: Caller, id_: UUID, values: dict[str, Any]) -> dict[str, Any]:
    """Adds a version: the current one with ``values`` in it. The template's row is locked, so none is lost."""
    row = find_template(session, caller, id_, lock=True)
    current = _version(session, row, row.version)
    words = {name: values.get(name, getattr(current, name)) for name in WORDS}
    if words["html"] is None and words["text"] is None:
        raise ApiError("VALIDATION_ERROR", faults=[Fault("html", "give html or text, or both")])
    if "name" in values and values["name"] != row.name:
        _rename(session, row, values["name"])
    row.version += 1
    version = _add_version(session, row, words)
    audit(session, caller, "template.changed", str(id_), version=row.version)
    session.commit()
    return _show(row, version)


def _rename(session: Session, row: Template, name: str) -> None:
    row.name = name
    try:
        session.flush()
    except IntegrityError as error:
        raise _name_taken(name) from error


def _add_version(session: Session, row: Template, words: Mapping[str, Any]) -> TemplateVersion:
    version = TemplateVersion(template_id=row.id, workspace_id=row.workspace_id, version=row.version, **words)
    session.add(version)
    session.flush()
    return version


def _name_taken(name: str) -> ApiError:
    return ApiError(
        "CONFLICT", details={"name": name, "reason": f"there is a template named {name!r}; pick another name"}
    )


def _show(row: Template, version: TemplateVersion) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "version": row.version,
        **{name: getattr(version, name) for name in WORDS},
        "variables": sorted(variables_in(version.subject, version.html, version.text)),
        "created_at": row.created_at,
        "updated_at": version.created_at,
    }


def _show_version(version: TemplateVersion) -> dict[str, Any]:
    return {
        "version": version.version,
        **{name: getattr(version, name) for name in WORDS},
        "created_at": version.created_at,
    }


def _filled(version: TemplateVersion, values: Mapping[str, str]) -> dict[str, Any]:
    """Subject, html and text with their variables filled as the composer fills them: escaped in html, one line in
    the subject.
    """
    scene = Scene(
        message_id=version.template_id,
        workspace=version.workspace_id,
        variables=values,
        unsubscribe_url="",
        tracker=None,
    )
    parts = {
        "subject": split(version.subject or "", values.__contains__, LineVariable),
        "html": _html_pieces(version.html, values),
        "text": split(version.text or "", values.__contains__, lambda name: Variable(name, raw)),
    }
    filled: dict[str, Any] = {"errors": []}
    for name, pieces in parts.items():
        filled[name] = None
        if getattr(version, name) is not None:
            try:
                filled[name] = join(pieces, scene)
            except CompositionError as error:
                filled["errors"].append(f"{name}: {error}")
    return filled


def _html_pieces(html: str | None, values: Mapping[str, str]) -> tuple[Piece, ...]:
    lines = (html or "").replace("\r\n", "\n").replace("\r", "\n")
    return html_pieces(lines, wanted=values.__contains__, track=False)
