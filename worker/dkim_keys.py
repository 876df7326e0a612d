"""The life of a domain's DKIM keys: made, active once their record was seen, retired by the next, forgotten."""

import secrets
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from models.base import uuid7
from models.domain import DkimKey, KeyStatus, SendingDomain
from worker.dkim import Algorithm, new_key
from worker.signers import key_purpose
from worker.vault import Vault

GRACE = timedelta(days=7)
"""How long the record of a retired key must stay: mail that it signed may be under way for days (RFC 5321)."""


def keys_of(session: Session, domains: Iterable[SendingDomain]) -> Sequence[DkimKey]:
    """Their keys, newest first, but for those whose time is over."""
    rows = list(domains)
    query = select(DkimKey).where(
        DkimKey.workspace_id.in_({row.workspace_id for row in rows}),
        DkimKey.domain_id.in_([row.id for row in rows]),
        DkimKey.retires_at.is_(None) | (DkimKey.retires_at > datetime.now(UTC)),
    )
    return session.scalars(query.order_by(DkimKey.id.desc())).all()


def add_keys(session: Session, vault: Vault, domain: SendingDomain) -> list[DkimKey]:
    """A fresh key of each algorithm, each under a selector of its own: a name holds one key."""
    name = secrets.token_hex(3)
    keys = [_new(vault, domain, algorithm, f"p{name}{algorithm.value[0]}") for algorithm in Algorithm]
    session.add_all(keys)
    return keys


def _new(vault: Vault, domain: SendingDomain, algorithm: Algorithm, selector: str) -> DkimKey:
    pair, key_id = new_key(algorithm), uuid7()
    return DkimKey(
        id=key_id,
        workspace_id=domain.workspace_id,
        domain_id=domain.id,
        selector=selector,
        algorithm=algorithm.value,
        public_key=pair.public,
        sealed_private_key=vault.seal(key_purpose(key_id), {"private": pair.private}),
        status=KeyStatus.PENDING,
        created_at=datetime.now(UTC),
    )


def activate(keys: Sequence[DkimKey], chosen: Collection[DkimKey]) -> None:
    """Has the chosen ones sign from now on; of ``keys``, those that did so with the same algorithm are retired."""
    now = datetime.now(UTC)
    algorithms = {key.algorithm for key in chosen}
    for key in keys:
        if key.status == KeyStatus.ACTIVE and key.algorithm in algorithms:
            key.status, key.retires_at = KeyStatus.RETIRED, now + GRACE
    for key in chosen:
        key.status, key.activated_at = KeyStatus.ACTIVE, now


def forget_retired(session: Session, domain: SendingDomain) -> None:
    """Erases keys whose record need not be published any more."""
    over = (
        DkimKey.workspace_id == domain.workspace_id,
        DkimKey.domain_id == domain.id,
        DkimKey.retires_at <= datetime.now(UTC),
    )
    session.execute(delete(DkimKey).where(*over))
