"""Forgetting a person: every place where their address stands is overwritten, so that counts stay what they were.

The beat does it, in short transactions and without an end time; done twice it finds nothing the second time. What is
in a worker's hand is waited for.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine

from models.partition import first_id
from worker import erasure_sql as sql
from worker.vault import SecretUnreadable, Vault

log = structlog.get_logger()

ERASED = "erased@erased.invalid"
"""Stands where the address stood. No mail can reach it (RFC 2606 section 2)."""

PAGE = 10_000
"""Rows looked through by one statement."""


def erasure_purpose(erasure_id: UUID) -> str:
    """What the address of an erasure is sealed for."""
    return f"erasure {erasure_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who is to be forgotten, in one workspace."""

    workspace_id: UUID
    address: str = field(repr=False)
    """Lower case."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What the statements of `worker.erasure_sql` are given; ``pattern`` finds the address, not a longer one."""
        pattern = rf"(?<![a-z0-9.!#$%&'*+/=?^_`{{|}}~-]){re.escape(self.address)}(?![a-z0-9-]|\.[a-z0-9])"
        return {
            "workspace": self.workspace_id,
            "address": self.address,
            "pattern": pattern,
            "erased": ERASED,
            "kept": ["evidence", "status", "is_bot", "thread_id"],
        }


def erase_pending(engine: Engine, vault: Vault) -> int:
    """Carries out what was asked for. Returns how many requests are finished; the others are for the next time."""
    finished = 0
    with engine.connect() as found:
        pending = found.execute(sql.PENDING).all()
    for row in pending:
        try:
            address = vault.open(erasure_purpose(row.id), bytes(row.sealed_address))["address"]
        except SecretUnreadable:
            log.error("erasure_unreadable", erasure_id=str(row.id), next="waits for the key that sealed it")
            continue
        person = Person(workspace_id=row.workspace_id, address=address)
        report, busy = erase(engine, person, contacts=row.with_contacts, suppressions=row.with_suppressions)
        with engine.begin() as connection:
            finished_at = None if busy else datetime.now(UTC)
            values = {"id": row.id, "counts": [*report.values()], "names": [*report], "finished_at": finished_at}
            finished += connection.execute(sql.FINISH, values).rowcount * (not busy)
        log.info("erasure_done" if not busy else "erasure_waits", erasure_id=str(row.id), busy=busy, **report)
    return finished


def erase(engine: Engine, person: Person, *, contacts: bool, suppressions: bool) -> tuple[Counter[str], int]:
    """Overwrites everything of the person. Returns kind -> how many, and how many mails a worker has in hand."""
    report: Counter[str] = Counter()
    busy = 0
    for page in (sql.LOGGED, sql.MESSAGES):
        for ids in _walk(engine, page, person, first_id(datetime.fromtimestamp(0, UTC))):
            with engine.begin() as connection:
                busy += _erase_mails(connection, person, ids, report)
    for ids in _walk(engine, sql.EVENTS, person, 0):
        with engine.begin() as connection:
            _count(connection, report, person, (("events", sql.EVENT), ("deliveries", sql.DELIVERY)), ids=ids)
    with engine.begin() as connection:
        _erase_conversations(connection, person, report)
        _count(connection, report, person, (("reports", sql.REPORTS),))
        if contacts:
            _count(connection, report, person, (("contacts", sql.CONTACTS),))
        if suppressions:
            _count(connection, report, person, (("suppressions", sql.SUPPRESSIONS),))
    return report, busy


def _walk(engine: Engine, page: Any, person: Person, after: Any) -> Iterator[list[UUID]]:
    """The ids of the rows that name the person, page by page through all of the workspace's."""
    while True:
        with engine.connect() as connection:
            row = connection.execute(page, person.parameters | {"after": after, "limit": PAGE}).one()
        if row.found:
            yield row.found
        if row.last is None:
            return
        after = row.last


def _erase_mails(connection: Connection, person: Person, ids: Sequence[UUID], report: Counter[str]) -> int:
    """Takes back what is still to be sent, and overwrites the rest. Returns how many are in a worker's hand."""
    values = person.parameters | {"ids": ids}
    busy: int = connection.execute(sql.BUSY, values).scalar_one()
    report["cancelled"] += connection.execute(sql.CANCEL, values).scalar_one()
    report["cancelled"] += connection.execute(sql.LEAVE_OUT, values).rowcount
    _count(
        connection,
        report,
        person,
        (("messages", sql.MESSAGE), ("logs", sql.LOG), ("activities", sql.ACTIVITY)),
        ids=ids,
    )
    hashes: set[str] = set()
    for row in connection.execute(sql.SUBMISSIONS, values).all():
        new, gone = _without(row.content, person.address, whole=row.theirs)
        hashes |= gone
        if new != row.content or row.theirs:
            changed = {"id": row.id, "content": new, "theirs": row.theirs}
            report["submissions"] += connection.execute(sql.SUBMISSION, changed).rowcount
    _erase_files(connection, person, hashes, report)
    return busy


def _without(content: dict[str, Any], address: str, *, whole: bool) -> tuple[dict[str, Any], set[str]]:
    """A submission's content without the person, and the attachments that it no longer names.

    whole: it went to nobody else, so that nothing but its sender and its switches is left.
    """
    if whole:
        left: dict[str, Any] = {name: content[name] for name in ("sender", "individual", "settings") if name in content}
        hashes = {item["sha256"] for item in content.get("attachments", ())}
        return {**left, "subject": "", "personalised": False}, hashes
    nobody = {"email": ERASED, "name": None}
    replaced: dict[str, Any] = {
        name: [nobody if item["email"].lower() == address else item for item in content[name]]
        for name in ("to", "cc", "bcc", "reply_to")
        if name in content
    }
    return {**content, **replaced}, set()


def _erase_conversations(connection: Connection, person: Person, report: Counter[str]) -> None:
    received = connection.execute(sql.RECEIVED, person.parameters).all()
    report["received"] += len(received)
    hashes = {item["sha256"] for row in received for item in row.attachments if "sha256" in item}
    values = person.parameters | {"ids": [row.id for row in received]}
    connection.execute(sql.RECEIVED_WIPED, values)
    report["activities"] += connection.execute(sql.ACTIVITY, values).rowcount
    _count(connection, report, person, (("threads", sql.THREADS),))
    _erase_files(connection, person, hashes, report)


def _erase_files(connection: Connection, person: Person, hashes: set[str], report: Counter[str]) -> None:
    """Deletes the bytes that no other mail names. Locked first: whoever is storing a mail with them is waited for."""
    if hashes:
        values = {"workspace": person.workspace_id, "hashes": sorted(hashes)}
        connection.execute(sql.HOLD_FILES, values)
        report["files"] += connection.execute(sql.FILES, values).rowcount


def _count(
    connection: Connection, report: Counter[str], person: Person, steps: Sequence[tuple[str, Any]], **more: Any
) -> None:
    for kind, statement in steps:
        report[kind] += connection.execute(statement, person.parameters | more).rowcount
