"""Measurements for `/metrics` that the beat takes beside its samples of the queues, so that a scrape counts nothing."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from sqlalchemy import Connection, text

from worker.bell import QUEUES
from worker.series import ENDPOINTS, KEY_EXPIRES, LAST_BEAT, MAILERS, PAUSED, STUCK, Series
from worker.standstill import paused

LATE = timedelta(minutes=5)
"""Queued mail of a mailer that may send is late after this."""

_STUCK = text("""
    select count(*) filter (where m.state = 'uncertain' and m.due_at >= '9999-01-01') as held,
           count(*) filter (where m.state = 'queued' and greatest(m.due_at, m.created_at) < clock_timestamp() - :late
                            and mailer.status = 'active'
                            and coalesce(mailer.throttled_until < clock_timestamp(), true)) as late,
           count(*) filter (where m.state = 'queued' and mailer.status = 'reconnect_required') as reconnect,
           (select coalesce(sum(cardinality(message_ids)), 0) from followup where tries > 0) as unlogged
    from message m join mailer on mailer.id = m.mailer_id where m.due_at is not null
""")
_MAILERS = text("""
    select provider,
           case when status = 'active' and throttled_until > clock_timestamp() then 'throttled' else status end,
           count(*)
    from mailer where deleted_at is null group by 1, 2
""")
_ENDPOINTS = text("""
    select case when status = 'active' and failing_since is not null then 'failing' else status end, count(*)
    from webhook_endpoint group by 1
""")
_KEY_EXPIRES = text("""
    select extract(epoch from min(expires_at)) from api_key
    where revoked_at is null and expires_at > clock_timestamp()
      and last_used_at > clock_timestamp() - interval '7 days'
""")
_NOW = text("select extract(epoch from clock_timestamp())")

_FORGET = text("delete from metric_gauge where name = :name")
_WRITE = text("""
    insert into metric_gauge (name, labels, value, at) values (:name, :labels, :value, clock_timestamp())
    on conflict (name, labels) do update set value = excluded.value, at = excluded.at
""")

Values = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the value they have."""


def set_gauge(connection: Connection, series: Series, values: Values) -> None:
    """Replaces all values of a series. The caller commits."""
    connection.execute(_FORGET, {"name": series.name})
    rows = [{"name": series.name, "labels": list(labels), "value": float(value)} for labels, value in values]
    if rows:
        connection.execute(_WRITE, rows)


def measure(connection: Connection) -> None:
    """Measures everything anew. The caller commits."""
    stuck = connection.execute(_STUCK, {"late": LATE}).one()._mapping
    set_gauge(connection, STUCK, (((reason,), count) for reason, count in stuck.items()))
    mailers = connection.execute(_MAILERS).all()
    set_gauge(connection, MAILERS, (((provider, status), count) for provider, status, count in mailers))
    set_gauge(connection, ENDPOINTS, (((status,), count) for status, count in connection.execute(_ENDPOINTS)))
    standing = paused(connection)
    set_gauge(connection, PAUSED, (((queue,), queue in standing) for queue in QUEUES))
    expires = connection.execute(_KEY_EXPIRES).scalar_one()
    set_gauge(connection, KEY_EXPIRES, [] if expires is None else [((), expires)])
    set_gauge(connection, LAST_BEAT, [((), connection.execute(_NOW).scalar_one())])
