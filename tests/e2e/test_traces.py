"""One trace from the request to the webhook, out of the real processes; and none at all where nobody asked."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.conftest import Stack, run_stack, wait_until
from tests.e2e.collector import Collector
from tests.worker.receiver import receiving

STEPS = {"POST /email/send", "claim", "compose", "send", "record", "webhook"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(scratch: Path, collector: Collector) -> Iterator[Stack]:
    """A stack of its own whose processes export to the collector."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTROAD_OTEL_ENDPOINT", collector.url)
        running = run_stack(scratch / "traced", "--no-demo")
    yield running
    running.stop()


def _send(stack: Stack, traceparent: str, to: str) -> None:
    body = {"to": to, "subject": "Traced", "body_text": "From here to there."}
    headers = {**stack.auth, "traceparent": traceparent}
    answer = requests.post(f"{stack.json['api']}/v1/email/send", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text


@pytest.mark.stack
def test_one_trace_leads_from_the_request_to_the_webhook(traced: Stack, collector: Collector) -> None:
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    with receiving() as receiver:
        hook = {"url": receiver.url, "events": ["*"]}
        requests.post(f"{traced.json['api']}/v1/webhook-endpoints", json=hook, headers=traced.auth, timeout=60)
        _send(traced, f"00-{trace_id}-{caller}-01", "grace@example.com")
        wait_until(lambda: {span.name for span in collector.trace(trace_id)} >= STEPS, "every step is in the trace")
        (call,) = receiver.calls
    spans = {span.name: span for span in collector.trace(trace_id)}
    request = spans["POST /email/send"]
    assert request.parent_id == caller
    assert request.attributes["http.response.status_code"] == "200"
    assert {spans[step].parent_id for step in STEPS - {request.name}} == {request.span_id}
    assert {request.service, spans["send"].service} == {"postroad api", "postroad worker"}
    assert call.headers["traceparent"] == f"00-{trace_id}-{spans['webhook'].span_id}-01"
    assert spans["send"].attributes == {"provider": "smtp", "mails": "1"}
    assert "grace" not in str(collector.spans)


@pytest.mark.stack
def test_who_is_not_sampled_costs_the_workers_nothing(traced: Stack, collector: Collector) -> None:
    trace_id = secrets.token_hex(16)
    _send(traced, f"00-{trace_id}-{secrets.token_hex(8)}-00", "alan@example.com")
    traced_id = secrets.token_hex(16)
    _send(traced, f"00-{traced_id}-{secrets.token_hex(8)}-01", "alan@example.com")
    wait_until(lambda: "record" in {span.name for span in collector.trace(traced_id)}, "the later one is exported")
    assert collector.trace(trace_id) == []


def test_without_an_endpoint_no_exporter_is_imported() -> None:
    program = (
        "import sys; from api_shim.app import create_app; from worker.runtime import Runtime;"
        "sys.exit(any(name.startswith('opentelemetry.exporter') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
