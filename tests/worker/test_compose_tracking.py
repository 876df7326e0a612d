import re
from dataclasses import replace

import pytest

from models.content import Address, SendSettings
from providers.base import Form, Mailbox
from tests.worker.samples import (
    EVERYTHING,
    IMAGE,
    LOGO,
    MESSAGE,
    SUBMISSION,
    TRACKER,
    WORKSPACE,
    body,
    compiled,
    content,
    fields,
    letter,
    mime,
    parsed,
    stored,
)
from worker.compose import Compiled, CompositionError
from worker.tracking import Unsubscribed


def test_c16_c17_c20_everything_switched_on_reaches_the_html_and_only_the_link_reaches_the_text() -> None:
    mail = content(
        html='<body><a href="https://e.test/{{name}}">x</a></body>', text="https://e.test/", settings=EVERYTHING
    )
    message = parsed(mail)
    html, text = body(message, "html"), body(message, "plain")
    (click,) = re.findall(r"https://t\.demo\.test/t/c/([\w-]+)", html)
    clicked = TRACKER.read_click(click)
    assert clicked is not None
    assert clicked.url == "https://e.test/Ann"
    (pixel,) = re.findall(r'<img src="https://t\.demo\.test/t/o/([\w-]+)"[^>]*></body>$', html)
    opened = TRACKER.read_open(pixel)
    assert opened is not None
    assert opened.message_id == MESSAGE
    assert text.startswith("https://e.test/\n\nUnsubscribe: https://t.demo.test/t/u/")
    links = {message["List-Unsubscribe"][1:-1], *re.findall(r"https://t\.demo\.test/t/u/[\w-]+", html + text)}
    assert len(links) == 1
    assert TRACKER.read_unsubscribe(links.pop().rpartition("/")[2]) == Unsubscribed(
        message_id=MESSAGE, workspace=WORKSPACE, recipient="ann@example.test", list_id=""
    )


def test_an_authors_own_place_for_the_unsubscribe_link_is_used() -> None:
    settings_ = SendSettings(unsubscribe=True, click_tracking=True)
    mail = content(html="<a href='{{ unsubscribe_url }}'>bye</a>", text="bye: {{unsubscribe_url}}", settings=settings_)
    message = parsed(mail)
    url = message["List-Unsubscribe"][1:-1]
    assert body(message, "html") == f"<a href='{url}'>bye</a>"
    assert body(message, "plain") == f"bye: {url}"


def test_the_unsubscribe_link_is_filled_without_substitutions_too() -> None:
    mail = content(
        html="<a href='{{unsubscribe_url}}'>{{name}}</a>", personalised=False, settings=SendSettings(unsubscribe=True)
    )
    message = parsed(mail, letter(variables=None))
    assert body(message, "html").endswith(">{{name}}</a>")
    assert "/t/u/" in body(message, "html")


def test_a_shared_mail_offers_no_one_click_for_several_recipients() -> None:
    people = (Address("a@x.test"), Address("b@x.test"))
    mail = content(individual=False, personalised=False, to=people, settings=SendSettings(unsubscribe=True))
    message = parsed(mail, letter(to=None))
    assert "List-Unsubscribe-Post" not in message
    unsubscribed = TRACKER.read_unsubscribe(message["List-Unsubscribe"][1:-1].rpartition("/")[2])
    assert unsubscribed is not None
    assert unsubscribed.recipient == ""


def test_c16_c17_c20_nothing_is_tracked_unasked() -> None:
    mail = content(html='<a href="https://e.test/">x</a>')
    assert b"t.demo.test" not in mime(mail)
    untracked = Compiled(
        content(settings=SendSettings(open_tracking=True, click_tracking=True)),
        seed=SUBMISSION, form=Form.FIELDS, files={}, tracker=None, workspace=WORKSPACE,
    )  # fmt: skip
    made = untracked.email(letter()).fields
    assert made is not None
    assert made.html == "<p>Hello Ann</p>"


def test_an_unsubscribe_link_that_nobody_can_sign_is_an_error() -> None:
    made = Compiled(
        content(settings=EVERYTHING), seed=SUBMISSION, form=Form.MIME, files={}, tracker=None, workspace=WORKSPACE
    )
    with pytest.raises(CompositionError, match="nothing to sign it with"):
        made.email(letter())


def test_fields_say_the_same_as_the_mime_form() -> None:
    mail = content(
        html='<a href="https://e.test/?a=1&amp;b={{name}}">é</a>',
        cc=(Address("cc@bücher.test", "C"),),
        bcc=(Address("b@x.test"),),
        reply_to=(Address("r@x.test"),),
        in_reply_to="<p@x.test>",
        references=("<r@x.test>", "<p@x.test>"),
        headers={"X-Own": "Grüße"},
        attachments=(LOGO,),
        settings=EVERYTHING,
    )
    message, made = parsed(mail, files=stored(IMAGE)), fields(mail, files=stored(IMAGE))
    assert (made.subject, made.html) == (message["Subject"], body(message, "html"))
    assert made.text is not None
    assert made.text.rstrip("\n") == body(message, "plain").rstrip("\n")
    assert made.headers == {
        name: message[name]
        for name in ("In-Reply-To", "References", "X-Own", "List-Unsubscribe", "List-Unsubscribe-Post")
    }
    assert (made.sender, made.to) == (
        Mailbox(email="hello@demo.test", name="Demo"),
        (Mailbox(email="ann@example.test", name="Ann"),),
    )
    assert made.cc == (Mailbox(email="cc@xn--bcher-kva.test", name="C"),)
    assert (made.bcc, made.reply_to) == ((Mailbox(email="b@x.test"),), (Mailbox(email="r@x.test"),))
    own = fields(replace(mail, reply_to=()), letter(reply_to=Address("reply+t@x.test", "Demo")), stored(IMAGE))
    assert own.reply_to == (Mailbox(email="reply+t@x.test", name="Demo"),)
    (file,) = made.files
    assert (file.filename, file.data, file.inline, file.content_id) == ("logo.png", IMAGE, True, "logo@demo")


def test_fields_carry_no_mime() -> None:
    email = compiled(content(), Form.FIELDS).email(letter())
    assert email.mime is None
    assert email.ref == MESSAGE.hex
