"""django-anymail as a second opinion: the same webhook calls classified alike, the same mail asked for alike."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("anymail", reason="django-anymail is in the extra 'test'")

from anymail.backends import mailgun as anymail_mailgun
from anymail.backends import postmark as anymail_postmark
from anymail.backends import sparkpost as anymail_sparkpost
from anymail.webhooks.mailgun import MailgunTrackingWebhookView
from anymail.webhooks.postmark import PostmarkTrackingWebhookView
from anymail.webhooks.sparkpost import SparkPostTrackingWebhookView
from django.conf import settings
from django.core.mail import EmailMultiAlternatives

from providers.base import Mailbox, OutboundEmail, ProviderEvent
from providers.emulators.mailgun import MailgunEmulator
from providers.emulators.postmark import PostmarkEmulator
from providers.emulators.sparkpost import SparkPostEmulator
from providers.mailgun import Mailgun
from providers.mailgun import _form as mailgun_form
from providers.postmark import Postmark
from providers.postmark_message import payload as postmark_payload
from providers.sparkpost import SparkPost
from providers.sparkpost import _transmission as sparkpost_transmission
from tests.providers.benches import as_request
from tests.providers.samples import account, fields, file, mail

OURS: dict[str, set[str | None]] = {
    "queued": {"accepted"},
    "delivered": {"delivered"},
    "deferred": {"deferred"},
    "bounced": {"bounced"},
    "rejected": {"bounced"},
    "failed": {"generation_failed"},
    "complained": {"complained"},
    "opened": {"opened"},
    "clicked": {"clicked"},
    "unsubscribed": {"unsubscribed"},
    "subscribed": {None},
    "autoresponded": {None},
    "inbound_failed": {None},
}
"""Anymail's word for an event -> ours; None is no event of a mail."""

ELSEWHERE = {("sparkpost", "initial_open"): "opened", ("sparkpost", "amp_initial_open"): "opened"}
"""Provider and its own word -> what we make of it, where anymail does not know the word."""


@pytest.fixture(autouse=True, scope="module")
def _django() -> None:
    if not settings.configured:
        settings.configure(
            ANYMAIL={
                "POSTMARK_SERVER_TOKEN": "t",
                "MAILGUN_API_KEY": "k",
                "MAILGUN_SENDER_DOMAIN": "mg.demo.test",
                "MAILGUN_WEBHOOK_SIGNING_KEY": "k",
                "SPARKPOST_API_KEY": "k",
                "WEBHOOK_SECRET": "a:b",
            }
        )


def _agree(word: str, theirs: Any, ours: list[ProviderEvent], provider: str) -> None:
    kind = ours[0].type if ours else None
    assert kind in ({ELSEWHERE[provider, word]} if (provider, word) in ELSEWHERE else OURS[theirs.event_type])
    if ours:
        [event] = ours
        assert event.recipient == theirs.recipient
        assert event.at == theirs.timestamp
        assert event.ref == theirs.metadata["ref"]
        assert str(event.provider_message_id).strip("<>") == theirs.message_id.strip("<>")
        assert event.data.get("url") == theirs.click_url


@pytest.fixture
def postmark() -> Iterator[tuple[PostmarkEmulator, Postmark]]:
    with PostmarkEmulator() as emulator:
        adapter = Postmark(account("postmark", emulator, server_token=emulator.server_token))
        adapter.send([mail()])
        yield emulator, adapter
        adapter.close()


POSTMARK_BOUNCES = (
    "HardBounce", "Transient", "Unsubscribe", "Subscribe", "AutoResponder", "AddressChange", "DnsError",
    "SpamNotification", "OpenRelayTest", "SoftBounce", "VirusNotification", "ChallengeVerification",
    "BadEmailAddress", "SpamComplaint", "ManuallyDeactivated", "Unconfirmed", "Blocked", "SMTPApiError",
    "InboundError", "DMARCPolicy", "TemplateRenderingFailed", "ManualSuppression",
)  # fmt: skip


@pytest.mark.parametrize("kind", POSTMARK_BOUNCES)
def test_postmarks_bounces_are_classified_alike(postmark: tuple[PostmarkEmulator, Postmark], kind: str) -> None:
    emulator, adapter = postmark
    body = emulator.bounce(emulator.mails[0], kind=kind, Tag="", Description="")
    theirs = PostmarkTrackingWebhookView().esp_to_anymail_event(body)
    _agree(kind, theirs, list(adapter.parse_events(as_request(emulator.hooks[-1]))), "postmark")


@pytest.mark.parametrize(
    ("record", "more"),
    [
        ("Delivery", {}),
        ("Open", {"FirstOpen": True}),
        ("Click", {"OriginalLink": "https://demo.test/a"}),
        ("SpamComplaint", {"Type": "SpamComplaint", "ID": 1}),
        ("SubscriptionChange", {"SuppressSending": True, "SuppressionReason": "ManualSuppression"}),
    ],
)
def test_postmarks_other_reports_are_classified_alike(
    postmark: tuple[PostmarkEmulator, Postmark], record: str, more: dict[str, Any]
) -> None:
    emulator, adapter = postmark
    body = emulator.report(record, emulator.mails[0], **more)
    theirs = PostmarkTrackingWebhookView().esp_to_anymail_event(body)
    _agree(record, theirs, list(adapter.parse_events(as_request(emulator.hooks[-1]))), "postmark")


MAILGUN_REPORTS = (
    "accepted", "delivered", "bounced", "suppressed", "deferred", "rejected", "complained", "unsubscribed",
    "opened", "clicked",
)  # fmt: skip


@pytest.mark.parametrize("name", MAILGUN_REPORTS)
def test_mailguns_reports_are_classified_alike(name: str) -> None:
    with MailgunEmulator() as emulator:
        keys = {"api_key": emulator.api_key, "signing_key": emulator.signing_key, "domain": emulator.domain}
        adapter = Mailgun(account("mailgun", emulator, **keys))
        adapter.send([mail()])
        hook = emulator.signed(emulator.report(name, emulator.mails[0]))
        theirs = MailgunTrackingWebhookView().esp_to_anymail_event(json.loads(hook.body))
        _agree(name, theirs, list(adapter.parse_events(as_request(hook))), "mailgun")
        adapter.close()


SPARKPOST_BOUNCES = ("1", "10", "20", "21", "22", "23", "24", "25", "30", "40", "50", "51", "52", "53", "54", "60",
                     "70", "80", "90", "100")  # fmt: skip
SPARKPOST_TYPES = (
    "injection", "delivery", "delay", "policy_rejection", "generation_failure", "generation_rejection",
    "spam_complaint", "open", "initial_open", "click", "amp_open", "amp_initial_open", "amp_click",
    "list_unsubscribe", "link_unsubscribe",
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        *((kind, {"target_link_url": "https://demo.test/a"} if "click" in kind else {}) for kind in SPARKPOST_TYPES),
        *((kind, {"bounce_class": number}) for kind in ("bounce", "out_of_band") for number in SPARKPOST_BOUNCES),
    ],
)
def test_sparkposts_reports_are_classified_alike(kind: str, more: dict[str, Any]) -> None:
    with SparkPostEmulator() as emulator:
        adapter = SparkPost(account("sparkpost", emulator, api_key=emulator.api_key, hook_secret=emulator.hook_secret))
        adapter.send([mail()])
        hook = emulator.batch(emulator.report(kind, emulator.mails[0], **more))
        [entry] = json.loads(hook.body)
        view = SparkPostTrackingWebhookView()
        theirs = view.esp_to_anymail_event(*view.unwrap_event(entry))
        word = f"{kind} {more['bounce_class']}" if "bounce_class" in more else kind
        _agree(word, theirs, list(adapter.parse_events(as_request(hook))), "sparkpost")
        adapter.close()


def _ours() -> OutboundEmail:
    given = fields(
        sender=Mailbox(email="ann@demo.test", name="Ann, Ltd"),
        to=(Mailbox(email="bob@client.test", name="Bob"), Mailbox(email="dora@client.test")),
        cc=(Mailbox(email="carl@client.test"),),
        bcc=(Mailbox(email="eve@client.test"),),
        reply_to=(Mailbox(email="desk@demo.test"),),
        text="Hello",
        headers={"X-Campaign": "spring"},
        files=(file(3, filename="a.pdf", content_type="application/pdf"),),
    )
    to = [box.email for box in (*given.to, *given.cc, *given.bcc)]
    return mail(*to, fields=given)


def _theirs(ref: str) -> EmailMultiAlternatives:
    message = EmailMultiAlternatives(
        subject="Offer",
        body="Hello",
        from_email='"Ann, Ltd" <ann@demo.test>',
        to=["Bob <bob@client.test>", "dora@client.test"],
        cc=["carl@client.test"],
        bcc=["eve@client.test"],
        reply_to=["desk@demo.test"],
        headers={"X-Campaign": "spring"},
    )
    message.attach_alternative("<p>Hello</p>", "text/html")
    message.attach("a.pdf", b"aaa", "application/pdf")
    message.metadata = {"ref": ref}
    message.track_opens = message.track_clicks = False
    return message


def _asked(backend: Any, message: EmailMultiAlternatives) -> dict[str, Any]:
    """The request that anymail would make."""
    found: dict[str, Any] = backend.build_message_payload(message, {}).get_request_params("https://api.test/")
    return found


def test_postmark_is_asked_for_the_same_mail() -> None:
    email = _ours()
    theirs = json.loads(_asked(anymail_postmark.EmailBackend(), _theirs(email.ref))["data"])
    ours = postmark_payload(email, "outbound")
    plain: Callable[[str], str] = lambda boxes: boxes.replace('"', "")  # noqa: E731 -- names may be quoted or not
    for name in ("From", "To", "Cc", "Bcc", "ReplyTo"):
        assert plain(ours[name]) == plain(theirs[name])
    for name in ("Subject", "HtmlBody", "TextBody", "Metadata", "TrackOpens", "TrackLinks"):
        assert ours[name] == theirs[name]
    assert [one for one in ours["Headers"] if one["Name"] == "X-Campaign"] == theirs["Headers"]
    [mine], [yours] = ours["Attachments"], theirs["Attachments"]
    assert mine == {name: yours[name] for name in ("Name", "Content", "ContentType")}


def test_anymail_can_send_through_the_emulated_postmark() -> None:
    with PostmarkEmulator() as emulator:
        backend = anymail_postmark.EmailBackend(server_token=emulator.server_token, api_url=emulator.url)
        message = _theirs("0" * 32)
        assert backend.send_messages([message]) == 1
        assert message.anymail_status.status == {"sent"}
        assert message.anymail_status.message_id == emulator.mails[0].id
        backend.close()


def test_mailgun_is_asked_for_the_same_recipients_and_options() -> None:
    email = _ours()
    theirs = _asked(anymail_mailgun.EmailBackend(), _theirs(email.ref))["data"]
    ours = dict(mailgun_form(email))
    named = {
        address.partition("<")[2].rstrip(">") or address for name in ("to", "cc", "bcc") for address in theirs[name]
    }
    assert named == set(email.recipients) == {value for name, value in mailgun_form(email) if name == "to"}
    assert ours["v:ref"] == theirs["v:ref"]
    assert (theirs["o:tracking-opens"], theirs["o:tracking-clicks"], ours["o:tracking"]) == ("no", "no", "no")


def test_sparkpost_is_asked_for_the_same_recipients_and_options() -> None:
    email = _ours()
    theirs = json.loads(_asked(anymail_sparkpost.EmailBackend(), _theirs(email.ref))["data"])
    ours = sparkpost_transmission(email)
    addresses = [one["address"]["email"] for one in theirs["recipients"]]
    assert [one["address"]["email"] for one in ours["recipients"]] == addresses
    assert all(one["metadata"] == {"ref": email.ref} for one in ours["recipients"])
    assert theirs["metadata"] == {"ref": email.ref}
    assert theirs["options"].items() <= ours["options"].items()
