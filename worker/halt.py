"""A provider's word about the account, not the mail: the mailer waits, and what is queued for it stays queued."""

from datetime import UTC, datetime, timedelta

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

log = structlog.get_logger()

STOPS_MAILER = (Result.THROTTLED, Result.CREDENTIALS)

_THROTTLE = text("update mailer set throttled_until = clock_timestamp() + :pause where id = :id")

# A mailer whose credentials were changed in the meantime was not what the provider refused.
_RECONNECT = text("""
    update mailer set status = :status, status_reason = :reason
    where id = :id and status = 'active' and md5(sealed_credentials) = :seal
    returning name
""")


def stop(runtime: Runtime, mailer: OpenMailer, outcome: Outcome) -> None:
    """Has the mailer wait: for some time if it was too fast, for a person if its credentials were refused.

    Should the database be away this is forgotten; the next mail will bring it up again.
    """
    mailer.sends = False
    log.warning("mailer_stopped", mailer_id=str(mailer.id), why=outcome.result.value, code=outcome.code)
    try:
        if outcome.result is Result.THROTTLED:
            _throttle(runtime, mailer, outcome)
        else:
            _require_reconnect(runtime, mailer, outcome)
    except (OperationalError, InterfaceError) as error:
        log.warning("stop_not_recorded", mailer_id=str(mailer.id), error=type(error).__name__)


def _throttle(runtime: Runtime, mailer: OpenMailer, outcome: Outcome) -> None:
    if outcome.retry_after is None:
        runtime.pace.slow_down(mailer)
    seconds = pause(outcome.retry_after)
    runtime.meter.count(THROTTLED, mailer.provider_name, by=seconds)
    with runtime.engine.begin() as connection:
        connection.execute(_THROTTLE, {"id": mailer.id, "pause": timedelta(seconds=seconds)})


def _require_reconnect(runtime: Runtime, mailer: OpenMailer, outcome: Outcome) -> None:
    """Whoever really stops the mailer says so, in the same transaction."""
    parameters = {
        "id": mailer.id,
        "status": MailerStatus.RECONNECT_REQUIRED,
        "reason": storable(outcome.detail),
        "seal": mailer.seal,
    }
    with runtime.engine.begin() as connection:
        name = connection.execute(_RECONNECT, parameters).scalar_one_or_none()
        if name is None:
            return
        data = {
            "mailer_id": str(mailer.id),
            "name": name,
            "provider": mailer.provider_name,
            "reason": outcome.detail,
            "code": outcome.code,
        }
        event = NewEvent(
            workspace_id=mailer.workspace_id,
            type=EventType.MAILER_RECONNECT_REQUIRED,
            at=datetime.now(UTC),
            data=storable(data),
        )
        endpoints = append_events(connection, [event])
    for endpoint_id in endpoints:
        runtime.bells.ring(endpoint_lane(endpoint_id))
