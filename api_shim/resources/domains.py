"""``/v1/domains``: the domains that mail is sent from, the keys that sign it, and the DNS records they need."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.errors import ApiError, Fault
from api_shim.http import SessionDep, caller_with, services
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after_id, page
from api_shim.text import Domain
from models.base import uuid7
from models.domain import DkimKey, KeyStatus, SendingDomain
from worker.dkim_keys import activate, add_keys, forget_retired, keys_of
from worker.domain_check import records_of, take_in
from worker.domain_records import Record, Records
from worker.hosts import is_public_suffix
from worker.settings import Settings

router = APIRouter(prefix="/domains", tags=["domains"])
Reader = Annotated[Caller, caller_with("mailers:read")]
Writer = Annotated[Caller, caller_with("mailers:write")]


def _registrable(value: str) -> str:
    if is_public_suffix(value):
        raise ValueError("is a public suffix, under which everybody registers domains; name one of your own")
    return value


class DomainNew(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"domain": "example.com"}})

    domain: Annotated[Domain, AfterValidator(_registrable)]


class Rotation(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"force": False}})

    force: Annotated[bool, Field(strict=True)] = False
    """Sign with the new keys at once, whether their records are published or not."""


@router.post("", status_code=201)
def add_domain(body: DomainNew, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:
    """Adds a domain with two fresh keys, RSA and Ed25519; each signs once a check has seen its record."""
    row = SendingDomain(
        id=uuid7(), workspace_id=caller.workspace_id, name=body.domain, findings={}, created_at=datetime.now(UTC)
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        session.rollback()
        fault = Fault("domain", f"{body.domain} has been added before; find it with GET /v1/domains?domain=")
        raise ApiError("CONFLICT", faults=[fault]) from error
    keys = add_keys(session, services(request).vault, row)
    audit(session, caller, "domain.added", str(row.id), domain=row.name)
    session.commit()
    return show(services(request).settings, row, keys)


@router.get("")
def list_domains(
    *,
    request: Request,
    session: SessionDep,
    caller: Reader,
    domain: Annotated[Domain | None, Query(description="The whole name.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Domains with their keys and records, newest first."""
    mine = (SendingDomain.workspace_id == caller.workspace_id, *after_id(SendingDomain.id, cursor))
    named = () if domain is None else (SendingDomain.name == domain,)
    query = select(SendingDomain).where(*mine, *named).order_by(SendingDomain.id.desc()).limit(limit + 1)
    rows = session.scalars(query).all()
    keys = keys_of(session, rows)
    settings = services(request).settings
    return page(rows, limit, lambda row: show(settings, row, _own(row, keys)), lambda row: [row.id])


@router.get("/{id}")
def get_domain(id: UUID, request: Request, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002 -- the name in the path
    """One domain: the records to publish, and what the latest check found."""
    row = _find(session, caller, id)
    return show(services(request).settings, row, keys_of(session, [row]))


@router.delete("/{id}", status_code=204)
def remove_domain(id: UUID, session: SessionDep, caller: Writer) -> None:  # noqa: A002
    """Removes a domain and erases its keys; its mail goes out unsigned. Leave its records published for a week."""
    row = _find(session, caller, id, lock=True)
    audit(session, caller, "domain.removed", str(id), domain=row.name)
    session.delete(row)
    session.commit()


@router.post("/{id}/check")
def check_domain(id: UUID, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Looks the records up and says what to do about each. New keys whose record is there sign from now on."""
    settings = services(request).settings
    row = _find(session, caller, id)
    wanted = records_of(settings, row, keys_of(session, [row]))
    session.commit()  # the DNS may take its time: no connection is kept from others meanwhile
    findings = Records(settings.dns_servers).look_at(wanted)
    row = _find(session, caller, id, lock=True)
    keys = take_in(session, row, findings, api_key_id=caller.key_id)
    session.commit()
    return show(settings, row, keys)


@router.post("/{id}/rotate")
def rotate_keys(
    id: UUID,  # noqa: A002
    request: Request,
    session: SessionDep,
    caller: Writer,
    body: Rotation | None = None,
) -> dict[str, Any]:
    """Makes new keys. They take over once a check has seen their records; with ``force`` at once."""
    force = body is not None and body.force
    row = _find(session, caller, id, lock=True)
    forget_retired(session, row)
    keys = keys_of(session, [row])
    pending = [key for key in keys if key.status == KeyStatus.PENDING]
    if pending and not force:
        waiting = ", ".join(key.selector for key in pending)
        fault = Fault("id", f"the keys {waiting} wait for their records; publish them and check, or rotate with force")
        raise ApiError("CONFLICT", faults=[fault])
    if not pending:
        pending = add_keys(session, services(request).vault, row)
        keys = [*pending, *keys]
    if force:
        activate(keys, pending)
    audit(session, caller, "domain.keys_rotated", str(id), domain=row.name, forced=force)
    session.commit()
    return show(services(request).settings, row, keys)


def _find(session: Session, caller: Caller, domain_id: UUID, *, lock: bool = False) -> SendingDomain:
    query = select(SendingDomain).where(
        SendingDomain.id == domain_id, SendingDomain.workspace_id == caller.workspace_id
    )
    row = session.scalars(query.with_for_update().execution_options(populate_existing=True) if lock else query).first()
    if row is None:
        raise ApiError("NOT_FOUND", details={"id": str(domain_id)})
    return row


def _own(row: SendingDomain, keys: Iterable[DkimKey]) -> list[DkimKey]:
    return [key for key in keys if key.domain_id == row.id]


_UNCHECKED: dict[str, Any] = {"found": [], "ok": None, "advice": "not checked yet"}


def show(settings: Settings, row: SendingDomain, keys: Sequence[DkimKey]) -> dict[str, Any]:
    """A domain as the API answers it. Private keys never leave."""
    signing = any(key.status == KeyStatus.ACTIVE for key in keys)
    return {
        "id": row.id,
        "domain": row.name,
        "status": "signing" if signing else "pending",
        "keys": [_shown_key(key) for key in keys],
        "records": [_shown_record(row, record) for record in records_of(settings, row, keys)],
        "checked_at": row.checked_at,
        "created_at": row.created_at,
    }


def _shown_key(key: DkimKey) -> dict[str, Any]:
    names = ("selector", "algorithm", "status", "activated_at", "retires_at", "created_at")
    return {name: getattr(key, name) for name in names}


def _shown_record(row: SendingDomain, record: Record) -> dict[str, Any]:
    names = ("purpose", "type", "name", "value", "zone_line", "required")
    finding: dict[str, Any] = row.findings.get(record.key, _UNCHECKED)
    return {name: getattr(record, name) for name in names} | finding
