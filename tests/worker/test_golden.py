import re
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from deploy.services import free_port
from providers.base import Result
from tests.providers.smtp_samples import adapter
from tests.worker.golden_mails import GOLDEN, MAILS
from tests.worker.samples import DATE, TRACKER, assert_wire_format, compiled, content, letter, parsed, read


@pytest.mark.parametrize("name", MAILS)
def test_a_whole_mail_is_as_it_was(name: str) -> None:
    """A difference is a change of what recipients get: read the new mail before it replaces the file."""
    raw = MAILS[name]().raw
    assert_wire_format(raw)
    read(raw)
    assert raw == (GOLDEN / f"{name}.eml").read_bytes()


def test_the_table_and_the_folder_name_the_same_mails() -> None:
    assert {path.stem for path in GOLDEN.glob("*.eml")} == MAILS.keys()


@pytest.mark.parametrize(
    ("name", "source", "hidden", "links"),
    [
        ("newsletter", "newsletter.html", 4, [
            "https://shop.demo.test/offer?utm_source=news&utm_campaign=autumn&name=Ann",
            "https://shop.demo.test/all",
        ]),
        ("mjml", "autumn.html", 18, [
            "https://shop.demo.test/tee?von=brief&sorte=minze",
            "https://shop.demo.test/herbst?kunde=a&b=%C3%BC&von=brief",
            "https://shop.demo.test/tasse",
            *["https://www.facebook.com/sharer/sharer.php?u=https://social.demo.test/demo"] * 2,
        ]),
    ],
)  # fmt: skip
def test_outlooks_markup_is_untouched_and_every_link_is_tracked(
    name: str, source: str, hidden: int, links: list[str]
) -> None:
    mail = MAILS[name]()
    html = compiled(mail.content).email(mail.letter).mime or b""
    made = read(html).get_body(("html",))
    assert made is not None
    shown = made.get_content().replace("\r\n", "\n")
    comments = re.compile(r"<!--\[if (?!!mso).*?<!\[endif\]-->", re.DOTALL)
    assert len(comments.findall(shown)) == hidden
    assert comments.findall(shown) == comments.findall((GOLDEN / source).read_text())
    tracked = [TRACKER.read_click(token) for token in re.findall(r"/t/c/([\w-]+)", shown)]
    assert [click.url for click in tracked if click] == links


class Inbox:
    """What a server that others wrote takes in."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 -- aiosmtpd's name
        assert isinstance(envelope.content, bytes)
        self.mails.append(envelope.content)
        return "250 taken"


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, str]]:
    inbox = Inbox()
    port = free_port()
    controller = Controller(inbox, hostname="127.0.0.1", port=port, enable_SMTPUTF8=True)
    controller.start()
    yield inbox, f"smtp://127.0.0.1:{port}"
    controller.stop()


def test_every_golden_mail_arrives_byte_for_byte(inbox: tuple[Inbox, str]) -> None:
    """Dots at line starts, long lines, UTF-8 headers and all."""
    received, url = inbox
    provider = adapter(url, connections=1)
    mails = [make() for make in MAILS.values()]
    outcomes = provider.send([compiled(mail.content, files=mail.files).email(mail.letter) for mail in mails])
    provider.close()
    assert {outcome.result for outcome in outcomes} == {Result.ACCEPTED}, outcomes
    assert received.mails == [mail.raw for mail in mails]


def test_a_date_of_another_zone_keeps_its_moment() -> None:
    assert parsed(content())["Date"].datetime == DATE.replace(microsecond=0)
    assert parsed(content(), letter(date=datetime(2026, 1, 1, tzinfo=UTC)))["Date"] == "Thu, 01 Jan 2026 00:00:00 +0000"


def test_ids_are_those_of_the_letter() -> None:
    other = UUID(int=7)
    email = compiled(content()).email(letter(message_id=other, rfc_message_id="<postroad_own@demo.test>"))
    assert email.ref == other.hex
    assert email.mime is not None
    assert read(email.mime)["Message-ID"] == "<postroad_own@demo.test>"
    assert read(email.mime)["X-Postroad-Ref"] == other.hex
