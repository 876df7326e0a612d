"""Who signs mail of which workspace and domain: the active keys of the database, read anew every half a minute."""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, text

from worker.dkim import Signer, SigningKey
from worker.vault import SecretUnreadable, Vault

log = structlog.get_logger()

REMEMBERED_SECONDS = 30.0
"""A key that was retired may sign for so long yet; its record stays published for days."""

WORKSPACES = 1000
"""Workspaces remembered; the one used longest ago is forgotten first."""

_ACTIVE = text("""
    select domain.name as domain, key.id, key.selector, key.sealed_private_key
    from dkim_key key join sending_domain domain on domain.id = key.domain_id
    where key.workspace_id = :workspace_id and key.status = 'active'
    order by domain.name, key.algorithm desc, key.id
""")


def key_purpose(key_id: UUID) -> str:
    """What a DKIM key is sealed for."""
    return f"dkim_key:{key_id}"


class SigningKeysUnreadable(Exception):
    """A domain has active keys and none of them opens. Its mail waits: unsigned it would be taken for forged."""


@dataclass(slots=True)
class _Known:
    keys: tuple[UUID, ...]
    signers: Mapping[str, Signer | None]
    """None: of the domain's keys none opens."""
    until: float


class Signers:
    """Signers by workspace and domain. For one thread."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._known: OrderedDict[UUID, _Known] = OrderedDict()

    def signer(self, connection: Connection, workspace_id: UUID, domain: str) -> Signer | None:
        """Who signs mail from this domain: its own signer, else that of the nearest domain above it.

        Raises SigningKeysUnreadable.
        """
        signers = self._of(connection, workspace_id)
        while signers and domain:
            if domain in signers:
                return _readable(domain, signers[domain])
            domain = domain.partition(".")[2]
        return None

    def _of(self, connection: Connection, workspace_id: UUID) -> Mapping[str, Signer | None]:
        known = self._known.get(workspace_id)
        now = time.monotonic()
        if known is None or known.until < now:
            rows = connection.execute(_ACTIVE, {"workspace_id": workspace_id}).all()
            keys = tuple(row.id for row in rows)
            unchanged = known is not None and known.keys == keys
            known = _Known(keys, known.signers if known and unchanged else self._opened(rows), now + REMEMBERED_SECONDS)
            self._known[workspace_id] = known
            if len(self._known) > WORKSPACES:
                self._known.popitem(last=False)
        self._known.move_to_end(workspace_id)
        return known.signers

    def _opened(self, rows: Sequence[Any]) -> dict[str, Signer | None]:
        signers: dict[str, Signer | None] = {}
        for domain, group in groupby(rows, key=lambda row: row.domain):
            keys = [key for row in group if (key := self._key(row))]
            signers[domain] = Signer(domain, keys) if keys else None
        return signers

    def _key(self, row: Any) -> SigningKey | None:
        """None where it does not open: the domain's other key signs alone, and the log says so."""
        try:
            private = self._vault.open(key_purpose(row.id), row.sealed_private_key)["private"]
        except SecretUnreadable:
            log.error("dkim_key_unreadable", key_id=str(row.id))
            return None
        return SigningKey(row.selector, private)


def _readable(domain: str, signer: Signer | None) -> Signer:
    if signer is None:
        raise SigningKeysUnreadable(
            f"the DKIM keys of {domain} do not open with POSTROAD_SECRET_KEYS; give the workers the key that sealed "
            "them, or rotate the domain's keys, then resume the mailer"
        )
    return signer
