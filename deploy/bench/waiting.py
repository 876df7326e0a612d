"""What a request that waits for its outcome takes beyond the time of the provider itself."""

import json
import smtplib
import time
from contextlib import closing
from http.client import HTTPConnection
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from deploy.bench import mails
from deploy.bench.report import Figure, Report, Target, percentile
from deploy.bench.stack import BenchError, BenchStack

WARM_UP = 10
MOST_ADDED_MS = 15.0


def measure(stack: BenchStack, report: Report, *, requests: int) -> None:
    """One request after the other; the provider is the local inbox."""
    own = _provider_ms(stack, requests)
    report.add(Figure(name="provider", title="the provider's own time, p50", value=own, unit="ms"))
    for shape, what in (("mailbox", "sent"), ("crm", "sent and recorded")):
        added = [took - own for took in _waits(stack, shape, requests)]
        title = f"added by waiting until {what}"
        report.add(
            Figure(name=f"waiting_{shape}_p50", title=f"{title}, p50", value=percentile(added, 0.5), unit="ms",
                   target=Target("<=", MOST_ADDED_MS)),
            Figure(name=f"waiting_{shape}_p99", title=f"{title}, p99", value=percentile(added, 0.99), unit="ms"),
        )  # fmt: skip


def _waits(stack: BenchStack, shape: str, requests: int) -> list[float]:
    """Milliseconds of each request, over a kept connection and past any library that takes its own time."""
    took = []
    url = urlsplit(stack.send_url)
    headers = {"Authorization": f"Bearer {stack.json['api_key']}", "Content-Type": "application/json"}
    with closing(HTTPConnection(url.netloc, timeout=120)) as connection:
        for number in range(WARM_UP + requests):
            body = json.dumps(_body(shape, f"waiting{number}@example.com", stack.json))
            began = time.monotonic()
            connection.request("POST", url.path, body, headers)
            answer = connection.getresponse().read()
            took.append((time.monotonic() - began) * 1e3)
            if (status := json.loads(answer).get("status")) != "sent":
                raise BenchError(f"a request that waits was answered {status} after {took[-1]:.0f} ms")
    return took[WARM_UP:]


def _body(shape: str, address: str, stack: dict[str, Any]) -> dict[str, Any]:
    shared = {"subject": "The news of November", "contact_id": stack["contact_id"]}
    if shape == "crm":
        return {"to_email": address, "html_body": mails.HTML, **shared}
    return {"to": [address], "body_html": mails.HTML, "body_text": mails.TEXT, **shared}


def _provider_ms(stack: BenchStack, requests: int) -> float:
    """The same mail by smtplib over an open connection."""
    host, _, port = stack.json["inbox"]["smtp"].partition(":")
    body = f"Subject: The news of November\r\n\r\n{mails.HTML}{mails.TEXT}".encode()
    took = []
    with smtplib.SMTP(host, int(port), timeout=10) as server:
        for _ in range(requests):
            began = time.monotonic()
            server.sendmail(stack.json["from"], ["direct@example.com"], body)
            took.append((time.monotonic() - began) * 1e3)
    return median(took)
