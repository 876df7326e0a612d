"""A mailbox read over IMAP, on a real server: each mail once, news at once, and what is told when it cannot be read."""

import shutil
import socketserver
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from providers.emulators.smtp import SmtpEmulator
from providers.guard import Guard
from providers.smtp_login import Security
from tests.conftest import wait_until
from tests.worker.dovecot import PASSWORD, PROGRAM, USER, Dovecot
from tests.worker.house import settings_for
from tests.worker.test_mail_server import Office
from worker.imap_client import Access, ImapClient, MailboxUnreadable
from worker.imap_mailbox import Mailboxes, MailboxReader, mailbox_purpose
from worker.reports import apply_reports
from worker.settings import Settings

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Dovecot is not installed")


@pytest.fixture(scope="module")
def imap() -> Iterator[Dovecot]:
    home = Path(tempfile.mkdtemp(prefix="postroad-imap-"))
    home.chmod(0o755)
    with Dovecot(home / "dovecot") as server:
        yield server
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def configured(database_url: str, redis_url: str) -> Settings:
    return settings_for(database_url, redis_url)


@pytest.fixture
def office(configured: Settings, imap: Dovecot) -> Iterator[Office]:
    with SmtpEmulator() as relay:
        opened = Office(configured, relay)
        _give(opened, imap)
        yield opened
        opened.close()


def _give(office: Office, imap: Dovecot, **changes: Any) -> None:
    """Gives the mailer its mailbox."""
    access = {"host": "127.0.0.1", "port": imap.port, "security": "none", "username": USER, "password": PASSWORD}
    sealed = office.runtime.vault.seal(mailbox_purpose(office.mailer_id), access | changes)
    with office.runtime.engine.begin() as connection:
        connection.execute(text("delete from imap_mailbox"))
        connection.execute(
            text("insert into imap_mailbox (mailer_id, workspace_id, sealed_access) values (:m, :w, :s)"),
            {"m": office.mailer_id, "w": office.workspace_id, "s": sealed},
        )


def _mail(number: int) -> bytes:
    return f"From: ann@example.com\r\nMessage-ID: <{number}@x.test>\r\nSubject: {number}\r\n\r\nHi\r\n".encode()


def _subjects(office: Office) -> list[str]:
    while apply_reports(office.runtime):
        pass
    found = office.rows("select subject from inbound_message where workspace_id = :w order by id")
    return [row["subject"] for row in found]


def _taken(office: Office) -> int:
    return int(office.scalar("select count(*) from provider_report where mailer_id = :m"))


def _read_at(office: Office) -> Any:
    return office.scalar("select read_at from imap_mailbox where mailer_id = :m")


def _error(office: Office) -> Any:
    return office.scalar("select error from imap_mailbox where mailer_id = :m")


def _read_once(office: Office) -> None:
    """Takes in what is there and ends."""
    before = _read_at(office)
    MailboxReader(office.runtime, office.mailer_id).session(lambda: _read_at(office) != before)


def test_a_folder_is_read_from_now_on_and_each_mail_comes_in_once(office: Office, imap: Dovecot) -> None:
    imap.put(_mail(1))
    _read_once(office)
    assert _taken(office) == 0
    imap.put(_mail(2))
    imap.put(_mail(3))
    for _ in range(2):
        _read_once(office)
    assert _subjects(office) == ["2", "3"]
    assert not list((imap.mailbox / "cur").glob("*:2,*S*"))  # nothing is marked as seen


def test_renumbered_uids_bring_nothing_twice_and_lose_nothing(office: Office, imap: Dovecot) -> None:
    _read_once(office)
    imap.put(_mail(11))
    _read_once(office)
    assert _subjects(office) == ["11"]
    imap.renumber()
    imap.put(_mail(12))
    _read_once(office)
    found = _subjects(office)
    assert (found.count("11"), found.count("12")) == (1, 1)


def test_two_readers_of_one_mailbox_take_each_mail_once(office: Office, imap: Dovecot) -> None:
    _read_once(office)
    for number in range(20, 30):
        imap.put(_mail(number))
    readers = [threading.Thread(target=_forgiving, args=(office,)) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    _read_once(office)
    assert _taken(office) == 10
    assert sorted(_subjects(office)) == [str(number) for number in range(20, 30)]


def _forgiving(office: Office) -> None:
    with suppress(MailboxUnreadable):  # another process reads it
        _read_once(office)


def test_news_are_taken_in_when_the_server_announces_them_and_a_stop_is_quick(office: Office, imap: Dovecot) -> None:
    stop = threading.Event()
    running = threading.Thread(target=Mailboxes(office.runtime).run, args=(stop,))
    running.start()
    wait_until(lambda: _read_at(office) is not None, "the folder is open")
    imap.put(_mail(40))
    wait_until(lambda: _taken(office) == 1, "the mail came in")
    started = time.monotonic()
    stop.set()
    running.join(60)
    assert not running.is_alive()
    assert time.monotonic() - started < 9, "not until its reader is given up"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"password": "wrong"}, "Authentication failed"),
        ({"folder": "Nowhere"}, "the folder cannot be opened"),
        ({"host": "10.1.2.3"}, "POSTROAD_MAILER_ALLOWED_HOSTS"),
        ({"port": 1}, "refused"),
        ({"password": None}, "neither a password nor a connected account"),
    ],
)
def test_a_mailbox_that_cannot_be_read_says_why(
    office: Office, imap: Dovecot, changes: dict[str, Any], why: str
) -> None:
    _give(office, imap, **changes)
    MailboxReader(office.runtime, office.mailer_id).run(lambda: _error(office) is not None)
    error = _error(office)
    assert why in error
    assert PASSWORD not in error


class _TwoMinds(socketserver.StreamRequestHandler):
    """An IMAP server that numbers its folder twice."""

    def handle(self) -> None:
        self.wfile.write(b"* OK ready\r\n")
        for line in self.rfile:
            tag, command, *_ = line.split()
            said = {
                b"CAPABILITY": b"* CAPABILITY IMAP4rev1\r\n",
                b"EXAMINE": b"* OK [UIDVALIDITY 1] ok\r\n* OK [UIDVALIDITY 2] ok\r\n",
            }
            self.wfile.write(said.get(command, b"") + tag + b" OK done\r\n")


def test_an_answer_that_nobody_foresaw_does_not_end_the_reader(office: Office, imap: Dovecot) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _TwoMinds) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        _give(office, imap, port=server.server_address[1])
        MailboxReader(office.runtime, office.mailer_id).run(lambda: _error(office) is not None)
        server.shutdown()
    assert "not understood" in _error(office)


def test_a_refused_access_token_is_answered_and_told(imap: Dovecot) -> None:
    access = Access(host="127.0.0.1", port=imap.port, security=Security.NONE, username=USER)
    with pytest.raises(MailboxUnreadable, match=r"(?i)authentication|oauth|unavailable|internal"):
        ImapClient(access, Guard(frozenset({"127.0.0.1"})), token=lambda: "stale", longest=1000)


def test_a_mail_that_is_too_large_is_passed_over(office: Office, imap: Dovecot) -> None:
    _read_once(office)
    small = office.settings.model_copy(update={"max_body_bytes": 200})
    office.runtime.settings = small
    imap.put(_mail(50) + b"x" * 500)
    imap.put(_mail(51))
    _read_once(office)
    assert _subjects(office) == ["51"]
