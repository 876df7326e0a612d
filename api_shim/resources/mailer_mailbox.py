"""``/v1/mailers/{id}/mailbox``: whether the mailbox behind a mailer is read, and how the provider tells of new mail."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.errors import ApiError, Fault
from api_shim.http import SessionDep, caller_with, services
from api_shim.mailbox_reading import READABLE, read
from api_shim.resources.mailers import find
from models.mailbox import MailboxWatch
from models.mailer import Mailer
from providers.inbox import ReadFailed, Watch
from worker.bell import inbox_lane
from worker.vault import SecretUnreadable

router = APIRouter(prefix="/mailers/{id}/mailbox", tags=["mailers"])
Reader = Annotated[Caller, caller_with("mailers:read")]
Writer = Annotated[Caller, caller_with("mailers:write")]

TOPIC = r"^projects/[A-Za-z0-9._:-]{1,100}/topics/[A-Za-z0-9._~%+-]{1,255}$"


class MailboxBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"topic": "projects/acme/topics/gmail-notices"}}
    )

    topic: Annotated[str, StringConstraints(pattern=TOPIC)] | None = None
    """Gmail only: the Pub/Sub topic to publish notices to, whose push subscription calls the mailer's ``hook_url``.
    Without one the mailbox is looked into every 30 seconds.
    """


@router.put("")
def read_mailbox(
    id: UUID,  # noqa: A002 -- the name in the path
    body: MailboxBody,
    request: Request,
    session: SessionDep,
    caller: Writer,
) -> dict[str, Any]:
    """Reads the mail that comes into the mailbox from now on. A worker sets up the provider's notices."""
    mailer = find(session, caller, id, lock=True)
    _check(mailer, body)
    row = read(session, mailer)
    row.topic = body.topic
    audit(session, caller, "mailbox.read", str(id), topic=body.topic)
    session.commit()
    services(request).ringer.ring(inbox_lane(id))
    return show(row)


@router.get("")
def get_mailbox(id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002
    """How reading goes; 404 for a mailbox that is not read."""
    return show(_find(session, caller, id))


@router.delete("", status_code=204)
def leave_mailbox(id: UUID, request: Request, session: SessionDep, caller: Writer) -> None:  # noqa: A002
    """Reads no more. The provider is asked to stop its notices; if it does not hear us, they end by themselves."""
    row = _find(session, caller, id)
    watch = Watch(notify_url="", topic=row.topic, subscription=row.subscription, expires_at=row.expires_at)
    session.delete(row)
    audit(session, caller, "mailbox.left", str(id))
    session.commit()
    _unwatch(request, id, watch)


def _check(mailer: Mailer, body: MailboxBody) -> None:
    """Raises VALIDATION_ERROR for a mailbox that cannot be read this way."""
    faults = []
    if mailer.provider not in READABLE:
        names = " and ".join(READABLE)
        faults.append(Fault("id", f"a {mailer.provider} mailer has no mailbox that can be read; {names} have"))
    elif body.topic is not None and mailer.provider != "gmail":
        faults.append(Fault("topic", f"{mailer.provider} knows no topics; leave it out"))
    if faults:
        raise ApiError("VALIDATION_ERROR", faults=faults)


def _find(session: Session, caller: Caller, mailer_id: UUID) -> MailboxWatch:
    find(session, caller, mailer_id)
    mine = (MailboxWatch.mailer_id == mailer_id, MailboxWatch.workspace_id == caller.workspace_id)
    row = session.scalars(select(MailboxWatch).where(*mine)).one_or_none()
    if row is None:
        raise ApiError("NOT_FOUND", details={"id": str(mailer_id)})
    return row


def _unwatch(request: Request, mailer_id: UUID, watch: Watch) -> None:
    try:
        mailer = services(request).providers.mailer(mailer_id)
        inbox = None if mailer is None else mailer.provider.inbox()
        if inbox is not None:
            inbox.unwatch(watch)
    except (ReadFailed, SecretUnreadable):
        return  # its notices are refused from now on


def show(row: MailboxWatch) -> dict[str, Any]:
    """``notified``: the provider tells of new mail by itself. ``error``: what is amiss, in its own words."""
    return {
        "mailer_id": row.mailer_id,
        "status": "failing" if row.error else "reading" if row.looked_at else "starting",
        "topic": row.topic,
        "notified": row.subscription is not None,
        "expires_at": row.expires_at,
        "looked_at": row.looked_at,
        "error": row.error,
        "created_at": row.created_at,
    }
