"""The local inbox: what its SMTP side takes, what its store keeps, what its pages show."""

import asyncio
import re
import signal
import smtplib
import socket
import sys
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from deploy import inbox_store
from deploy.inbox import routes
from deploy.inbox_smtp import Inbox, InboxProtocol
from deploy.inbox_store import InboxReader, InboxWriter
from deploy.program import Program, start
from deploy.services import free_port
from tests.conftest import wait_until


def _mail(subject: str = "Hello", html: str | None = None, **headers: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@demo.test", "b@example.com", subject
    mail["Message-ID"] = "<1@demo.test>"
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    mail.set_content("plain words\n")
    if html is not None:
        mail.add_alternative(html, subtype="html")
    return mail


def _raw(subject: str = "Hello", ref: str = "00ff") -> bytes:
    return f"Subject: {subject}\r\nX-Postroad-Ref: {ref}\r\nMessage-ID: <{ref}@demo.test>\r\n\r\nbody\r\n".encode()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "inbox"


@pytest.fixture
def port(directory: Path) -> Iterator[int]:
    """The port of an inbox that runs in a thread."""
    writer, chosen = InboxWriter(directory), free_port()
    loop = asyncio.new_event_loop()
    inbox = Inbox(writer)
    server = loop.run_until_complete(loop.create_server(lambda: InboxProtocol(inbox), "127.0.0.1", chosen))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield chosen
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)
    loop.run_until_complete(asyncio.sleep(0.02))  # connections whose client has gone are closed
    loop.close()
    writer.close()


@pytest.fixture
def page(directory: Path) -> TestClient:
    return TestClient(Starlette(routes=routes(directory)))


def _entries(directory: Path) -> list[inbox_store.Entry]:
    return InboxReader(directory).entries()


def _content(directory: Path, number: int) -> bytes:
    found = InboxReader(directory).find(number)
    assert found is not None
    return found[1]


def test_a_mail_sent_by_smtp_is_kept_as_it_came(port: int, directory: Path) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.sendmail("a@demo.test", ["b@example.com", "c@example.com"], _raw("One") + b"\r\n.leading dot\r\n")
    entry = _entries(directory)[0]
    assert entry.recipients == ("b@example.com", "c@example.com")
    assert (entry.subject, entry.ref, entry.message_id) == ("One", "00ff", "<00ff@demo.test>")
    assert _content(directory, 1) == _raw("One") + b"\r\n.leading dot\r\n"


def test_pipelined_mails_arriving_in_odd_pieces_are_all_kept(port: int, directory: Path) -> None:
    dialogue = b"EHLO x\r\n" + b"".join(
        b"MAIL FROM:<a@demo.test> BODY=8BITMIME\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
        + _raw(str(number))
        + b"..x\r\n.\r\n"
        for number in range(50)
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        for position in range(0, len(dialogue), 37):
            client.sendall(dialogue[position : position + 37])
        client.sendall(b"QUIT\r\n")
        replies = b"".join(iter(lambda: client.recv(65_536), b""))
    assert replies.count(b"250 2.0.0 Kept") == 50
    entries = _entries(directory)
    assert [entry.subject for entry in entries] == [str(number) for number in range(49, -1, -1)]
    assert {_content(directory, entry.number) for entry in entries} == {
        _raw(str(number)) + b".x\r\n" for number in range(50)
    }


def test_a_bouncing_recipient_is_refused_and_the_others_get_the_mail(port: int, directory: Path) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        refused = client.sendmail("a@demo.test", ["bounce1@example.com", "b@example.com"], _raw())
    assert refused["bounce1@example.com"][0] == 550
    assert [entry.recipients for entry in _entries(directory)] == [("b@example.com",)]


def test_a_later_recipient_is_put_off_once(port: int, directory: Path) -> None:
    with smtplib.SMTP("127.0.0.1", port) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refusal:
            client.sendmail("a@demo.test", ["later@example.com"], _raw())
        assert refusal.value.recipients["later@example.com"][0] == 451
        client.sendmail("a@demo.test", ["later@example.com"], _raw())
    assert len(_entries(directory)) == 1


def test_numbers_go_on_after_a_restart(directory: Path) -> None:
    for expected in ([1], [2, 1]):
        writer = InboxWriter(directory)
        writer.append([("a@demo.test", ["b@example.com"], _raw())])
        writer.close()
        assert [entry.number for entry in _entries(directory)] == expected


def test_the_oldest_mails_go_when_enough_newer_ones_are_there(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_store, "SEGMENT", 10)
    monkeypatch.setattr(inbox_store, "KEEP", 30)
    writer = InboxWriter(directory)
    for _ in range(100):
        writer.append([("a@demo.test", ["b@example.com"], _raw())])
    writer.close()
    numbers = [entry.number for entry in _entries(directory)]
    assert numbers[:30] == list(range(100, 70, -1))
    assert len(numbers) <= 40
    assert inbox_store.total(_entries(directory)) == 100


def test_a_reader_sees_what_is_written_after_it_first_looked(directory: Path) -> None:
    writer, reader = InboxWriter(directory), InboxReader(directory)
    seen = []
    for number in range(3):
        writer.append([("a@demo.test", ["b@example.com"], _raw(str(number)))])
        seen.append([entry.subject for entry in reader.entries()])
    writer.close()
    assert seen == [["0"], ["1", "0"], ["2", "1", "0"]]


def _store(directory: Path, *mails: EmailMessage) -> None:
    writer = InboxWriter(directory)
    writer.append([("a@demo.test", ["b@example.com"], mail.as_bytes().replace(b"\n", b"\r\n")) for mail in mails])
    writer.close()


def test_the_json_list_pages_through_all_mails_newest_first(directory: Path, page: TestClient) -> None:
    _store(directory, *(_mail(str(number)) for number in range(5)))
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = page.get("/inbox/messages", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        found += answer["data"]
        cursor = answer["next_cursor"]
    assert [mail["subject"] for mail in found] == ["4", "3", "2", "1", "0"]
    assert answer["total"] == 5
    assert set(found[0]) == {
        "id", "received_at", "envelope_from", "recipients", "subject", "message_id", "ref", "size"
    }  # fmt: skip


def test_the_json_list_is_filtered_by_recipient(directory: Path, page: TestClient) -> None:
    _store(directory, _mail())
    assert len(page.get("/inbox/messages?to=B@example.com").json()["data"]) == 1
    assert page.get("/inbox/messages?to=example.com").json()["data"] == []


def test_one_mail_as_json_has_its_headers_and_both_bodies(directory: Path, page: TestClient) -> None:
    _store(directory, _mail("Grüße", html="<p>hi</p>", X_Postroad_Ref="ab12"))
    mail = page.get("/inbox/messages/1").json()
    assert mail["subject"] == "Grüße"
    assert mail["ref"] == "ab12"
    assert ["X-Postroad-Ref", "ab12"] in mail["headers"]
    assert (mail["text"].strip(), mail["html"].strip()) == ("plain words", "<p>hi</p>")


def test_the_html_of_a_mail_can_run_nothing_and_load_nothing(directory: Path, page: TestClient) -> None:
    _store(directory, _mail(html='<script>alert(1)</script><img src="https://example.com/pixel">'))
    frame = page.get("/inbox/mail/1?tab=html")
    assert re.search(r'<iframe sandbox="" src="/inbox/mail/1/html"', frame.text)
    policy = page.get("/inbox/mail/1/html").headers["content-security-policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"


def test_a_hostile_subject_is_only_text_on_the_pages(directory: Path, page: TestClient) -> None:
    _store(directory, _mail("<script>alert(1)</script>"))
    for path in ("/inbox", "/inbox/mail/1", "/inbox/mail/1?tab=headers", "/inbox/mail/1?tab=source"):
        assert "<script>" not in page.get(path).text


def test_a_cursor_that_is_no_number_is_as_good_as_none(directory: Path, page: TestClient) -> None:
    _store(directory, _mail())
    for query in ("cursor=x", "cursor=" + "9" * 5000, "limit=" + "9" * 5000):
        assert len(page.get(f"/inbox/messages?{query}").json()["data"]) == 1, query
        assert page.get(f"/inbox?{query}").status_code == 200, query


def test_an_address_beyond_ascii_in_a_header_is_shown(directory: Path, page: TestClient) -> None:
    writer = InboxWriter(directory)
    writer.append([("", ["ü@example.com"], "To: ü@example.com\r\nSubject: Grüße\r\n\r\nwords\r\n".encode())])
    writer.close()
    mail = page.get("/inbox/messages/1").json()
    assert ["To", "ü@example.com"] in mail["headers"]
    assert mail["subject"] == "Grüße"
    assert "ü@example.com" in page.get("/inbox/mail/1?tab=headers").text


def test_the_search_finds_by_address_and_subject(directory: Path, page: TestClient) -> None:
    _store(directory, _mail("Invoice 7"), _mail("Greetings"))
    found = page.get("/inbox?q=invoice").text
    assert "Invoice 7" in found
    assert "Greetings" not in found
    assert "Nothing matches" in page.get("/inbox?q=absent").text


def test_the_source_is_a_download_of_plain_text(directory: Path, page: TestClient) -> None:
    _store(directory, _mail())
    answer = page.get("/inbox/mail/1/source")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["content-disposition"] == 'attachment; filename="mail-1.eml"'
    assert answer.text.startswith("From: a@demo.test\r\n")


@pytest.mark.parametrize(
    "path",
    ["/inbox/mail/9", "/inbox/mail/9/html", "/inbox/messages/9", "/inbox/messages/x", "/inbox/messages/" + "9" * 5000],
)
def test_a_mail_that_is_not_there_is_not_found(directory: Path, page: TestClient, path: str) -> None:
    _store(directory, _mail())
    assert page.get(path).status_code == 404


def test_a_broken_header_and_an_unknown_charset_are_shown_all_the_same(directory: Path, page: TestClient) -> None:
    writer = InboxWriter(directory)
    raw = b"Subject: =?nowhere?q?x?=\r\nContent-Type: text/plain; charset=nowhere\r\n\r\nwords\r\n"
    writer.append([("", ["b@example.com"], raw)])
    writer.close()
    assert page.get("/inbox").status_code == 200
    assert "words" in page.get("/inbox/mail/1?tab=text").text


def test_the_inbox_process_ends_cleanly(directory: Path, tmp_path: Path) -> None:
    chosen = free_port()
    argv = (sys.executable, "-m", "deploy.cli", "inbox", "--directory", str(directory), "--port", str(chosen))
    process = start(Program(name="inbox", argv=argv, log=tmp_path / "log"))

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", chosen)) == 0

    wait_until(answers, "the inbox answers")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, (tmp_path / "log").read_text()
