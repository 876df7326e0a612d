"""``/v1/mailers``: the sending identities, their credentials (written, never read back) and their limits."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from sqlalchemy import ColumnElement, delete, or_, select, update
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.credentials import (
    HTTP_PORTS,
    awaits_connection,
    host_in_use,
    moved_roots,
    read_credentials,
    refused_hosts,
    root_faults,
    url_problem,
)
from api_shim.errors import ApiError, Fault, Missing
from api_shim.http import SessionDep, caller_with, services
from api_shim.mailbox_reading import look_again
from api_shim.mailer_body import Caps, MailerChange, MailerNew
from api_shim.mailer_pools import foreign_sources, refused_relays, relays, unfit_pools, unproven_relays
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from models.access import User, Workspace
from models.base import uuid7
from models.imap import ImapMailbox
from models.mailer import EmailConfig, Mailer, MailerStatus, OnUncertain
from models.message import Lease, Message
from providers import ADAPTERS, open_provider
from providers.base import Account, Outcome, Result
from worker.mailers import mailer_purpose
from worker.vault import SecretUnreadable

router = APIRouter(prefix="/mailers", tags=["mailers"])
Reader = Annotated[Caller, caller_with("mailers:read")]
Writer = Annotated[Caller, caller_with("mailers:write")]

NOT_CONNECTED = "not connected yet; start with POST /v1/mailers/{id}/connect"

RETURN_PATH_PROVIDERS = frozenset({"smtp"})
"""Those that take whatever envelope sender we give; mailboxes take their own address only."""
ROOTS = {"base_url", "auth_url"}


@router.post("", status_code=201)
def create_mailer(body: MailerNew, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:
    """Makes a mailer. Its credentials never come back."""
    if body.provider not in ADAPTERS:
        fault = Fault("provider", f"{body.provider!r} is not a provider; known are {', '.join(ADAPTERS)}")
        raise ApiError("VALIDATION_ERROR", faults=[fault])
    mailer_id = uuid7()
    row = Mailer(
        id=mailer_id,
        workspace_id=caller.workspace_id,
        provider=body.provider,
        name=body.provider,
        status=MailerStatus.ACTIVE,
        from_addresses=[],
        domains=[],
        caps={},
        on_uncertain=OnUncertain.HOLD,
        ip_pools={},
        is_default=False,
        hook_token=secrets.token_urlsafe(24),
        created_at=datetime.now(UTC),
    )
    credentials = _checked(request, session, caller, row, body)
    session.add(row)
    _apply(request, session, row, body, credentials)
    audit(session, caller, "mailer.created", str(mailer_id), provider=row.provider, name=row.name)
    session.commit()
    return show(row)


@router.get("")
def list_mailers(
    *,
    session: SessionDep,
    caller: Reader,
    status: MailerStatus | None = None,
    user_id: UUID | None = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Mailers, newest first; those of one user with ``user_id``."""
    asked: list[ColumnElement[bool]] = [] if status is None else [Mailer.status == status]
    asked += [] if user_id is None else [Mailer.user_id == user_id]
    mine = (Mailer.workspace_id == caller.workspace_id, Mailer.deleted_at.is_(None), *after_id(Mailer.id, cursor))
    rows = session.scalars(select(Mailer).where(*mine, *asked).order_by(Mailer.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, show, lambda row: [row.id])


@router.get("/{id}")
def get_mailer(id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002 -- the name in the path
    """One mailer."""
    return show(find(session, caller, id))


@router.patch("/{id}")
def change_mailer(
    id: UUID,  # noqa: A002
    body: MailerChange,
    request: Request,
    session: SessionDep,
    caller: Writer,
) -> dict[str, Any]:
    """Changes what is given. New credentials set a mailer that waited for them to work again."""
    credentials = _checked(request, session, caller, find(session, caller, id), body)
    row = find(session, caller, id, lock=True)
    _apply(request, session, row, body, credentials)
    audit(session, caller, "mailer.changed", str(id), fields=sorted(body.model_dump(exclude_unset=True, by_alias=True)))
    session.commit()
    return show(row)


@router.delete("/{id}", status_code=204)
def delete_mailer(id: UUID, session: SessionDep, caller: Writer) -> None:  # noqa: A002
    """Deletes a mailer that has no mail left to send; 409 otherwise. Its credentials are erased."""
    row = find(session, caller, id, lock=True)
    if _has_open_mail(session, id):
        fault = Fault("id", f"mailer {id} has mail that is not finished; cancel it or wait for it, then delete again")
        raise ApiError("CONFLICT", faults=[fault])
    row.deleted_at, row.sealed_credentials, row.user_id = datetime.now(UTC), b"", None
    row.is_default, row.status, row.hook_token = False, MailerStatus.PAUSED, secrets.token_urlsafe(24)
    session.execute(
        delete(ImapMailbox).where(ImapMailbox.workspace_id == caller.workspace_id, ImapMailbox.mailer_id == id)
    )
    session.execute(update(EmailConfig).where(EmailConfig.mailer_id == id).values(mailer_id=None))
    others = update(Mailer).where(Mailer.workspace_id == caller.workspace_id, Mailer.fallback_id == id)
    session.execute(others.values(fallback_id=None))
    audit(session, caller, "mailer.deleted", str(id), provider=row.provider, name=row.name)
    session.commit()


@router.post("/{id}/pause")
def pause_mailer(id: UUID, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Stops sending; what is on the wire is finished, everything else waits."""
    return _set_status(session, caller, id, MailerStatus.PAUSED, "paused by an operator")


@router.post("/{id}/resume")
def resume_mailer(id: UUID, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Sends again, also with credentials that the provider refused before."""
    return _set_status(session, caller, id, MailerStatus.ACTIVE, None)


@router.post("/{id}/test")
def test_mailer(id: UUID, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Connects and authenticates without sending; says what the provider answered."""
    row = find(session, caller, id)
    session.commit()  # the provider may take its time: no connection is kept from others meanwhile
    answer = _tested(row, request)
    audit(session, caller, "mailer.tested", str(id), ok=answer["ok"])
    session.commit()
    return answer


def _tested(row: Mailer, request: Request) -> dict[str, Any]:
    try:
        account = services(request).providers.account(row)
    except SecretUnreadable:
        detail = "the credentials do not open with POSTROAD_SECRET_KEYS; set them again with PATCH"
        return {"ok": False, "detail": detail, "code": "secret_unreadable"}
    if awaits_connection(row.provider, account.credentials):
        return {"ok": False, "detail": NOT_CONNECTED, "code": "not_connected"}
    outcome = _check(account)
    return {"ok": outcome.result is Result.ACCEPTED, "detail": outcome.detail, "code": outcome.code}


def _check(account: Account) -> Outcome:
    provider = open_provider(account)
    try:
        return provider.check()
    finally:
        provider.close()


def find(session: Session, caller: Caller, mailer_id: UUID, *, lock: bool = False) -> Mailer:
    """The caller's mailer; with ``lock`` nobody else changes it or sends over it anew meanwhile. Raises NOT_FOUND."""
    mine = (Mailer.id == mailer_id, Mailer.workspace_id == caller.workspace_id, Mailer.deleted_at.is_(None))
    query = select(Mailer).where(*mine)
    row = session.scalars(query.with_for_update().execution_options(populate_existing=True) if lock else query).first()
    if row is None:
        raise ApiError("NOT_FOUND", details={"id": str(mailer_id)})
    return row


def _checked(
    request: Request, session: Session, caller: Caller, row: Mailer, body: MailerChange
) -> dict[str, Any] | None:
    """The credentials if any were given. Raises VALIDATION_ERROR with everything that is wrong with the body."""
    given = body.model_fields_set
    credentials, faults = read_credentials(row.provider, body.credentials) if "credentials" in given else (None, [])
    base_url = body.base_url if "base_url" in given else row.base_url
    faults += _written_badly(body, row)
    pools = body.columns().get("ip_pools", {})
    faults += unfit_pools(row.provider, pools)
    faults += foreign_sources(services(request).settings.source_addresses, pools)
    if not faults and given & {"base_url", "auth_url", "credentials"}:
        held = credentials if credentials is not None else _held_credentials(request, row)
        faults += root_faults(row.provider, base_url, body.auth_url, held.get("host"))
        if credentials is None:
            faults += moved_roots(body.model_dump(include=ROOTS & given), row.base_url, row.auth_url, held)
    if not faults and pools and credentials is None:
        held = _held_credentials(request, row)
        faults += unproven_relays(pools, row.ip_pools, held, host_in_use(row.base_url, held))
    if not faults:
        session.commit()  # names are looked up next: no connection is kept from others meanwhile
        guard = services(request).settings.mailer_guard
        faults += refused_hosts(guard, body.base_url, body.auth_url, credentials or {})
        faults += refused_relays(guard, list(relays(pools)))
    missing = _missing(session, caller, body)
    if faults or missing:
        raise ApiError("VALIDATION_ERROR", faults=faults, missing=missing)
    return credentials


def _held_credentials(request: Request, row: Mailer) -> Mapping[str, Any]:
    try:
        return services(request).vault.open(mailer_purpose(row.id), row.sealed_credentials)
    except SecretUnreadable:
        return {}


def _written_badly(body: MailerChange, row: Mailer) -> list[Fault]:
    faults = []
    if body.tracking_domain is not None and (problem := url_problem(body.tracking_domain, HTTP_PORTS, path=False)):
        faults.append(Fault("tracking_domain", problem))
    if body.return_path_domain is not None and row.provider not in RETURN_PATH_PROVIDERS:
        problem = f"{row.provider} sets the return path itself; leave return_path_domain out, or use an smtp mailer"
        faults.append(Fault("return_path_domain", problem))
    user_id = body.user_id if "user_id" in body.model_fields_set else row.user_id
    is_default = body.default if "default" in body.model_fields_set else row.is_default
    if is_default and user_id is not None:
        faults.append(Fault("default", "a user's mailbox cannot be the workspace's default; leave one of the two out"))
    if body.fallback_id is not None and body.fallback_id == row.id:
        faults.append(Fault("fallback_id", "a mailer cannot be its own fallback; name another one"))
    return faults


def _missing(session: Session, caller: Caller, body: MailerChange) -> list[Missing]:
    """Linked ids that are not there; those that are stay until this transaction ends."""
    user = select(User.id).where(User.id == body.user_id, User.workspace_id == caller.workspace_id)
    fallback = select(Mailer.id).where(
        Mailer.id == body.fallback_id, Mailer.workspace_id == caller.workspace_id, Mailer.deleted_at.is_(None)
    )
    linked = (("user_id", body.user_id, user), ("fallback_id", body.fallback_id, fallback))
    return [
        Missing(field, str(id_))
        for field, id_, query in linked
        if id_ is not None and session.scalar(query.with_for_update(read=True, key_share=True)) is None
    ]


def _apply(
    request: Request, session: Session, row: Mailer, body: MailerChange, credentials: dict[str, Any] | None
) -> None:
    columns = body.columns()
    if columns.get("is_default"):
        _unset_default(session, row)
    for column, value in columns.items():
        setattr(row, column, value)
    if credentials is None:
        return
    row.sealed_credentials = services(request).vault.seal(mailer_purpose(row.id), credentials)
    if awaits_connection(row.provider, credentials):
        row.status, row.status_reason = MailerStatus.RECONNECT_REQUIRED, NOT_CONNECTED
    elif row.status == MailerStatus.RECONNECT_REQUIRED:
        row.status, row.status_reason = MailerStatus.ACTIVE, None
    look_again(session, row.workspace_id, row.id)


def _unset_default(session: Session, row: Mailer) -> None:
    """Takes the flag from whoever has it. The workspace is locked: two new defaults come one after the other."""
    workspace = select(Workspace.id).where(Workspace.id == row.workspace_id)
    with session.no_autoflush:
        session.execute(workspace.with_for_update(key_share=True))
        old = update(Mailer).where(Mailer.workspace_id == row.workspace_id, Mailer.is_default, Mailer.id != row.id)
        session.execute(old.values(is_default=False))


def _has_open_mail(session: Session, mailer_id: UUID) -> bool:
    waiting = select(Message.id).where(Message.mailer_id == mailer_id, Message.due_at.is_not(None)).exists()
    in_hand = select(Lease.id).where(Lease.mailer_id == mailer_id).exists()
    return session.scalar(select(or_(waiting, in_hand))) is True


def _set_status(
    session: Session, caller: Caller, mailer_id: UUID, status: MailerStatus, reason: str | None
) -> dict[str, Any]:
    row = find(session, caller, mailer_id, lock=True)
    if row.status != status:
        row.status, row.status_reason = status, reason
        action = "mailer.paused" if status is MailerStatus.PAUSED else "mailer.resumed"
        audit(session, caller, action, str(mailer_id))
    if status is MailerStatus.ACTIVE:
        look_again(session, caller.workspace_id, mailer_id)
    session.commit()
    return show(row)


SHOWN = (
    "id", "provider", "name", "status", "status_reason", "domains", "on_uncertain", "user_id", "base_url",
    "auth_url", "tracking_domain", "return_path_domain", "reply_domain", "ip_pools", "fallback_id", "throttled_until",
    "created_at",
)  # fmt: skip


def show(row: Mailer) -> dict[str, Any]:
    """A mailer as the API answers it: everything but its credentials."""
    return {name: getattr(row, name) for name in SHOWN} | {
        "from": row.from_addresses,
        "default": row.is_default,
        "caps": dict.fromkeys(Caps.model_fields) | row.caps,
        "hook_url": f"/v1/hooks/{row.provider}/{row.hook_token}",
    }
