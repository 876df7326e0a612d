"""Mailers as a task uses them: the row, and its adapter kept open between tasks."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID
from weakref import WeakSet

from sqlalchemy import Engine

from models.database import each_by_itself, fetch
from models.mailer import MailerStatus
from providers import adapter, open_provider
from providers.base import Account, Provider
from worker.keeper import StoredCredentials
from worker.return_path import ReturnPaths
from worker.settings import Settings
from worker.vault import Vault

OPEN_PROVIDERS = 200
"""Adapters kept open per process; the one used longest ago is closed first."""


def mailer_purpose(mailer_id: UUID) -> str:
    """What a mailer's credentials are sealed for."""
    return f"mailer:{mailer_id}"


PACED = ("per_second", "per_minute", "per_day")
LEARNED_SECONDS = 7200
"""How long it is remembered that a mailer was throttled."""


def caps_in_force(provider: str, caps: Mapping[str, Any], base_url: str | None) -> dict[str, int]:
    """The limits that pace a mailer, by name: its own, else what its provider allows. A missing name has no limit.

    Behind a ``base_url`` stands another server, of whose limits nothing is known beforehand.
    """
    defaults = adapter(provider).default_caps if base_url is None else {}
    named = {name: caps.get(name) or defaults.get(name) for name in PACED}
    return {name: count for name, count in named.items() if count}


class OpenMailer:
    """A mailer as read for one task, with its adapter."""

    def __init__(self, row: Any, provider: Provider, paths: ReturnPaths) -> None:
        self.id: UUID = row.id
        self.version: str = row.version
        """Of its row: another one with every change of it (PostgreSQL's ``xmin``)."""
        self.workspace_id: UUID = row.workspace_id
        self.provider = provider
        self.provider_name: str = row.provider
        self.hook: str = f"{row.provider}/{row.hook_token}"
        """Below ``/v1/hooks/``: where the provider reports. Not to be logged."""
        self.seal: str = row.seal
        """Digest of the sealed credentials that the adapter was opened with."""
        self.fallback_id: UUID | None = row.fallback_id
        self.on_uncertain: str = row.on_uncertain
        self.tracking_domain: str | None = row.tracking_domain
        domain = row.return_path_domain
        self.return_path: Callable[[UUID], str] | None = partial(paths.bounce, domain) if domain else None
        """Makes the address that bounces of a message come back to; None: they go to the sender."""
        domain = row.reply_domain
        self.reply_path: Callable[[UUID], str] | None = partial(paths.reply, domain) if domain else None
        """Makes the address that answers to a message go to; None: they go to the sender."""
        self.caps = caps_in_force(row.provider, row.caps, row.base_url)
        self.learning: bool = row.learning
        """It was throttled not long ago: what was learned from that is asked for."""
        self.throttled_until: datetime | None = row.throttled_until
        self.sends: bool = row.status == MailerStatus.ACTIVE and not row.throttled


_MAILER = """
    select *, xmin::text as version, md5(sealed_credentials) as seal,
        coalesce(throttled_until > clock_timestamp(), false) as throttled,
        coalesce(throttled_until > clock_timestamp() - make_interval(secs => %(learned)s), false) as learning
    from mailer where id = %(id)s and deleted_at is null
"""


@dataclass(frozen=True, slots=True)
class _Open:
    """An adapter, what it was opened with, and those that may be calling it."""

    opened_with: tuple[Any, ...]
    provider: Provider
    users: WeakSet[OpenMailer] = field(default_factory=WeakSet)


class Providers:
    """Adapters by mailer. An adapter is reopened when the mailer's credentials, address or caps change.

    Safe to use from several threads: the one before is closed once no `OpenMailer` with it is held any more.
    """

    def __init__(self, engine: Engine, settings: Settings, vault: Vault) -> None:
        self._engine = engine
        self._settings = settings
        self._vault = vault
        self._paths = ReturnPaths(settings.keys)
        self._open: OrderedDict[UUID, _Open] = OrderedDict()
        self._read: dict[UUID, OpenMailer] = {}
        """As they were read last, of those in ``_open``."""
        self._replaced: list[_Open] = []
        self._lock = threading.Lock()

    def mailer(self, mailer_id: UUID) -> OpenMailer | None:
        """The mailer with its adapter, or None if it was deleted."""
        with each_by_itself(self._engine) as connection:
            rows = fetch(connection, _MAILER, {"id": mailer_id, "learned": LEARNED_SECONDS})
        if not rows:
            return None
        (row,) = rows
        with self._lock:
            found = self._found(row)
            mailer = self._read[mailer_id] = OpenMailer(row, found.provider, self._paths)
            found.users.add(mailer)
            unused = [each for each in self._replaced if not each.users]
            self._replaced = [each for each in self._replaced if each.users]
        for each in unused:
            each.provider.close()
        return mailer

    def as_read(self, mailer_id: UUID) -> OpenMailer | None:
        """The mailer as `mailer` read it last, without asking: its row may have another ``version`` by now."""
        with self._lock:
            return self._read.get(mailer_id)

    def _found(self, row: Any) -> _Open:
        opened_with = (row.provider, row.seal, row.base_url, row.auth_url, row.caps.get("connections"), row.ip_pools)
        known = self._open.get(row.id)
        if known is not None and known.opened_with == opened_with:
            self._open.move_to_end(row.id)
            return known
        if known is not None:
            self._replace(row.id)
        found = self._open[row.id] = _Open(opened_with, open_provider(self.account(row)))
        if len(self._open) > OPEN_PROVIDERS:
            self._replace(next(iter(self._open)))
        return found

    def _replace(self, mailer_id: UUID) -> None:
        self._replaced.append(self._open.pop(mailer_id))
        self._read.pop(mailer_id, None)

    def account(self, row: Any) -> Account:
        """The adapter's view of a mailer row."""
        return Account(
            mailer_id=str(row.id),
            provider=row.provider,
            credentials=self._vault.open(mailer_purpose(row.id), row.sealed_credentials),
            base_url=row.base_url,
            auth_url=row.auth_url,
            connections=row.caps.get("connections") or adapter(row.provider).default_caps.get("connections", 4),
            ip_pools=row.ip_pools,
            guard=self._settings.mailer_guard,
            keeper=StoredCredentials(self._engine, self._vault, row.id, mailer_purpose(row.id)),
        )

    def close(self) -> None:
        with self._lock:
            for each in (*self._replaced, *self._open.values()):
                each.provider.close()
            self._replaced.clear()
            self._open.clear()
            self._read.clear()
