"""Fallback: mail that a mailer cannot send now goes out through the mailer that it names for that.

That is while its credentials are refused or its circuit is open (worker/circuits.py). Only mail that the first provider
surely does not have is moved: it is queued, was never uncertain, left no draft behind and was served to nobody.
"""

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, text

from models.mailer import MailerStatus
from models.message import UNTIL_SOMEBODY_ACTS
from providers import adapter
from worker.outcome import MOVED
from worker.runtime import Runtime

log = structlog.get_logger()

CHUNK = 1_000
"""Messages moved in one transaction; the next follows with the next tick."""
IN_VAIN_SECONDS = 60.0
"""Where nothing could be moved it is tried again so much later: to look through a long queue costs something."""
MOST_RECIPIENTS = 50
"""What every provider takes in one mail."""

_PAIRS = text("""
    select first.id, first.name, first.provider, first.status, second.id as fallback_id,
           second.name as fallback_name, second.provider as fallback_provider,
           array(select lower(address) from unnest(second.from_addresses) as address) as addresses,
           array(select lower(domain) from unnest(second.domains) as domain) as domains
    from mailer first join mailer second on second.id = first.fallback_id and second.workspace_id = first.workspace_id
    where first.deleted_at is null and second.deleted_at is null
      and first.status in ('active', 'reconnect_required') and second.status = 'active'
      and coalesce(second.throttled_until <= clock_timestamp(), true)
""")
_STAYS = text("select id from mailer where id = :id and deleted_at is null and status = 'active' for key share")

# A mail that was never tried waits for its own time; one that failed waits for ours.
_MOVE = text("""
    with picked as materialized (
        select m.id from message m join submission s on s.id = m.submission_id
        where m.mailer_id = :id and m.state = 'queued' and m.due_at < :held
          and (m.due_at <= clock_timestamp() or m.tries > 0 and m.reason is not null)
          and m.provider_message_id is null and m.outcomes is null and cardinality(m.recipients) <= :most_recipients
          and not m.attempts @? '$[*].outcome ? (@ == "uncertain" || @ starts with "lookup")'
          and (lower(s.content->'sender'->>'email') = any(:addresses)
               or lower(split_part(s.content->'sender'->>'email', '@', -1)) = any(:domains))
          and coalesce(s.content->'settings'->>'ip_pool', '') = ''
          and (:attachments or not s.content ? 'attachments')
        order by m.due_at limit :chunk for no key update of m skip locked
    ), moved as (
        update message m
        set mailer_id = :fallback_id, due_at = clock_timestamp(), reason = :reason,
            attempts = m.attempts || jsonb_build_array(jsonb_build_object(
                'at', clock_timestamp(), 'outcome', cast(:moved as text), 'detail', cast(:reason as text)))
        from picked where m.id = picked.id
        returning m.id
    )
    select count(*) from moved
""")


@dataclass(slots=True)
class Fallbacks:
    """Moves what can be moved, a chunk per mailer and call."""

    runtime: Runtime
    _in_vain_until: dict[UUID, float] = field(default_factory=dict)

    def divert(self) -> int:
        """How many messages were moved. Raises redis.RedisError, sqlalchemy.exc.SQLAlchemyError."""
        with self.runtime.engine.connect() as connection:
            pairs = connection.execute(_PAIRS).all()
        return sum(self._divert(pair) for pair in pairs if self._due(pair))

    def _due(self, pair: Any) -> bool:
        if time.monotonic() < self._in_vain_until.get(pair.id, 0.0):
            return False
        refused = pair.status == MailerStatus.RECONNECT_REQUIRED
        circuits = self.runtime.circuits
        return (refused or circuits.is_open(pair.id)) and not circuits.is_open(pair.fallback_id)

    def _divert(self, pair: Any) -> int:
        with self.runtime.engine.begin() as connection:
            stays = connection.execute(_STAYS, {"id": pair.fallback_id}).one_or_none()
            moved = 0 if stays is None else _move(connection, pair)
        if moved:
            log.warning("mail_moved", mailer_id=str(pair.id), fallback_id=str(pair.fallback_id), messages=moved)
        else:
            self._in_vain_until[pair.id] = time.monotonic() + IN_VAIN_SECONDS
        return moved


def _move(connection: Connection, pair: Any) -> int:
    why = "must be reconnected" if pair.status == MailerStatus.RECONNECT_REQUIRED else "does not get through"
    parameters = {
        "id": pair.id,
        "fallback_id": pair.fallback_id,
        "addresses": pair.addresses,
        "domains": pair.domains,
        "attachments": adapter(pair.fallback_provider).max_bytes >= adapter(pair.provider).max_bytes,
        "most_recipients": MOST_RECIPIENTS,
        "held": UNTIL_SOMEBODY_ACTS,
        "moved": MOVED,
        "reason": f"moved to mailer {pair.fallback_name}: {pair.name} {why}",
        "chunk": CHUNK,
    }
    return int(connection.execute(_MOVE, parameters).scalar_one())
