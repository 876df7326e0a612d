"""Mail that other servers hand over: taken or refused at the door, stored before it is answered for, then applied."""

import asyncio
import smtplib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, TextIO

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from api_shim.submission import Accepted, Link
from models.base import uuid7
from models.content import Address
from models.mailer import EmailConfig
from providers.emulators.smtp import SmtpEmulator
from tests.worker.house import House, settings_for
from worker.gate import Destination, Gate
from worker.mail_server import Place, serve
from worker.reports import apply_reports
from worker.return_path import Kind, ReturnPaths
from worker.settings import Settings

MAILS = Path(__file__).with_name("mails")
LONGEST = 200_000


@pytest.fixture(scope="module")
def relay() -> Iterator[SmtpEmulator]:
    with SmtpEmulator() as emulator:
        yield emulator


@pytest.fixture(scope="module")
def configured(database_url: str, redis_url: str) -> Settings:
    return settings_for(database_url, redis_url, inbound_domains="Demo.test, mail.test")


class Office(House):
    """A house whose mailer has return paths."""

    def __init__(self, settings: Settings, server: SmtpEmulator) -> None:
        super().__init__(settings, server)
        self.paths = ReturnPaths(settings.keys)
        with self.runtime.engine.begin() as connection:
            connection.execute(
                text("update mailer set return_path_domain = 'bounce.demo.test' where id = :id"),
                {"id": self.mailer_id},
            )

    def sent(self, *recipients: str, **fields: Any) -> Accepted:
        accepted = self.submit(*(recipients or ("ann@example.com",)), **fields)
        self.deliver_all()
        self.record_all()
        return accepted

    def apply(self) -> None:
        while apply_reports(self.runtime):
            pass

    def answers_at(self, domain: str) -> None:
        with self.runtime.engine.begin() as connection:
            statement = text("update mailer set reply_domain = :domain where id = :id")
            connection.execute(statement, {"domain": domain, "id": self.mailer_id})

    def events(self, accepted: Accepted) -> list[tuple[str, list[str]]]:
        found = self.rows(
            "select type, recipients from event where message_id = :id order by seq", id=accepted.message_id
        )
        return [(row["type"], row["recipients"]) for row in found]

    def suppressed(self) -> dict[str, str]:
        found = self.rows("select address, reason from suppression where workspace_id = :w")
        return {row["address"]: row["reason"] for row in found}

    def timeline(self) -> list[str]:
        found = self.rows(
            "select kind from activity where workspace_id = :w and entity_id = :c order by created_at, kind",
            c=self.contact_id,
        )
        return [row["kind"] for row in found]

    @property
    def inbox(self) -> str:
        return self.paths.address(Kind.INBOX, self.mailer_id, "elsewhere.test")

    @property
    def contact(self) -> tuple[Link, ...]:
        return (Link(kind="contact", field="contact_id", id=self.contact_id),)


@pytest.fixture
def office(configured: Settings, relay: SmtpEmulator) -> Iterator[Office]:
    opened = Office(configured, relay)
    yield opened
    opened.close()


@contextmanager
def listening(gate: Gate, *places: Place) -> Iterator[list[Any]]:
    """A server in a thread of its own; where it listens."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    sockets: list[Any] = []
    stop = asyncio.Event()

    def know(opened: Any) -> None:
        sockets.extend(each.getsockname() for each in opened)
        ready.set()

    def run() -> None:
        loop.run_until_complete(serve(gate, places, longest=LONGEST, name="mx.demo.test", until=stop.wait, ready=know))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.02))

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(60)
    yield sockets
    loop.call_soon_threadsafe(stop.set)
    thread.join(60)
    loop.close()


LOOPBACK = Place(lmtp=False, host="127.0.0.1", port=0)


@pytest.fixture
def server(office: Office) -> Iterator[smtplib.SMTP]:
    with listening(Gate(office.runtime), LOOPBACK) as [(host, port)], smtplib.SMTP(host, port, timeout=60) as client:
        yield client


def _bounce(office: Office, accepted: Accepted, name: str = "postfix-user-unknown") -> bytes:
    ours = office.message(accepted).rfc_message_id.encode()
    raw = (MAILS / f"{name}.eml").read_bytes()
    return raw.replace(b"<postroad0198f2d0-0000-7000-8000-000000000001@demo.test>", ours)


def _reply(accepted: Accepted | None, **headers: str) -> bytes:
    mail = EmailMessage()
    mail["From"] = "Ann <ann@example.com>"
    mail["To"], mail["Subject"] = headers.pop("To", "hello@demo.test"), headers.pop("Subject", "Re: Hello")
    mail["Message-ID"] = headers.pop("message_id", "<answer@example.com>")
    if accepted is not None:
        mail["In-Reply-To"] = accepted.rfc_message_id
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    mail.set_content("Thanks!")
    return mail.as_bytes()


def test_each_mail_has_a_return_path_of_its_own_that_leads_to_it(office: Office, relay: SmtpEmulator) -> None:
    accepted = office.submit("ann@example.com", "bob@example.com")
    office.deliver_all()
    senders = {mail.recipients[0]: mail.sender for mail in relay.received[-2:]}
    for message in office.messages(accepted):
        sender = senders[message.recipients[0]]
        assert len(sender.partition("@")[0]) <= 64
        found = office.paths.read(sender.upper())
        assert found is not None
        assert (found.kind, found.id) == (Kind.BOUNCE, message.id)


def test_a_made_up_return_path_leads_nowhere(office: Office) -> None:
    good = office.paths.address(Kind.BOUNCE, uuid7(), "bounce.demo.test")
    local, _, domain = good.partition("@")
    for bad in (local[:-1] + ("a" if local[-1] != "a" else "b"), local.replace("bounce", "reply"), "bounce+", "bounce"):
        assert office.paths.read(f"{bad}@{domain}") is None


def test_a_mailer_without_a_return_path_sends_as_its_sender(configured: Settings, relay: SmtpEmulator) -> None:
    house = House(configured, relay)
    house.submit("ann@example.com")
    house.deliver_all()
    assert relay.received[-1].sender == "hello@demo.test"
    house.close()


def test_a_bounce_to_the_return_path_reaches_the_mail_the_list_and_the_timeline_once(
    office: Office, server: smtplib.SMTP
) -> None:
    accepted = office.sent(links=office.contact)
    raw = _bounce(office, accepted, "no-copy-at-all")
    path = office.paths.bounce("bounce.demo.test", office.message(accepted).id)
    for _ in range(2):
        server.sendmail("", [path], raw)
    office.apply()
    server.sendmail("", [path], _bounce(office, accepted))  # the same from another server
    office.apply()
    assert office.message(accepted).state == "bounced"
    assert office.events(accepted)[-1] == ("bounced", ["ann@example.com"])
    assert [kind for kind, _ in office.events(accepted)].count("bounced") == 1
    assert office.suppressed() == {"ann@example.com": "hard_bounce"}
    assert office.timeline() == ["email_sent", "email_bounced"]


def test_a_bounce_before_the_log_is_written_waits_for_it(office: Office, server: smtplib.SMTP) -> None:
    accepted = office.submit("ann@example.com")
    office.deliver_all()
    server.sendmail("", [office.paths.bounce("x.test", office.message(accepted).id)], _bounce(office, accepted))
    office.apply()
    assert office.message(accepted).state == "sent"
    office.record_all()
    with office.runtime.engine.begin() as connection:
        connection.execute(text("update provider_report set due_at = clock_timestamp()"))
    office.apply()
    assert office.message(accepted).state == "bounced"


def test_a_delay_and_then_a_full_mailbox_suppress_nobody(office: Office, server: smtplib.SMTP) -> None:
    accepted = office.sent()
    for name in ("postfix-delayed", "mailbox-full"):
        server.sendmail("", [office.inbox], _bounce(office, accepted, name))
    office.apply()
    assert [kind for kind, _ in office.events(accepted)][-2:] == ["deferred", "bounced"]
    assert (office.message(accepted).state, office.suppressed()) == ("bounced", {})


def test_of_a_mail_to_several_only_those_named_bounced(office: Office, server: smtplib.SMTP) -> None:
    accepted = office.sent("ann@example.com", "bob@example.com", "cat@example.com", individual=False)
    server.sendmail("", [office.inbox], _bounce(office, accepted, "postfix-several"))
    office.apply()
    bounced = [recipients for kind, recipients in office.events(accepted) if kind == "bounced"]
    assert sorted(bounced) == [["ann@example.com"], ["bob@example.com"]]
    assert office.suppressed() == {"ann@example.com": "hard_bounce"}


def test_a_recipient_who_forwards_is_the_one_who_bounced(office: Office, server: smtplib.SMTP) -> None:
    accepted = office.sent()
    server.sendmail("", [office.inbox], _bounce(office, accepted, "forwarded-on"))
    office.apply()
    assert office.suppressed() == {"ann@example.com": "hard_bounce"}


def test_a_bounce_that_names_only_who_and_what_finds_the_mail(office: Office, server: smtplib.SMTP) -> None:
    accepted = office.sent()
    raw = (MAILS / "exim-unrouteable.eml").read_bytes().replace(b"postroad", b"other")
    server.sendmail("", [office.inbox], raw)
    office.apply()
    assert office.message(accepted).state == "bounced"


def test_a_complaint_moves_the_mail_and_suppresses(office: Office, server: smtplib.SMTP) -> None:
    accepted = office.sent()
    server.sendmail("feedback@isp.example", [office.inbox], _bounce(office, accepted, "arf-no-recipient"))
    office.apply()
    assert office.message(accepted).state == "complained"
    assert office.suppressed() == {"ann@example.com": "complaint"}


def test_a_report_on_another_workspaces_mail_is_only_a_mail(
    office: Office, server: smtplib.SMTP, configured: Settings, relay: SmtpEmulator
) -> None:
    stranger = Office(configured, relay)
    accepted = stranger.sent()
    server.sendmail("", [office.inbox], _bounce(stranger, accepted))
    office.apply()
    assert (stranger.message(accepted).state, stranger.suppressed()) == ("sent", {})
    [mail] = office.rows("select is_automatic from inbound_message where workspace_id = :w")
    assert mail == {"is_automatic": True}
    stranger.close()


def test_a51_an_answer_joins_its_thread_and_an_automatic_one_is_flagged_and_no_reply(
    office: Office, server: smtplib.SMTP
) -> None:
    accepted = office.sent(links=office.contact)
    note = _reply(accepted, message_id="<note@example.com>", Auto_Submitted="auto-replied")
    server.sendmail("ann@example.com", [office.inbox], note)
    office.apply()
    assert office.timeline() == ["email_sent", "email_received"]
    for _ in range(2):
        server.sendmail("ann@example.com", [office.inbox], _reply(accepted))
    office.apply()
    assert sorted(office.timeline()) == ["email_received", "email_received", "email_replied", "email_sent"]
    mails = office.rows("select thread_id, is_automatic from inbound_message where workspace_id = :w order by id")
    assert [(mail["thread_id"], mail["is_automatic"]) for mail in mails] == [
        (accepted.thread_id, True),
        (accepted.thread_id, False),
    ]


def test_an_answer_without_any_reference_is_known_by_the_address_it_was_sent_to(
    office: Office, server: smtplib.SMTP
) -> None:
    accepted = office.sent()
    address = office.paths.address(Kind.REPLY, office.message(accepted).id, "bounce.demo.test")
    server.sendmail("ann@example.com", [address], _reply(None).replace(b"Re: Hello", b"Something else"))
    office.apply()
    [mail] = office.rows("select thread_id from inbound_message where workspace_id = :w")
    assert mail["thread_id"] == accepted.thread_id


def test_an_answer_that_keeps_the_thread_id_joins_that_thread(office: Office, server: smtplib.SMTP) -> None:
    accepted = office.sent()
    raw = _reply(None, Thread_Id=str(accepted.thread_id)).replace(b"Re: Hello", b"Something else")
    server.sendmail("ann@example.com", [office.inbox], raw)
    office.apply()
    [mail] = office.rows("select thread_id from inbound_message where workspace_id = :w")
    assert mail["thread_id"] == accepted.thread_id


def test_files_of_a_mail_are_kept_once(office: Office, server: smtplib.SMTP) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Message-ID"] = "ann@example.com", "hello@demo.test", "<files@example.com>"
    mail.set_content("See the files.")
    for name in ("a.pdf", "copy of a.pdf"):
        mail.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename=name)
    server.sendmail("ann@example.com", [office.inbox], mail.as_bytes())
    office.apply()
    [blob] = office.rows("select data from blob where workspace_id = :w")
    assert bytes(blob["data"]) == b"%PDF-1.7"
    [kept] = office.rows("select attachments from inbound_message where workspace_id = :w")
    assert [file["name"] for file in kept["attachments"]] == ["a.pdf", "copy of a.pdf"]


@pytest.mark.parametrize(
    "address",
    ["nobody@elsewhere.test", "hello@elsewhere.test", "bounce+aaaa@demo.elsewhere", "HELLO", '"a\\"b"@elsewhere.test'],
)
def test_an_address_that_is_not_ours_is_refused(server: smtplib.SMTP, address: str) -> None:
    server.ehlo()
    server.mail("ann@example.com")
    code, _ = server.rcpt(address)
    assert code in (550, 553)


def test_a_sender_configuration_has_an_address_too(office: Office, server: smtplib.SMTP) -> None:
    with office.session() as session:
        session.add(
            EmailConfig(
                workspace_id=office.workspace_id,
                from_email_handle=(handle := uuid7().hex),
                from_name="S",
                staff_email="s@x.test",
            )
        )
        session.commit()
    server.sendmail("ann@example.com", [f"{handle.upper()}@mail.test"], _reply(None))
    assert office.scalar("select mailer_id from provider_report where mailer_id = :m") == office.mailer_id


def test_a_mail_that_is_too_large_is_refused_before_and_after_its_data(server: smtplib.SMTP, office: Office) -> None:
    server.ehlo()
    assert server.esmtp_features["size"] == str(LONGEST)
    assert server.mail("ann@example.com", [f"SIZE={LONGEST + 1}"])[0] == 552
    server.rset()
    server.mail("ann@example.com")
    server.rcpt("hello@demo.test")
    assert server.data(b"Subject: x\r\n\r\n" + (b"y" * 70 + b"\r\n") * 3000)[0] == 552
    assert office.scalar("select count(*) from provider_report where mailer_id = :m") == 0


def test_while_the_database_is_away_the_sender_is_told_to_come_back(office: Office) -> None:
    class Away(Gate):
        def destination(self, address: str) -> Destination | None:
            if address.startswith("early"):
                raise OperationalError("select", {}, Exception("away"))
            return super().destination(address)

        def take(self, *_: Any) -> None:
            raise OperationalError("insert", {}, Exception("away"))

    with listening(Away(office.runtime), LOOPBACK) as [(host, port)], smtplib.SMTP(host, port, timeout=60) as client:
        client.ehlo()
        client.mail("")
        assert client.rcpt("early@demo.test")[0] == 451
        assert client.rcpt("hello@demo.test")[0] == 250
        assert client.data(_reply(None))[0] == 451


def test_lmtp_answers_for_each_recipient(office: Office, tmp_path: Path) -> None:
    accepted = office.sent()
    reply = office.paths.address(Kind.REPLY, office.message(accepted).id, "x.test")
    place = Place(lmtp=True, path=tmp_path / "lmtp")
    with listening(Gate(office.runtime), place), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(place.path))
        said = connection.makefile("rw", newline="")
        said.readline()
        envelope = f"RCPT TO:<{office.inbox}>", "RCPT TO:<no@x.test>", f"RCPT TO:<{reply}>"
        lines = "LHLO mx.x.test", "MAIL FROM:<ann@example.com>", *envelope, "DATA"
        codes = [_say(said, line) for line in lines]
        said.write(_reply(accepted).decode().replace("\n", "\r\n") + ".\r\n")
        said.flush()
        assert (codes, said.readline()[:3], said.readline()[:3]) == ([250, 250, 250, 550, 250, 354], "250", "250")
        assert _say(said, "QUIT") == 221
    assert not (tmp_path / "lmtp").exists()
    assert office.scalar("select count(*) from provider_report where mailer_id = :m") == 2
    office.apply()
    assert office.scalar("select count(*) from inbound_message where workspace_id = :w") == 1


def _say(said: TextIO, line: str) -> int:
    said.write(f"{line}\r\n")
    said.flush()
    while (answer := said.readline())[3:4] == "-":
        pass
    return int(answer[:3])


def test_one_connection_too_many_is_told_to_come_back(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.mail_server.MOST_SESSIONS", 1)
    with (
        listening(Gate(office.runtime), LOOPBACK) as [(host, port)],
        smtplib.SMTP(host, port, timeout=60),
        socket.create_connection((host, port), timeout=60) as second,
    ):
        assert second.recv(100).startswith(b"421 4.3.2")


def test_an_answer_finds_its_thread_by_the_reply_address_alone(
    office: Office, server: smtplib.SMTP, relay: SmtpEmulator
) -> None:
    office.answers_at("reply.demo.test")
    accepted = office.sent(sender=Address("hello@demo.test", "Ada, Acme"), individual=False)
    mail = message_from_bytes(relay.received[-1].data, policy=policy.default)
    [to] = mail["Reply-To"].addresses
    assert (to.display_name, to.domain) == ("Ada, Acme", "reply.demo.test")
    found = office.paths.read(to.addr_spec)
    assert found is not None
    assert (found.kind, found.id) == (Kind.REPLY, office.message(accepted).id)
    answer = _reply(None, To=to.addr_spec, Subject="Something else")
    server.sendmail("ann@example.com", [to.addr_spec], answer)
    office.apply()
    [came] = office.rows("select thread_id, to_emails from inbound_message where workspace_id = :w")
    assert came["thread_id"] == office.message(accepted).thread_id
    [people] = office.rows("select participants from thread where workspace_id = :w")
    assert people["participants"] == ["ann@example.com", "hello@demo.test"]


def test_a_reply_to_that_the_caller_gave_is_the_only_one(office: Office, relay: SmtpEmulator) -> None:
    office.answers_at("reply.demo.test")
    office.sent(reply_to=(Address("desk@demo.test"),))
    mail = message_from_bytes(relay.received[-1].data, policy=policy.default)
    assert mail.get_all("Reply-To") == ["desk@demo.test"]


def test_a_slice_costs_the_same_statements_with_and_without_return_paths(
    office: Office, configured: Settings, relay: SmtpEmulator
) -> None:
    plain = House(configured, relay)
    assert _statements(plain) == _statements(office)
    plain.close()


def _statements(house: House) -> int:
    from sqlalchemy import event

    counted: list[str] = []
    note: Callable[..., None] = lambda *given: counted.append(given[2])  # noqa: E731
    house.submit(*(f"p{number}@example.com" for number in range(20)))
    event.listen(house.runtime.engine, "before_cursor_execute", note)
    house.deliver()
    event.remove(house.runtime.engine, "before_cursor_execute", note)
    return len(counted)
