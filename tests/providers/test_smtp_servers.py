"""SMTP against servers that others wrote: Postfix's smtp-sink and aiosmtpd."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from deploy.services import free_port
from providers.base import Account, Result
from providers.guard import Guard
from providers.smtp import Smtp
from tests.providers.samples import mail

SINK = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_sink = pytest.mark.skipif(SINK is None, reason="Postfix's smtp-sink is not installed")


def adapter(port: int, **credentials: Any) -> Smtp:
    where = {"host": "127.0.0.1", "port": port, "security": "none"}
    guard = Guard(frozenset({"127.0.0.1"}))
    account = Account(mailer_id="m", provider="smtp", credentials={**where, **credentials}, guard=guard)
    return Smtp(account, connect_timeout=20.0, command_timeout=20.0, dot_timeout=20.0)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError("the server does not listen")


@pytest.fixture
def sink() -> Iterator[Callable[..., int]]:
    """Starts smtp-sink with options; its port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> int:
        assert SINK is not None
        port = free_port()
        # It refuses to serve as root.
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        started.append(subprocess.Popen([SINK, *user, *options, f"127.0.0.1:{port}", "100"]))
        wait_for(port)
        return port

    yield start
    for process in started:
        process.terminate()
        process.wait()


@needs_sink
@pytest.mark.parametrize("options", [[], ["-p"]], ids=["pipelined", "step by step"])
def test_smtp_sink_takes_batch_after_batch(sink: Callable[..., int], options: list[str]) -> None:
    provider = adapter(sink(*options))
    outcomes = [outcome for _ in range(5) for outcome in provider.send([mail() for _ in range(50)])]
    provider.close()
    assert {outcome.result for outcome in outcomes} == {Result.ACCEPTED}


@needs_sink
@pytest.mark.parametrize(
    ("options", "result"),
    [
        (["-f", "mail"], Result.PERMANENT),
        (["-f", "rcpt"], Result.PERMANENT),
        (["-f", "data"], Result.PERMANENT),
        (["-f", "."], Result.PERMANENT),
        (["-r", "rcpt"], Result.TRANSIENT),
        (["-r", "."], Result.TRANSIENT),
        (["-q", "mail"], Result.TRANSIENT),
        (["-q", "data"], Result.TRANSIENT),
        (["-q", "."], Result.UNCERTAIN),
        (["-Q", "rcpt"], Result.THROTTLED),
        (["-Q", "."], Result.THROTTLED),
    ],
)
@pytest.mark.parametrize("pipelining", [[], ["-p"]], ids=["pipelined", "step by step"])
def test_smtp_sink_breaking_off_is_understood(
    sink: Callable[..., int], options: list[str], pipelining: list[str], result: Result
) -> None:
    provider = adapter(sink(*options, *pipelining))
    (outcome,) = provider.send([mail()])
    provider.close()
    assert outcome.result is result


class _Inbox:
    def __init__(self) -> None:
        self.taken: list[tuple[list[str], bytes]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        self.taken.append((list(envelope.rcpt_tos), envelope.content))
        return "250 2.0.0 Ok: queued as A1"


def _authenticator(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"ann", b"word")
    return AuthResult(success=good, handled=False)


@pytest.fixture
def inbox() -> Iterator[tuple[int, _Inbox]]:
    handler = _Inbox()
    port = free_port()
    controller = Controller(
        handler, hostname="127.0.0.1", port=port, authenticator=_authenticator, auth_require_tls=False
    )
    controller.start()
    yield port, handler
    controller.stop()


@pytest.mark.parametrize("auth", ["plain", "login"])
def test_aiosmtpd_gets_what_was_sent(inbox: tuple[int, _Inbox], auth: str) -> None:
    port, handler = inbox
    provider = adapter(port, username="ann", password="word", auth=auth)
    emails = [mail(mime=b"Subject: x\r\n\r\n.\r\n..\r\nend\r\n"), mail("a@client.test", "b@client.test")]
    outcomes = provider.send(emails)
    provider.close()
    assert [(outcome.result, outcome.provider_message_id) for outcome in outcomes] == [(Result.ACCEPTED, "A1")] * 2
    assert handler.taken == [(list(email.recipients), email.mime) for email in emails]


def test_aiosmtpd_refuses_a_wrong_password(inbox: tuple[int, _Inbox]) -> None:
    port, _ = inbox
    assert adapter(port, username="ann", password="wrong").check().result is Result.CREDENTIALS
