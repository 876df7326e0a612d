"""`postroad inbound` as a process of its own."""

import os
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from deploy.cli import postroad
from deploy.services import free_port
from tests.conftest import wait_until
from tests.providers.conftest import Certificate, certificate  # noqa: F401 -- a fixture
from tests.worker.house import settings_for


@contextmanager
def _running(database_url: str, redis_url: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    settings = settings_for(database_url, redis_url)
    environment = os.environ | {
        "POSTROAD_DATABASE_URL": database_url,
        "POSTROAD_REDIS_URL": redis_url,
        "POSTROAD_SECRET_KEYS": settings.secret_keys,
    }
    argv = [sys.executable, "-m", "deploy.cli", "inbound", *arguments]
    process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(3) == b"220"
    except OSError:
        return False


def test_it_listens_offers_encryption_and_ends_at_once_when_told_to(
    database_url: str,
    redis_url: str,
    certificate: Certificate,  # noqa: F811
) -> None:
    port = free_port()
    encryption = f"--tls-certificate={certificate.path}", f"--tls-key={certificate.path.with_name('key.pem')}"
    with _running(database_url, redis_url, f"--smtp=127.0.0.1:{port}", "--imap", *encryption) as process:
        wait_until(lambda: _answers(port), "it listens")
        with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
            client.starttls()
            client.ehlo()
            client.mail("ann@example.com")
            assert client.rcpt("hello@demo.test")[0] == 550
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--smtp HOST:PORT"),
        (["--smtp", "25"], "HOST:PORT"),
        (["--smtp", "127.0.0.1:99999"], "HOST:PORT"),
    ],
)
def test_it_says_what_it_needs(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(postroad, ["inbound", *arguments])
    assert (result.exit_code, said in result.output) == (2, True)
