"""``/v1/email/configs``: the company's senders, each an address that the server composes, with a display name."""

import re
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, StrictBool, model_validator
from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.errors import ApiError, Missing
from api_shim.http import SessionDep, caller_with
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from api_shim.shapes.addresses import MAX_NAME
from api_shim.shapes.fields import line_fault
from api_shim.text import Email, Name, Text
from models.access import User, Workspace
from models.mailer import EmailConfig, Mailer, MailerStatus

router = APIRouter(prefix="/email/configs", tags=["configs"])
Reader = Annotated[Caller, caller_with("email:read")]
Writer = Annotated[Caller, caller_with("email-config:write")]

LONGEST_HANDLE = 64
"""RFC 5321 section 4.5.3.1.1."""
_HANDLE = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")

GMAIL = ("gmail", "gmail_smtp")
"""Providers behind which a Gmail mailbox stands."""


def _header(value: str) -> str:
    if problem := line_fault(value, MAX_NAME):
        raise ValueError(problem)
    return value


DisplayName = Annotated[Name, AfterValidator(_header)]


class _Sender(BaseModel):
    """What a body may give beside the three fields that a new configuration needs."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"from_email_handle": "support", "from_name": "Support", "staff_email": "team@example.com"}
        },
    )

    gmail_user_id: UUID | None = None
    gmail_sender_alias: Email | None = None
    mailer_id: UUID | None = None
    is_default: StrictBool | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_from_email(cls, data: Any) -> Any:
        """A code of its own, whatever else is wrong: the address is the server's to compose."""
        if isinstance(data, dict) and "from_email" in data:
            raise ApiError("FROM_EMAIL_NOT_WRITABLE", details={"field": "from_email"})
        return data


class NewConfig(_Sender):
    """A new sender. The first of a workspace becomes its default unless ``is_default`` is false."""

    from_email_handle: Text
    from_name: DisplayName
    staff_email: Email


class ConfigChange(_Sender):
    """What is absent stays as it is. Null empties the Gmail fields and ``mailer_id``, and changes nothing else."""

    from_email_handle: Text | None = None
    from_name: DisplayName | None = None
    staff_email: Email | None = None


CLEARED_BY_NULL = frozenset({"gmail_user_id", "gmail_sender_alias", "mailer_id"})


@router.get("")
def list_configs(
    session: SessionDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    """The company's senders, the newest first."""
    workspace = session.get_one(Workspace, caller.workspace_id)
    mine = select(EmailConfig).where(EmailConfig.workspace_id == workspace.id, *after_id(EmailConfig.id, cursor))
    rows = session.scalars(mine.order_by(EmailConfig.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, lambda row: _show(row, workspace), lambda row: [row.id])


@router.get("/{config_id}")
def get_config(config_id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:
    """One sender."""
    return _show(_find(session, caller, config_id), session.get_one(Workspace, caller.workspace_id))


@router.post("", status_code=201)
def create_config(body: NewConfig, session: SessionDep, caller: Writer) -> dict[str, Any]:
    """Makes a sender; its address is ``from_email_handle`` at the workspace's own domain."""
    workspace = _locked(session, caller)
    given = body.model_dump()
    if given["is_default"] is None:
        given["is_default"] = _default(session, workspace) is None
    row = EmailConfig(workspace_id=workspace.id)
    _change(session, row, given)
    session.add(row)
    session.flush()
    audit(session, caller, "email_config.created", str(row.id), is_default=row.is_default)
    session.commit()
    session.refresh(row)
    return _show(row, workspace)


@router.patch("/{config_id}")
def change_config(config_id: UUID, body: ConfigChange, session: SessionDep, caller: Writer) -> dict[str, Any]:
    """Changes a sender. Making it the default takes that from the one that was."""
    workspace = _locked(session, caller)
    row = _find(session, caller, config_id)
    given = body.model_dump(exclude_unset=True)
    _change(
        session, row, {name: value for name, value in given.items() if value is not None or name in CLEARED_BY_NULL}
    )
    audit(session, caller, "email_config.changed", str(config_id), fields=sorted(given))
    session.commit()
    return _show(row, workspace)


@router.delete("/{config_id}", status_code=204)
def delete_config(config_id: UUID, session: SessionDep, caller: Writer) -> None:
    """Deletes a sender. If it was the default, the oldest of the others becomes it."""
    workspace = _locked(session, caller)
    row = _find(session, caller, config_id)
    session.delete(row)
    session.flush()
    if row.is_default:
        mine = select(EmailConfig).where(EmailConfig.workspace_id == workspace.id)
        heir = session.scalars(mine.order_by(EmailConfig.id).limit(1)).first()
        if heir is not None:
            heir.is_default = True
    audit(session, caller, "email_config.deleted", str(config_id), was_default=row.is_default)
    session.commit()


def _locked(session: Session, caller: Caller) -> Workspace:
    """The workspace. Changes to its senders come one after the other, so that one of them at most is the default."""
    mine = select(Workspace).where(Workspace.id == caller.workspace_id)
    return session.scalars(mine.with_for_update(key_share=True)).one()


def _find(session: Session, caller: Caller, config_id: UUID) -> EmailConfig:
    row = session.get(EmailConfig, config_id)
    if row is None or row.workspace_id != caller.workspace_id:
        raise ApiError("NOT_FOUND", details={"id": str(config_id)})
    return row


def _default(session: Session, workspace: Workspace) -> EmailConfig | None:
    return session.scalars(
        select(EmailConfig).where(EmailConfig.workspace_id == workspace.id, EmailConfig.is_default)
    ).first()


def _change(session: Session, row: EmailConfig, given: dict[str, Any]) -> None:
    """Checks what was given against the database and writes it into the row."""
    if "from_email_handle" in given:
        given["from_email_handle"] = _handle(given["from_email_handle"])
    _require_ids(session, row.workspace_id, given)
    if given.keys() & {"gmail_user_id", "gmail_sender_alias"}:
        user_id = given.get("gmail_user_id", row.gmail_user_id)
        alias = given.get("gmail_sender_alias", row.gmail_sender_alias)
        _require_gmail(session, row.workspace_id, user_id, alias)
    if "from_email_handle" in given:
        _require_free(session, row, given["from_email_handle"])
    if given.get("is_default"):
        others = update(EmailConfig).where(EmailConfig.workspace_id == row.workspace_id, EmailConfig.is_default)
        session.execute(others.values(is_default=False))
    for name, value in given.items():
        setattr(row, name, value)


def _handle(text: str) -> str:
    handle = text.lower()
    if len(handle) > LONGEST_HANDLE or not _HANDLE.fullmatch(handle):
        raise ApiError("INVALID_FROM_EMAIL_HANDLE", details={"from_email_handle": text[:100]})
    return handle


def _require_free(session: Session, row: EmailConfig, handle: str) -> None:
    same = select(EmailConfig.id).where(
        EmailConfig.workspace_id == row.workspace_id, EmailConfig.from_email_handle == handle
    )
    holder = session.scalar(same)
    if holder is not None and holder != row.id:
        raise ApiError("CONFLICT", details={"from_email_handle": handle, "used_by": str(holder)})


def _require_ids(session: Session, workspace_id: UUID, given: dict[str, Any]) -> None:
    wanted: tuple[tuple[str, Any, tuple[ColumnElement[bool], ...]], ...] = (
        ("gmail_user_id", User.id, (User.workspace_id == workspace_id,)),
        ("mailer_id", Mailer.id, (Mailer.workspace_id == workspace_id, Mailer.deleted_at.is_(None))),
    )
    missing = [
        Missing(field, str(given[field]))
        for field, column, conditions in wanted
        if given.get(field) is not None
        and session.scalar(select(column).where(column == given[field], *conditions)) is None
    ]
    if missing:
        raise ApiError("VALIDATION_ERROR", missing=missing)


def _require_gmail(session: Session, workspace_id: UUID, user_id: UUID | None, alias: str | None) -> None:
    """The user has a connected Gmail mailbox, and the alias is one of its send-as addresses."""
    if user_id is None:
        if alias is not None:
            raise ApiError("GMAIL_USER_REQUIRED", details={"gmail_sender_alias": alias})
        return
    mailboxes = session.scalars(
        select(Mailer).where(
            Mailer.workspace_id == workspace_id,
            Mailer.user_id == user_id,
            Mailer.provider.in_(GMAIL),
            Mailer.status != MailerStatus.RECONNECT_REQUIRED,
            Mailer.deleted_at.is_(None),
        )
    ).all()
    if not mailboxes:
        raise ApiError("GMAIL_NOT_CONNECTED", details={"gmail_user_id": str(user_id)})
    aliases = [address for mailbox in mailboxes for address in mailbox.from_addresses]
    if alias is not None and alias.lower() not in {address.lower() for address in aliases}:
        raise ApiError("ALIAS_NOT_CONNECTED", details={"gmail_sender_alias": alias, "send_as_aliases": aliases})


def _show(row: EmailConfig, workspace: Workspace) -> dict[str, Any]:
    return {
        "id": row.id,
        "from_email_handle": row.from_email_handle,
        "from_email": f"{row.from_email_handle}@{workspace.mail_domain}",
        "from_name": row.from_name,
        "staff_email": row.staff_email,
        "gmail_user_id": row.gmail_user_id,
        "gmail_sender_alias": row.gmail_sender_alias,
        "mailer_id": row.mailer_id,
        "is_default": row.is_default,
        "created_at": row.created_at,
    }
