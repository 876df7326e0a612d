"""What stands around postroad in the end-to-end tests: a client, a webhook receiver, the recipients' inbox."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import requests
from standardwebhooks import Webhook

from tests.conftest import PATIENCE_SECONDS, Stack, wait_until


@dataclass(kw_only=True)
class Client:
    """Calls a running stack with its key."""

    stack: Stack
    key: str | None = None
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        authorization = {"Authorization": f"Bearer {self.key or self.stack.json['api_key']}"}
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.request(
            method, self.stack.json["api"] + path, json=body, headers=authorization | names, timeout=60
        )

    def get(self, path: str, **query: Any) -> Any:
        answer = self.session.get(self.stack.json["api"] + path, params=query, headers=self.stack.auth, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        return self.call("POST", path, body, **headers)

    def send(self, body: Any, **headers: str) -> requests.Response:
        return self.post("/v1/email/send", body, **headers)

    def mailer_body(self, *recipients: str, **changes: Any) -> dict[str, Any]:
        """A minimal body in the mailer shape."""
        body: dict[str, Any] = {
            "from": {"email": self.stack.json["from"], "name": "Demo"},
            "to": [{"email": recipient} for recipient in recipients],
            "subject": "Hello",
            "content": [{"type": "text/html", "value": "<p>Hello</p>"}],
            "mailer_id": self.stack.json["mailer_id"],
            "settings": {},
        }
        return body | changes

    def finished(self, ref_id: str, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """The submission once all its messages are finished."""
        found: dict[str, Any] = {}

        def is_finished() -> bool:
            found.update(self.get(f"/v1/submissions/{ref_id}"))
            return found["finished_at"] is not None

        wait_until(is_finished, f"submission {ref_id} is finished", seconds)
        return found

    def inbox(self, recipient: str) -> list[dict[str, Any]]:
        """What the recipient's mailbox holds, newest first."""
        listed: list[dict[str, Any]] = self.get("/inbox/messages", to=recipient, limit=500)["data"]
        return listed


class Receiver:
    """A webhook endpoint on loopback that keeps what it gets."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def events(self, secret: str) -> list[dict[str, Any]]:
        """The events received so far, each with its signature verified by the public library."""
        verifier = Webhook(secret)
        bodies = [verifier.verify(body, headers) for headers, body in list(self.requests)]
        return [event for body in bodies for event in (body if isinstance(body, list) else [body])]

    def wait_for(self, secret: str, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        wait_until(lambda: any(wanted(event) for event in self.events(secret)), what)
        return next(event for event in self.events(secret) if wanted(event))
