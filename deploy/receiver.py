"""A small receiver of webhooks on loopback: what the other side of an endpoint looks like."""

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from deploy.services import LOOPBACK


class Receiver:
    """Checks every signature and counts events. Starts at once, in a thread of its own."""

    def __init__(self, port: int, secret: str) -> None:
        self.refused = 0
        """Requests whose signature did not fit."""
        self._webhook = Webhook(secret)
        self._events: dict[str, Counter[str]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((LOOPBACK, port), self._handler())
        threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True).start()

    def count(self, ref_ids: set[str]) -> int:
        """Verified events about these submissions."""
        with self._lock:
            return sum(sum(self._events.get(ref_id, {}).values()) for ref_id in ref_ids)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        """Notes the events of one request; returns the status to answer."""
        try:
            content: Any = self._webhook.verify(body, headers)
        except WebhookVerificationError:
            self.refused += 1
            return 401
        with self._lock:
            for event in content if isinstance(content, list) else [content]:
                ref_id = str(event["details"].get("ref_id"))
                self._events.setdefault(ref_id, Counter())[event["event"]] += 1
        return 204

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receiver.take(body, {name.lower(): value for name, value in self.headers.items()}))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Requests are counted, not printed."""

        return Handler
