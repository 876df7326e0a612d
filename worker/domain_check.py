"""Looks at the DNS for what domains need, and has new keys sign once their record is there.

By hand at ``POST /v1/domains/{id}/check``, and by the beat: once a day, every hour while a key waits for its record.
"""

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from models.access import AuditEntry
from models.domain import DkimKey, KeyStatus, SendingDomain
from worker.dkim import Algorithm
from worker.dkim_keys import activate, forget_retired, keys_of
from worker.domain_records import Finding, PublicKey, Record, Records, dkim_name, expected
from worker.runtime import Runtime
from worker.settings import Settings

log = structlog.get_logger()

ROUND_SECONDS = 60.0
"""From one look for domains whose time has come to the next."""
AT_ONCE = 20
"""Domains of one round; each takes at most about `worker.domain_records.LIFETIME_SECONDS`."""

_DUE = text("""
    select id from (
        select id, coalesce(checked_at, created_at) + case
            when exists (select from dkim_key where domain_id = domain.id and status = 'pending')
            then interval '1 hour' else interval '1 day' end as due_at
        from sending_domain domain) waiting
    where due_at <= clock_timestamp() order by due_at limit :limit
""")


def records_of(settings: Settings, row: SendingDomain, keys: Sequence[DkimKey]) -> list[Record]:
    """What is to be published for a domain with these keys."""
    public = [
        PublicKey(selector=key.selector, algorithm=Algorithm(key.algorithm), public=key.public_key) for key in keys
    ]
    return expected(row.name, public, spf=settings.spf_mechanisms, mail_host=settings.mail_host_name)


def take_in(
    session: Session, row: SendingDomain, findings: Mapping[str, Finding], *, api_key_id: UUID | None = None
) -> Sequence[DkimKey]:
    """Keeps what was found beside a locked row and has new keys sign whose record was seen. Returns the domain's keys.

    api_key_id: who asked; None for the beat. The caller commits.
    """
    forget_retired(session, row)
    keys = keys_of(session, [row])
    seen = [key for key in keys if key.status == KeyStatus.PENDING and _is_published(row, key, findings)]
    activate(keys, seen)
    session.add_all(
        AuditEntry(
            workspace_id=row.workspace_id,
            api_key_id=api_key_id,
            action="domain.key_activated",
            target=str(row.id),
            detail={"domain": row.name, "selector": key.selector},
        )
        for key in seen
    )
    row.findings, row.checked_at = {name: found.to_json() for name, found in findings.items()}, datetime.now(UTC)
    return keys


def _is_published(row: SendingDomain, key: DkimKey, findings: Mapping[str, Finding]) -> bool:
    finding = findings.get(f"TXT {dkim_name(key.selector, row.name)}")
    return finding is not None and finding.ok is True


def check_due(runtime: Runtime, stop: threading.Event) -> int:
    """Checks the domains whose time has come, until ``stop`` is set. Returns how many were."""
    checked = 0
    with Session(runtime.engine) as session:
        due = session.execute(_DUE, {"limit": AT_ONCE}).scalars().all()
        for domain_id in due:
            session.rollback()
            if stop.is_set():
                break
            checked += _check(session, runtime.settings, domain_id)
    return checked


def _check(session: Session, settings: Settings, domain_id: UUID) -> bool:
    """False where the domain was removed meanwhile."""
    row = session.get(SendingDomain, domain_id)
    if row is None:
        return False
    wanted = records_of(settings, row, keys_of(session, [row]))
    session.commit()  # the DNS may take its time: no connection is kept from others meanwhile
    findings = Records(settings.dns_servers).look_at(wanted)
    locked = select(SendingDomain).where(SendingDomain.id == domain_id).with_for_update()
    row = session.scalars(locked.execution_options(populate_existing=True)).one_or_none()
    if row is None:
        return False
    take_in(session, row, findings)
    session.commit()
    return True


def check_until(runtime: Runtime, stop: threading.Event) -> None:
    """Checks until ``stop`` is set. Raises nothing: what was not checked is due the next time."""
    while not stop.is_set():
        try:
            if checked := check_due(runtime, stop):
                log.info("domains_checked", domains=checked)
        except SQLAlchemyError as error:
            log.warning("domain_check_failed", error=type(error).__name__, next=f"again in {ROUND_SECONDS:g} s")
        stop.wait(ROUND_SECONDS)
