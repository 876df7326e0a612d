"""Events per second to a receiver on this machine, one in a request and a hundred.

Real mails make the events. They are delivered once while the mails go out, which is not timed, and then replayed with
nothing else going on.
"""

import time
from datetime import UTC, datetime, timedelta

from deploy.bench import mails
from deploy.bench.receiver import CountingReceiver
from deploy.bench.report import Figure, Report
from deploy.bench.sinks import OwnSink, PostfixSink
from deploy.bench.stack import BenchStack

BATCHES = (1, 100)
PATIENCE_SECONDS = 60.0


def measure(stack: BenchStack, sink: PostfixSink | OwnSink, report: Report, *, events: int) -> None:
    mailer_id = stack.add_mailer("events", sink.port)
    for batch in BATCHES:
        with CountingReceiver() as receiver:
            seconds = _replay(stack, receiver, report, mailer_id=mailer_id, events=events, batch=batch)
        title = f"webhook events, {batch} in a request"
        report.add(Figure(name=f"webhooks_{batch}", title=title, value=events / seconds, unit="events/s"))


def _replay(
    stack: BenchStack, receiver: CountingReceiver, report: Report, *, mailer_id: str, events: int, batch: int
) -> float:
    """Seconds from the request to replay until the last event has come."""
    campaign = f"bench-{batch}"
    endpoint = {"url": receiver.url, "events": ["MAIL_DELIVERED"], "campaign_id": campaign, "max_batch": batch}
    path = f"/v1/webhook-endpoints/{stack.post('/v1/webhook-endpoints', endpoint)['id']}"
    since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    readers = mails.people(f"event{batch}-", events)
    stack.send(mails.request(stack.json, readers, mailer_id=mailer_id, campaign_id=campaign))
    receiver.wait_for(events, PATIENCE_SECONDS)
    _account(receiver, report, events)
    stack.wait_idle(events)
    receiver.came.clear()
    began = time.monotonic()
    stack.post(f"{path}/replay", {"since": since})
    ended = receiver.wait_for(events, PATIENCE_SECONDS)
    _account(receiver, report, events)
    return ended - began


def _account(receiver: CountingReceiver, report: Report, events: int) -> None:
    report.lost += events - len(receiver.came)
    report.doubled += receiver.came.total() - len(receiver.came)
