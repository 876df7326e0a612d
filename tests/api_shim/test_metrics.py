"""The exporter: what it says comes from what was counted and measured, and costs no more when much waits."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.metrics import render
from api_shim.services import Services
from models.base import uuid7
from models.metric import MetricCount
from models.worker import QueueSample
from providers.base import Outcome, Result
from tests.api_shim.conftest import Tenant
from tests.api_shim.record_rows import add_mailer
from tests.ops.conftest import add_message
from worker.beat import Ticker
from worker.meter import Meter, count_call, fold
from worker.runtime import Runtime
from worker.series import HTTP, SERIES, Kind
from worker.settings import Settings

Samples = dict[tuple[str, tuple[str, ...]], float]


def scraped(session: Session) -> Samples:
    """Every sample of a scrape by its name and the values of its labels, in the order of the series."""
    families = text_string_to_metric_families(render(session).decode())
    return {_key(sample.name, sample.labels): sample.value for family in families for sample in family.samples}


def _key(full_name: str, labels: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    name = full_name.removeprefix("postroad_")
    series = SERIES[re.sub(r"_(bucket|sum|count)$", "", name)]
    return name, tuple(labels[label] for label in (*series.labels, "le") if label in labels)


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Iterator[Settings]:
    """Of an application that writes its counts down only when it is asked to: it would do so before a test looks."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("worker.meter.FLUSH_SECONDS", 3600.0)
        yield settings


@pytest.fixture
def ticker(settings: Settings) -> Iterator[Ticker]:
    runtime = Runtime(settings, application="test beat")
    yield Ticker(runtime)
    runtime.close()


@pytest.fixture(autouse=True)
def _nothing_counted(session: Session) -> None:
    for table in ("metric_count", "metric_gauge", "queue_sample"):
        session.execute(text(f"delete from {table}"))
    session.execute(text("update message set due_at = null, state = 'cancelled'"))
    session.commit()


def test_what_was_counted_anywhere_is_added_up(app_services: Services, session: Session) -> None:
    meters = Meter(), Meter()
    for meter in meters:
        meter.count(SERIES["provider_errors_total"], "smtp", "transient", by=2)
        meter.flush(app_services.engine)
    with app_services.engine.begin() as connection:
        fold(connection)
    meters[0].count(SERIES["provider_errors_total"], "smtp", "transient")
    meters[0].flush(app_services.engine)
    assert scraped(session)["provider_errors_total", ("smtp", "transient")] == 5
    assert session.query(MetricCount).count() == 2


def test_counts_outlive_a_database_that_is_away(app_services: Services, session: Session) -> None:
    meter = Meter()
    meter.count(SERIES["webhook_attempts_total"], "delivered")
    session.execute(text("alter table metric_count rename to metric_count_away"))
    session.commit()
    meter.flush(app_services.engine)
    session.execute(text("alter table metric_count_away rename to metric_count"))
    session.commit()
    assert ("webhook_attempts_total", ("delivered",)) not in scraped(session)
    meter.flush(app_services.engine)
    assert scraped(session)["webhook_attempts_total", ("delivered",)] == 1


def test_a_histogram_is_cumulative_with_its_bounds_included(app_services: Services, session: Session) -> None:
    meter = Meter()
    for seconds in (0.005, 0.006, 29.9, 31.0):
        meter.observe(HTTP, seconds, "/email/send", "202")
    meter.flush(app_services.engine)
    found = scraped(session)
    buckets = {labels[-1]: value for (name, labels), value in found.items() if name == "http_request_seconds_bucket"}
    assert (buckets["0.005"], buckets["0.01"], buckets["10.0"], buckets["30.0"], buckets["+Inf"]) == (1, 2, 2, 3, 4)
    assert found["http_request_seconds_sum", ("/email/send", "202")] == pytest.approx(60.911)
    assert found["http_request_seconds_count", ("/email/send", "202")] == 4


def test_a_call_is_filed_under_the_worst_of_its_outcomes(app_services: Services, session: Session) -> None:
    meter = Meter()
    results = (Result.ACCEPTED, Result.PERMANENT, Result.UNCERTAIN, Result.PERMANENT)
    count_call(meter, "postmark", [Outcome(result=result) for result in results], 0.3)
    meter.flush(app_services.engine)
    found = scraped(session)
    assert found["provider_request_seconds_count", ("postmark", "uncertain")] == 1
    assert found["provider_errors_total", ("postmark", "permanent")] == 2
    assert found["provider_errors_total", ("postmark", "uncertain")] == 1
    assert ("provider_errors_total", ("postmark", "accepted")) not in found


def test_requests_are_timed_by_the_pattern_of_their_route(
    client: TestClient, app_services: Services, session: Session
) -> None:
    app_services.meter.take()
    for path in (f"/v1/contacts/{uuid7()}", f"/functions/v1/api/v1/contacts/{uuid7()}", "/v1/contacts/%22x%22"):
        client.get(path)
    client.get("/nowhere/at/all")
    client.post("/v1/email/send", json={})
    client.get("/ops/static/ops.css")
    client.get(f"/ops/messages/{str(uuid7()).upper()}", follow_redirects=False)
    seen = {cell.labels for cell in app_services.meter.take() if cell.name == HTTP.name}
    assert {route for route, _ in seen} == {
        "/contacts/{id}", "none", "/email/send", "/ops/static/{name}", "/ops/messages/{id:uuid}"
    }  # fmt: skip
    assert ("/email/send", "400") in seen
    assert ("none", "404") in seen


def test_what_is_stored_is_counted_with_it(client: TestClient, tenant: Tenant, session: Session) -> None:
    mailer_id = add_mailer(session, tenant)
    session.commit()
    session.execute(text("update mailer set from_addresses = '{a@demo.test}' where id = :id"), {"id": mailer_id})
    session.commit()
    body = {
        "from": {"email": "a@demo.test"}, "mailer_id": str(mailer_id), "settings": {}, "subject": "x",
        "to": [{"email": "b@example.com"}, {"email": "c@example.com"}], "content": [{"type": "text/plain", "value": "x"}],
    }  # fmt: skip
    assert client.post("/v1/email/send", json=body).status_code == 202
    assert client.post("/v1/email/send", json=body | {"dry_run": True}).status_code == 200
    assert scraped(session)["messages_accepted_total", ("send.normal", "mailer")] == 2
    [first, _] = client.get("/v1/messages").json()["data"]
    assert client.post(f"/v1/messages/{first['id']}/redeliver").status_code == 202
    assert scraped(session)["messages_accepted_total", ("send.normal", "mailer")] == 3


def test_gauges_are_what_the_beat_measured(ticker: Ticker, session: Session, tenant: Tenant) -> None:
    _trouble(session, tenant)
    ticker.sample()
    found = scraped(session)
    assert found["queue_depth", ("send.normal", "ready")] == 2
    assert found["queue_depth", ("send.normal", "scheduled")] == 1
    assert found["queue_oldest_age_seconds", ("send.normal",)] == pytest.approx(600, abs=5)
    assert {reason[0]: value for (name, reason), value in found.items() if name == "stuck_messages"} == {
        "held": 1, "late": 1, "reconnect": 1, "unlogged": 3
    }  # fmt: skip
    assert found["mailers", ("smtp", "reconnect_required")] == 1
    assert found["followup_lag_seconds", ()] == pytest.approx(0, abs=5)
    assert found["webhook_pending", ()] == 0
    assert found["workers", ("webhooks",)] == 0
    assert found["queue_paused", ("send.high",)] == 0
    assert found["last_beat_timestamp_seconds", ()] == pytest.approx(datetime.now(UTC).timestamp(), abs=5)


def _trouble(session: Session, tenant: Tenant) -> None:
    """A late mail, one of a mailer to be reconnected, one scheduled, one held, three that could not be logged."""
    now = datetime.now(UTC)
    mailer_id, refused_id = add_mailer(session, tenant), add_mailer(session, tenant)
    session.execute(text("update mailer set status = 'reconnect_required' where id = :id"), {"id": refused_id})
    add_message(session, tenant, mailer_id=mailer_id, due_at=now - timedelta(minutes=10))
    add_message(session, tenant, mailer_id=refused_id, due_at=now)
    add_message(session, tenant, mailer_id=mailer_id, due_at=now + timedelta(hours=1))
    add_message(session, tenant, mailer_id=mailer_id, state="uncertain", due_at=datetime(9999, 1, 1, tzinfo=UTC))
    session.execute(
        text("insert into followup (message_ids, tries, due_at) values (:ids, 1, now() + interval '1 hour')"),
        {"ids": [uuid7(), uuid7(), uuid7()]},
    )
    session.commit()


def test_while_the_beat_is_silent_nothing_old_is_shown_but_when_it_was_heard(ticker: Ticker, session: Session) -> None:
    ticker.sample()
    assert ("queue_depth", ("send.high", "ready")) in scraped(session)
    session.execute(text("update queue_sample set at = at - interval '1 minute'"))
    session.execute(text("update metric_gauge set at = at - interval '1 minute'"))
    session.commit()
    names = {name for name, _ in scraped(session)}
    assert names == {"workers", "last_beat_timestamp_seconds"}


def test_a_scrape_reads_no_table_of_mail(app_services: Services, session: Session) -> None:
    """Its cost must not grow with what waits: the tables it reads are short whatever happens."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(app_services.engine, "before_cursor_execute", note)
    render(session)
    event.remove(app_services.engine, "before_cursor_execute", note)
    tables = {table for statement in statements for table in re.findall(r"\bfrom (\w+)", statement)}
    assert tables == {"queue_sample", "worker_heartbeat", "metric_gauge", "metric_count"}


def test_every_series_is_named_as_prometheus_wants_it() -> None:
    for series in SERIES.values():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", series.name)
        assert (series.kind is Kind.COUNTER) == series.name.endswith("_total")
        assert bool(series.buckets) == (series.kind is Kind.HISTOGRAM)
        assert not {"message", "message_id", "address", "host", "worker", "workspace", "mailer"} & set(series.labels)


def test_samples_of_a_queue_that_is_gone_do_not_hide_the_newest(session: Session, tenant: Tenant) -> None:
    del tenant
    now = datetime.now(UTC)
    for age, ready in ((20, 7), (5, 9)):
        values = dict.fromkeys(("scheduled", "in_flight", "oldest_age_seconds", "in_per_second", "out_per_second"), 0)
        session.add(QueueSample(queue="send.high", at=now - timedelta(seconds=age), ready=ready, **values))
    session.commit()
    assert scraped(session)["queue_depth", ("send.high", "ready")] == 9


def test_metrics_need_no_key_and_name_nobody(api: TestClient, tenant: Tenant) -> None:
    answer = api.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert str(tenant.workspace_id) not in answer.text
