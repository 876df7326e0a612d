import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from models.content import Address, Content
from tests.worker.samples import (
    DATE,
    EVERYTHING,
    OUTLOOK_ID,
    TRACKER,
    assert_wire_format,
    attached,
    body,
    compiled,
    content,
    letter,
    mime,
    parsed,
    read,
    stored,
)

GOLDEN = Path(__file__).parent / "golden"


def newsletter() -> Content:
    return content(
        sender=Address("news@demo.test", "Démo News"),
        subject="{{name}}, your autumn offers",
        html=(GOLDEN / "newsletter.html").read_text(),
        text="Hello {{name}},\n\nsee https://shop.demo.test/?utm=a&b=c\n",
        headers={"List-Id": "<news.demo.test>"},
        settings=EVERYTHING,
    )


def scripts() -> Content:
    return content(
        sender=Address("hello@demo.test", "山田商店"),
        subject="مرحبا {{name}} — 新しいお知らせ",
        html='<html dir="rtl"><body><p>مرحبا {{name}}، شكرا لك</p><p lang="ja">{{name}}様、ありがとうございます。長い行が続きます。</p></body></html>',
        text="مرحبا {{name}}\n{{name}}様\n",
    )


def twenty() -> tuple[Content, dict[str, bytes]]:
    files = [f"file {number}\n".encode() for number in range(20)]
    refs = tuple(attached(data, f"Datei {n} – 報告.txt", "text/plain") for n, data in enumerate(files))
    return content(attachments=refs, references=(OUTLOOK_ID,), in_reply_to=OUTLOOK_ID), stored(*files)


@pytest.mark.parametrize("name", ["newsletter", "scripts", "attachments"])
def test_a_whole_mail_is_as_it_was(name: str) -> None:
    """A difference is a change of what recipients get: read the new mail before it replaces the file."""
    mail, files = {"newsletter": (newsletter(), {}), "scripts": (scripts(), {}), "attachments": twenty()}[name]
    raw = mime(mail, letter({"name": "Zoë 山田" if name == "scripts" else "Ann"}), files)
    assert_wire_format(raw)
    read(raw)
    assert raw == (GOLDEN / f"{name}.eml").read_bytes()


def test_a_newsletters_outlook_markup_is_untouched() -> None:
    source = (GOLDEN / "newsletter.html").read_text()
    made = body(parsed(newsletter()), "html")
    hidden = re.compile(r"<!--\[if (?:gte )?mso.*?<!\[endif\]-->", re.DOTALL)
    assert len(hidden.findall(source)) == 4
    assert hidden.findall(made) == hidden.findall(source)
    tracked = [TRACKER.read_click(token) for token in re.findall(r"/t/c/([\w-]+)", made)]
    assert [click.url for click in tracked if click] == [
        "https://shop.demo.test/offer?utm_source=news&utm_campaign=autumn&name=Ann",
        "https://shop.demo.test/all",
    ]


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
