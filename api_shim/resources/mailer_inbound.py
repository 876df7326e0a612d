"""``/v1/mailers/{id}/inbound``: where mail for a mailer comes in, and the mailbox that is read for it over IMAP."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.credentials import HostName, Port, Username
from api_shim.errors import ApiError, Fault
from api_shim.http import SessionDep, caller_with, services
from api_shim.resources.mailers import find
from api_shim.text import Line
from models.imap import ImapMailbox
from models.mailer import Mailer
from providers.guard import Guard, HostNotFound, HostRefused
from providers.smtp_login import Security
from worker.imap_client import PORTS
from worker.imap_mailbox import OAUTH, mailbox_purpose
from worker.return_path import Kind, ReturnPaths
from worker.settings import Settings
from worker.vault import SecretUnreadable

router = APIRouter(prefix="/mailers/{id}/inbound", tags=["mailers"])
Reader = Annotated[Caller, caller_with("mailers:read")]
Writer = Annotated[Caller, caller_with("mailers:write")]

Folder = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]


class ImapBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "example": {
                "host": "imap.example.com",
                "security": "tls",
                "username": "replies@example.com",
                "password": "an app password",
                "folder": "INBOX",
            }
        },
    )

    host: HostName
    port: Port | None = None
    security: Literal["tls", "starttls", "none"] = "tls"
    username: Username
    password: Annotated[Line, Field(min_length=1)] | None = None
    """Left out: the account that a ``gmail_smtp`` or ``outlook_smtp`` mailer is connected with logs in (XOAUTH2)."""
    folder: Folder = "INBOX"


@router.get("")
def get_inbound(id: UUID, request: Request, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002
    """Where mail comes in: the address to forward to, the return path, and how reading the mailbox goes."""
    return _show(services(request).settings, find(session, caller, id), _row(session, caller, id))


@router.put("/imap")
def read_imap(
    id: UUID,  # noqa: A002 -- the name in the path
    body: ImapBody,
    request: Request,
    session: SessionDep,
    caller: Writer,
) -> dict[str, Any]:
    """Reads a mailbox over IMAP from now on, in ``postroad inbound --imap``. The login never comes back."""
    mailer = find(session, caller, id)
    session.commit()  # names are looked up next: no connection is kept from others meanwhile
    _check(services(request).settings.mailer_guard, mailer.provider, body)
    mailer = find(session, caller, id, lock=True)
    row = _row(session, caller, id)
    if row is None:
        row = ImapMailbox(mailer_id=id, workspace_id=caller.workspace_id, last_uid=0, created_at=datetime.now(UTC))
        session.add(row)
    elif _moved(request, row, body):
        row.uid_validity, row.last_uid, row.read_at = None, 0, None
    row.sealed_access = services(request).vault.seal(mailbox_purpose(id), body.model_dump())
    row.error = None
    audit(session, caller, "mailbox.imap_set", str(id), host=body.host, folder=body.folder)
    session.commit()
    return _show(services(request).settings, mailer, row)


@router.delete("/imap", status_code=204)
def leave_imap(id: UUID, session: SessionDep, caller: Writer) -> None:  # noqa: A002
    """Reads the mailbox no more, and forgets the login. What lies in it stays there."""
    find(session, caller, id)
    row = _row(session, caller, id)
    if row is None:
        raise ApiError("NOT_FOUND", details={"id": str(id)})
    session.delete(row)
    audit(session, caller, "mailbox.imap_removed", str(id))
    session.commit()


def _row(session: Session, caller: Caller, mailer_id: UUID) -> ImapMailbox | None:
    mine = (ImapMailbox.mailer_id == mailer_id, ImapMailbox.workspace_id == caller.workspace_id)
    return session.scalars(select(ImapMailbox).where(*mine)).one_or_none()


def _moved(request: Request, row: ImapMailbox, body: ImapBody) -> bool:
    """Whether it is another folder now, or may be, whose UIDs say nothing about those of the old one."""
    try:
        held = services(request).vault.open(mailbox_purpose(row.mailer_id), bytes(row.sealed_access))
    except SecretUnreadable:
        return True
    return any(held.get(name) != getattr(body, name) for name in ("host", "username", "folder"))


def _check(guard: Guard, provider: str, body: ImapBody) -> None:
    """Raises VALIDATION_ERROR for a mailbox that cannot be read."""
    faults = []
    if body.password is None and provider not in OAUTH:
        names = " or ".join(OAUTH)
        faults.append(Fault("password", f"is missing; without one the mailer must be {names}, connected by OAuth"))
    try:
        guard.addresses(body.host, body.port or PORTS[Security(body.security)])
    except HostRefused as refusal:
        faults.append(Fault("host", str(refusal), "host_refused"))
    except HostNotFound:
        pass  # it is looked up again when it is read
    if faults:
        raise ApiError("VALIDATION_ERROR", faults=faults)


def _show(settings: Settings, mailer: Mailer, row: ImapMailbox | None) -> dict[str, Any]:
    domain = mailer.return_path_domain or min(settings.inbound_domain_names, default=None)
    paths = ReturnPaths(settings.keys)
    return {
        "mailer_id": mailer.id,
        "inbox_address": paths.address(Kind.INBOX, mailer.id, domain) if domain else None,
        "return_path_domain": mailer.return_path_domain,
        "imap": None if row is None else _show_imap(row),
    }


def _show_imap(row: ImapMailbox) -> dict[str, Any]:
    return {
        "status": "failing" if row.error else "reading" if row.read_at else "starting",
        "read_at": row.read_at,
        "error": row.error,
        "created_at": row.created_at,
    }
