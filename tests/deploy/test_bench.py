"""`postroad bench`: that it measures what it says, and that lost and doubled mail does not pass unseen."""

import smtplib
import tempfile
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from deploy.bench import client
from deploy.bench.receiver import CountingReceiver
from deploy.bench.report import Figure, Report, Target, percentile
from deploy.bench.run import HOURS, PARTS, Size, run
from deploy.bench.sinks import OwnSink
from deploy.cli import postroad

TINY = Size(
    mails=300, urgent=10, backlog=300, intake_seconds=0.4, waiting=3, webhooks=50, million=500,
    crowd=2_000, crowd_urgent=20, shares_seconds=0.5, most_senders=1, minutes=0.05, load=100.0,
)  # fmt: skip
MEASURED = {
    "throughput_intake", "throughput_recorded", "throughput_rows_inserted", "throughput_wal", "throughput",
    "million", "growth", "fair_urgent_p99", "fair_normal_p99", "least_share", "senders_1", "redis_peak", "urgent_p50", "urgent_p95", "urgent_p99",
    "urgent_answer_p99", "idle", "work_conserving", "empty_handler", "empty_in_app", "storing", "intake", "intake_of_handler",
    "intake_p50", "intake_p99", "intake_while_sending", "single_mails",
    "provider", "waiting_mailbox_p50", "waiting_mailbox_p99", "waiting_crm_p50", "waiting_crm_p99", "webhooks_1",
    "webhooks_100", "endurance", "endurance_database", "compose", "compose_everything", "compile",
}  # fmt: skip


@pytest.mark.stack
def test_every_part_measures_something_and_nothing_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    folder = scratch / "bench"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    report = run({*PARTS, *HOURS} - {"large", "peers"}, TINY, lambda _: None)
    figures = {figure.name: figure.value for figure in report.figures}
    assert set(figures) >= MEASURED
    many = ("throughput_dead", "million_dead", "throughput_rows", "million_rows")
    maybe_nothing = ("waiting", "least_share", "endurance_", "idle", "work_conserving", *many)
    assert [name for name, value in figures.items() if not value > 0 and not name.startswith(maybe_nothing)] == []
    assert (report.lost, report.doubled) == (0, 0), report.notes
    assert {cost.component for cost in report.costs} >= {"300: worker send.normal", "300: api", "500: sum"}
    assert {entry.process for entry in report.memory} >= {"api", "beat", "redis", "worker send.normal, child 1"}
    assert all(entry.megabytes > 1 for entry in report.memory)
    assert list(folder.iterdir()) == []


def test_a_lost_or_doubled_mail_ends_the_bench_with_1() -> None:
    assert [Report(lost=lost, doubled=doubled).exit_code for lost, doubled in ((0, 0), (1, 0), (0, 1))] == [0, 1, 1]


def test_our_own_sink_counts_what_comes_twice() -> None:
    with OwnSink() as sink:
        for number in (1, 2, 1, 1):
            with smtplib.SMTP("127.0.0.1", sink.port, timeout=5) as server:
                mail = f"Message-ID: <{number}@demo.test>\r\n\r\nhello\r\n"
                server.sendmail("a@demo.test", ["b@demo.test"], mail)
        assert sink.doubled == 2


def test_a_target_holds_for_the_ratio_or_for_the_value() -> None:
    limit = Figure(name="x", title="x", value=10, unit="", ratio=0.3, target=Target(">=", 0.25, of_ratio=True))
    wait = Figure(name="x", title="x", value=1001, unit="ms", target=Target("<=", 1000))
    assert (limit.met, wait.met) == (True, False)
    assert Figure(name="x", title="x", value=10, unit="").met is None


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0, 0.5, 0.99, 1)] == [1, 51, 100, 100]


def test_the_load_client_tells_answers_apart_and_the_receiver_counts_each_event() -> None:
    with CountingReceiver() as receiver:
        endpoint = client.Endpoint(url=receiver.url)
        requests = [endpoint.request(b"{}", extra=f"webhook-id: {number % 5}\r\n") for number in range(20)]
        requests.append(endpoint.request(orjson.dumps([{"webhook_id": "a"}, {"webhook_id": "b"}])))
        load = client.run(client.pace(endpoint.url, requests, count=3, rate=1000))
        assert (len(load.latencies), load.refused) == (21, 0)
        assert dict(receiver.came) == {"0": 4, "1": 4, "2": 4, "3": 4, "4": 4, "a": 1, "b": 1}


def test_composing_is_measured_without_a_stack() -> None:
    shown = CliRunner().invoke(postroad, ["bench", "compose", "--json"])
    assert shown.exit_code == 0, shown.output
    content = orjson.loads(shown.stdout)
    assert {figure["name"] for figure in content["figures"]} >= {"compose", "compose_everything", "compile"}


def test_a_part_that_does_not_exist_is_refused_with_those_that_do() -> None:
    shown = CliRunner().invoke(postroad, ["bench", "--only", "everything"])
    assert shown.exit_code == 2
    assert "There is no part everything. Parts: throughput, latency," in shown.output
