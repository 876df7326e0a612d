"""A provider's word about the account, not the mail: the mailer waits, and what is queued for it stays queued."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError

from models.event import EventType
from models.mailer import MailerStatus
from providers.base import Outcome, Result
from worker.bell import endpoint_lane
from worker.events import NewEvent, append_events
from worker.mailers import OpenMailer
from worker.retry import pause
from worker.runtime import Runtime
from worker.series import THROTTLED
from worker.storable import storable
from worker.vault import SecretUnreadable

log = structlog.get_logger()

STOPS_MAILER = (Result.THROTTLED, Result.CREDENTIALS)

_THROTTLE = text("update mailer set throttled_until = clock_timestamp() + :pause where id = :id")

# A mailer whose credentials were changed in the meantime was not what the provider refused.
_RECONNECT = text("""
    update mailer set status = :status, status_reason = :reason
    where id = :id and status = 'active' and md5(sealed_credentials) = coalesce(:seal, md5(sealed_credentials))
    returning name, workspace_id, provider
""")


def stop(runtime: Runtime, mailer: OpenMailer, outcome: Outcome) -> None:
    """Has the mailer wait: for some time if it was too fast, for a person if its credentials were refused.

    Should the database be away this is forgotten; the next mail will bring it up again.
    """
    mailer.sends = False
    log.warning("mailer_stopped", mailer_id=str(mailer.id), why=outcome.result.value, code=outcome.code)
    with _forgotten_without_database(mailer.id):
        if outcome.result is Result.THROTTLED:
            _throttle(runtime, mailer, outcome)
        else:
            _require_reconnect(runtime, mailer.id, outcome.detail, outcome.code, mailer.seal)


def open_mailer(runtime: Runtime, mailer_id: UUID) -> OpenMailer | None:
    """The mailer with its adapter. None if it was deleted, or parked since its credentials do not open."""
    try:
        return runtime.providers.mailer(mailer_id)
    except SecretUnreadable:
        reason = "the credentials do not open with POSTROAD_SECRET_KEYS; give the workers the key that sealed them and "
        park(runtime, mailer_id, reason + "resume the mailer, or set the credentials again")
        return None


def park(runtime: Runtime, mailer_id: UUID, reason: str) -> None:
    """Has the mailer wait for a person because a secret of ours does not open, as if its provider had refused it."""
    log.error("mailer_parked", mailer_id=str(mailer_id), why=reason)
    with _forgotten_without_database(mailer_id):
        _require_reconnect(runtime, mailer_id, reason, "secret_unreadable")


@contextmanager
def _forgotten_without_database(mailer_id: UUID) -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        log.warning("stop_not_recorded", mailer_id=str(mailer_id), error=type(error).__name__)


def _throttle(runtime: Runtime, mailer: OpenMailer, outcome: Outcome) -> None:
    if outcome.retry_after is None:
        runtime.pace.slow_down(mailer)
    seconds = pause(outcome.retry_after)
    runtime.meter.count(THROTTLED, mailer.provider_name, by=seconds)
    with runtime.engine.begin() as connection:
        connection.execute(_THROTTLE, {"id": mailer.id, "pause": timedelta(seconds=seconds)})


def _require_reconnect(
    runtime: Runtime, mailer_id: UUID, reason: str, code: str | None, seal: str | None = None
) -> None:
    """Whoever really stops the mailer says so, in the same transaction. seal: of the credentials that were refused."""
    status = MailerStatus.RECONNECT_REQUIRED
    parameters = {"id": mailer_id, "status": status, "reason": storable(reason), "seal": seal}
    with runtime.engine.begin() as connection:
        row = connection.execute(_RECONNECT, parameters).one_or_none()
        if row is None:
            return
        data = {
            "mailer_id": str(mailer_id),
            "name": row.name,
            "provider": row.provider,
            "reason": reason,
            "code": code,
        }
        event = NewEvent(
            workspace_id=row.workspace_id,
            type=EventType.MAILER_RECONNECT_REQUIRED,
            at=datetime.now(UTC),
            data=storable(data),
        )
        endpoints = append_events(connection, [event])
    for endpoint_id in endpoints:
        runtime.bells.ring(endpoint_lane(endpoint_id))
