"""What `postroad doctor` says of the domains that mail is sent from: whether the DNS holds what they need."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exists, select
from sqlalchemy.orm import Session

from deploy.check import Check
from models.domain import DkimKey, SendingDomain
from models.mailer import Mailer
from worker.dkim_keys import keys_of
from worker.domain_check import records_of
from worker.domain_records import BOUNCES, Finding, Purpose, Record, Records
from worker.settings import Settings

AT_ONCE = 16
SECONDS = 20.0
"""Longest that all domains together are asked about; what the beat found last stands for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A domain with keys."""

    name: str
    records: Sequence[Record]
    """Those that its mail needs."""
    findings: Mapping[str, Mapping[str, Any]]
    """Of the latest check, by `Record.key`."""


def read_domains(connection: Connection, settings: Settings) -> list[Watched]:
    """Every domain with keys, and the records that its mail needs."""
    with_keys = exists().where(DkimKey.domain_id == SendingDomain.id)
    with Session(connection) as session:
        rows = session.scalars(select(SendingDomain).where(with_keys).order_by(SendingDomain.name)).all()
        keys = keys_of(session, rows)
        mailers = select(Mailer.workspace_id, Mailer.return_path_domain).where(Mailer.return_path_domain.is_not(None))
        returns = {(mailer.workspace_id, mailer.return_path_domain) for mailer in session.execute(mailers)}
        watched = []
        for row in rows:
            records = records_of(settings, row, [key for key in keys if key.domain_id == row.id])
            bounces = (row.workspace_id, f"{BOUNCES}.{row.name}") in returns
            needed = [each for each in records if each.required or (bounces and each.purpose is Purpose.RETURN_PATH)]
            watched.append(Watched(name=row.name, records=needed, findings=row.findings))
    return watched


def check_domains(domains: Sequence[Watched], servers: str) -> Iterator[Check]:
    """A line for each domain. servers: as in ``POSTROAD_DNS_SERVERS``."""
    threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="domains")
    asked = [threads.submit(Records(servers).look_at, domain.records) for domain in domains]
    wait(asked, timeout=SECONDS)
    threads.shutdown(wait=False, cancel_futures=True)
    for domain, answer in zip(domains, asked, strict=True):
        yield _judged(domain, _found(domain, answer))


def _found(domain: Watched, answer: Future[dict[str, Finding]]) -> Mapping[str, Mapping[str, Any]]:
    if answer.done() and not answer.cancelled():
        return {name: finding.to_json() for name, finding in answer.result().items()}
    return domain.findings


_UNKNOWN = {"ok": None, "advice": "not checked yet"}


def _judged(domain: Watched, findings: Mapping[str, Mapping[str, Any]]) -> Check:
    found = [(record, findings.get(record.key, _UNKNOWN)) for record in domain.records]
    wrong = [(record, finding) for record, finding in found if not finding["ok"]]
    name = f"domain {domain.name}"
    if not wrong:
        purposes = dict.fromkeys(record.purpose.value for record in domain.records)
        return Check(name=name, ok=True, found=f"{', '.join(purposes)} as they should be")
    lacking = dict.fromkeys(f"{record.purpose} ({record.name})" for record, _ in wrong)
    advice = "; ".join(f"{record.purpose}: {finding['advice']}" for record, finding in wrong)
    fix = f"{advice}. The values: postroad domain check {domain.name}"
    return Check(name=name, ok=False, found=f"not right: {', '.join(lacking)}", fix=fix)
