"""`postroad emulate` as somebody runs it: what it prints works, and it ends when asked to."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from deploy.commands.emulate import PROVIDERS
from deploy.emulated import EMULATED
from deploy.services import free_port
from providers import open_provider
from providers.base import Account, Outcome, Result
from providers.guard import Guard
from tests.providers.samples import mail


@contextmanager
def emulate(*arguments: str, count: int) -> Iterator[list[dict[str, Any]]]:
    with running(*arguments) as process:
        yield mailers(process, count)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Ended as Ctrl-C does. What it printed on stderr waits there to be read."""
    argv = [sys.executable, "-m", "deploy.cli", "emulate", *arguments]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(60) == 0
            finally:
                process.kill()


def mailers(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def send(mailer: dict[str, Any]) -> Outcome:
    account = Account(
        mailer_id="m1",
        provider=mailer["provider"],
        credentials=mailer["credentials"],
        base_url=mailer.get("base_url"),
        auth_url=mailer.get("auth_url"),
        guard=Guard(frozenset({"127.0.0.1"})),
    )
    provider = open_provider(account)
    try:
        [outcome] = provider.send([mail()])
    finally:
        provider.close()
    return outcome


def test_c30_every_mailer_that_is_printed_sends() -> None:
    with emulate(count=len(PROVIDERS)) as printed:
        assert [mailer["provider"] for mailer in printed] == list(PROVIDERS)
        assert {mailer["provider"]: send(mailer).result for mailer in printed} == dict.fromkeys(
            PROVIDERS, Result.ACCEPTED
        )


def test_faults_are_asked_for_and_the_books_read_where_it_says() -> None:
    with running("postmark") as process:
        [mailer] = mailers(process, 1)
        assert process.stderr is not None
        control = process.stderr.readline().rpartition(" ")[2].strip()
        asked = {"faults": ["accept-then-close"], "path": "/email/batch"}
        assert requests.post(f"{control}/postmark/fail", json=asked, timeout=10).status_code == 200
        assert [send(mailer).result for _ in range(2)] == [Result.UNCERTAIN, Result.ACCEPTED]
        books = requests.get(f"{control}/postmark/ledger", timeout=10).json()
    assert sorted(books["delivered"].values()) == [1, 1]
    assert books["met"] == [{"fault": "accept-then-close", "times": 1}]


def test_a_port_base_puts_each_provider_where_it_always_is() -> None:
    base = free_port()
    with emulate("gmail", "--port-base", str(base), count=1) as [mailer]:
        assert mailer["base_url"] == mailer["auth_url"] == f"http://127.0.0.1:{base + 1}"


def test_a_port_that_is_taken_is_said_to_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        argv = [sys.executable, "-m", "deploy.cli", "emulate", "postmark", "--port-base", str(taken.getsockname()[1])]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "--port-base" in done.stderr


@pytest.mark.parametrize("provider", EMULATED)
def test_every_emulator_has_its_place_on_the_command_line(provider: str) -> None:
    assert provider in PROVIDERS
