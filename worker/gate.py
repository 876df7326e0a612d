"""Mail that other servers hand to us: for whom it is taken, and that it is stored before it is answered for.

An address is ours if it carries a token that we made (see `worker.return_path`), whatever its domain, or if its domain
is one of POSTROAD_INBOUND_DOMAINS and a mailer or a sender configuration sends as it. Of several workspaces that claim
one address the first to have made its mailer gets the mail.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from sqlalchemy import text

from worker.bell import REPORTS_LANE
from worker.mailers import OpenMailer
from worker.reports import RawMail, store_mail
from worker.return_path import Kind, ReturnPaths
from worker.runtime import Runtime

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """An address that mail is taken for."""

    address: str = field(repr=False)
    mailer_id: UUID


_OF_MESSAGE = text("""
    select m.mailer_id from message m join mailer on mailer.id = m.mailer_id
    where m.id = :id and mailer.deleted_at is null
""")
_OF_MAILER = text("select id from mailer where id = :id and deleted_at is null")
_OF_SENDER = text("""
    select id from (
        select mailer.id, mailer.created_at from mailer
        where deleted_at is null
              and (exists (select from unnest(from_addresses) mine where lower(mine) = :address)
                   or :domain = any(domains))
        union all
        select mailer.id, mailer.created_at
        from email_config config
             join workspace on workspace.id = config.workspace_id and lower(workspace.mail_domain) = :domain
             join mailer on mailer.workspace_id = workspace.id and mailer.deleted_at is null
                  and (mailer.id = config.mailer_id or config.mailer_id is null and mailer.is_default)
        where config.from_email_handle = :local
    ) claims order by created_at, id limit 1
""")


class Gate:
    """Decides for whom mail is taken, and stores it. Safe to use from several threads."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._paths = ReturnPaths(runtime.settings.keys)
        self._domains = runtime.settings.inbound_domain_names

    def destination(self, address: str) -> Destination | None:
        """Where mail for an address goes; None if it is no address of ours."""
        mailer_id = self._by_token(address) if (address.isprintable() and "@" in address) else None
        return None if mailer_id is None else Destination(address=address, mailer_id=mailer_id)

    def _by_token(self, address: str) -> UUID | None:
        found = self._paths.read(address)
        local, _, domain = address.lower().rpartition("@")
        with self._runtime.engine.connect() as connection:
            if found is not None:
                statement = _OF_MAILER if found.kind is Kind.INBOX else _OF_MESSAGE
                return connection.execute(statement, {"id": found.id}).scalar_one_or_none()
            if domain not in self._domains:
                return None
            claimed = {"address": address.lower(), "local": local, "domain": domain}
            return connection.execute(_OF_SENDER, claimed).scalar_one_or_none()

    def take(self, raw: bytes, envelope_from: str, destinations: Sequence[Destination]) -> None:
        """Stores a mail for each of its destinations, all in one transaction, and rings for it.

        Handing over the same mail again does no harm: it is known by what it is.
        """
        digest = hashlib.sha256(raw).hexdigest()
        mailers = {each.mailer_id: self._runtime.providers.mailer(each.mailer_id) for each in destinations}
        with self._runtime.engine.begin() as connection:
            for each in destinations:
                mailer: OpenMailer | None = mailers[each.mailer_id]
                if mailer is None:  # deleted since
                    continue
                key = f"mail:{digest}:{hashlib.sha256(each.address.encode()).hexdigest()[:16]}"
                mail = RawMail(natural_key=key, raw=raw, recipient=each.address, envelope_from=envelope_from)
                store_mail(connection, self._runtime.vault, mailer, mail)
        self._runtime.bells.ring(REPORTS_LANE)
        log.info("mail_taken", destinations=len(destinations), bytes=len(raw))
