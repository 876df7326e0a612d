"""Single features of the mailer API (C), from the request to what the recipient has."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api_shim.services import Services
from models.event import WIRE_NAMES
from providers import ADAPTERS
from providers.emulators.gmail import GmailEmulator
from providers.emulators.sparkpost import SparkPostEmulator
from tests.api_shim.office import Office, open_office
from tests.contract.houses import ApiHouse
from tests.contract.received import only, read, text_of
from worker.settings import Settings


def body(office: Office, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "from": {"email": "hello@demo.test"},
        "to": [{"email": "grace@example.com"}],
        "subject": "Your order",
        "content": [{"type": "text/plain", "value": "Thank you."}],
        "mailer_id": str(office.house.mailer_id),
        "settings": {},
    }
    return values | changes


def sent(office: Office, **changes: Any) -> dict[str, Any]:
    """The message of a submission, after the worker was at it."""
    answer = office.send(body(office, **changes))
    assert answer.status_code == 202, answer.text
    office.work()
    [message] = office.get("/v1/messages", ref_id=answer.json()["ref_id"])["data"]
    found: dict[str, Any] = message
    return found


WHITELIST = [
    "application/pdf", "application/msword",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document", "application/vnd.ms-excel",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "application/vnd.ms-powerpoint",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation", "text/plain", "text/csv",
    "text/html", "text/xml", "text/calendar", "text/css", "image/jpeg", "image/png", "image/gif", "image/svg+xml",
    "image/webp", "image/bmp", "image/tiff", "audio/mpeg", "audio/wav", "audio/ogg", "video/mp4", "video/x-msvideo",
    "video/quicktime", "video/webm", "application/zip", "application/x-tar", "application/gzip",
    "application/vnd.rar", "application/x-7z-compressed", "application/json", "application/xml", "application/rtf",
    "application/octet-stream", "message/rfc822",
]  # fmt: skip


def test_c11_a_file_of_every_listed_type_arrives(office: Office) -> None:
    files = [{"filename": f"f{n}", "type": kind, "content": "eDogeQoKeg=="} for n, kind in enumerate(WHITELIST)]
    assert sent(office, attachments=files)["state"] == "sent"
    _, mail = only(office)
    assert [part.get_content_type() for part in mail.iter_attachments()] == WHITELIST


def test_c12_c28_headers_of_the_caller_reach_the_recipient(office: Office) -> None:
    threading = {"In-Reply-To": "<2@example.com>", "References": "<1@example.com> <2@example.com>"}
    sent(office, headers={"X-Priority": 1, "X-Order": "17", **threading})
    _, mail = only(office)
    assert (mail["X-Priority"], mail["X-Order"]) == ("1", "17")
    assert {name: mail[name] for name in threading} == threading


def test_c7_c8_c9_a_template_gives_the_words_and_inline_ones_win(office: Office) -> None:
    words = {"name": "order", "subject": "Your order {{n}}", "text": "Thank you for {{n}}."}
    template = office.client.post("/v1/templates", json=words).json()
    values = {"template_id": template["id"], "substitutions": {"grace@example.com": {"n": "17"}}, "content": None}
    sent(office, subject=None, **values)
    sent(office, subject="Changed", **values)
    mails = [read(received.data) for received in office.house.server.received]
    assert [mail["Subject"] for mail in mails] == ["Your order 17", "Changed"]
    assert [text_of(mail, "plain") for mail in mails] == ["Thank you for 17."] * 2


@pytest.mark.parametrize(("pool", "used"), [("", None), ("transactional", "transactional")])
def test_c21_a_pool_is_passed_on_and_none_means_the_providers_default(
    api: TestClient, app_services: Services, settings: Settings, pool: str, used: str | None
) -> None:
    with SparkPostEmulator() as sparkpost, open_office(api, app_services, ApiHouse(settings, sparkpost)) as office:
        assert sent(office, settings={"ip_pool": pool})["state"] == "sent"
        [mail] = sparkpost.mails
        assert mail.options.get("ip_pool") == used


def test_c21_a_pool_goes_by_the_name_that_the_mailer_gives_it(
    api: TestClient, app_services: Services, settings: Settings
) -> None:
    with SparkPostEmulator() as sparkpost:
        house = ApiHouse(settings, sparkpost, ip_pools={"transactional": "sp-17"})
        with open_office(api, app_services, house) as office:
            sent(office, settings={"ip_pool": "transactional"})
            assert sparkpost.mails[0].options["ip_pool"] == "sp-17"
            refused = office.send(body(office, settings={"ip_pool": "other"}))
            assert (refused.status_code, len(sparkpost.mails)) == (400, 1)
            assert "transactional" in refused.json()["error"]


def test_c22_urgent_mail_does_not_wait_behind_what_came_before_it(office: Office) -> None:
    for name, priority in (("first", 0), ("second", 0), ("urgent", 1)):
        mail = body(office, to=[{"email": f"{name}@example.com"}], priority=priority)
        assert office.client.post("/v1/email/send", json=mail).status_code == 202
    office.house.deliver(priority=1)
    office.house.deliver(priority=0)
    taken = [mail.recipients[0] for mail in office.house.server.received]
    assert taken[0] == "urgent@example.com"
    assert sorted(taken[1:]) == ["first@example.com", "second@example.com"]


def test_c24_c36_custom_args_come_back_in_the_events(office: Office) -> None:
    message = sent(office, custom_args={"order": {"id": 17}}, campaign_id="orders")
    [event] = office.get("/v1/events")["data"]
    details = event["details"]
    assert event["event"] == "MAIL_DELIVERED"
    assert (details["ref_id"], details["message_id"]) == (message["ref_id"], message["message_id"])
    assert (details["email"], details["campaign_id"]) == (["grace@example.com"], "orders")
    assert details["custom_args"] == {"order": {"id": 17}}


def test_c33_a_webhook_can_be_for_one_ref_id_alone(office: Office) -> None:
    mails = [office.client.post("/v1/email/send", json=body(office)).json()["ref_id"] for _ in range(2)]
    endpoint = {"url": "http://127.0.0.1:8099/", "ref_id": mails[1]}
    id_ = office.client.post("/v1/webhook-endpoints", json=endpoint).json()["id"]
    office.work()
    [delivery] = office.get(f"/v1/webhook-endpoints/{id_}/deliveries")["data"]
    told = {event["id"]: event["details"]["ref_id"] for event in office.get("/v1/events")["data"]}
    assert sorted(told.values()) == sorted(mails)
    assert told[delivery["event_id"]] == mails[1]


def test_c25_a_mail_gets_a_message_id_of_its_own_at_the_senders_domain(office: Office) -> None:
    message = sent(office)
    _, mail = only(office)
    assert mail["Message-ID"] == message["message_id"] == f"<postroad{message['id']}@demo.test>"


def test_c26_a_callers_own_message_id_is_wrapped(office: Office) -> None:
    message = sent(office, headers={"Message-ID": "order-17"})
    _, mail = only(office)
    assert mail["Message-ID"] == message["message_id"] == "<postroad_order-17@demo.test>"


def test_c27_gmail_takes_no_message_id_of_the_caller(
    api: TestClient, app_services: Services, settings: Settings
) -> None:
    with GmailEmulator() as gmail, open_office(api, app_services, ApiHouse(settings, gmail)) as office:
        mail = body(office, headers={"Message-ID": "order-17"}) | {"from": {"email": gmail.address}}
        ref_id = office.client.post("/v1/email/send", json=mail).json()["ref_id"]
        [queued] = office.get("/v1/messages", ref_id=ref_id)["data"]
        office.work()
        [message] = office.get("/v1/messages", ref_id=ref_id)["data"]
        [received] = gmail.messages.values()
    assert "order-17" not in queued["message_id"]
    assert message["message_id"] == received.header("Message-ID") != queued["message_id"]


def test_c30_every_documented_provider_has_an_adapter() -> None:
    documented = {"gmail", "gmail_smtp", "microsoft365", "outlook_smtp", "smtp", "sparkpost", "mailgun"}
    assert documented | {"postmark"} == set(ADAPTERS)


@pytest.mark.parametrize(
    "name",
    ["MAIL_DELIVERED", "MAIL_OPENED", "MAIL_CLICKED", "MAIL_BOUNCED", "MAIL_SPAM", "GENERATION_FAILURE", "INCOMING_EMAIL"],
)  # fmt: skip
def test_c31_c35_every_documented_event_can_be_asked_for(office: Office, name: str) -> None:
    endpoint = {"url": "http://127.0.0.1:8099/", "events": [name]}
    answer = office.client.post("/v1/webhook-endpoints", json=endpoint)
    assert (answer.status_code, answer.json()["events"]) == (201, [name])
    assert name in WIRE_NAMES.values()


def test_c38_what_was_sent_is_found_by_ref_id_and_counted_by_campaign(office: Office) -> None:
    ref_id = sent(office, campaign_id="orders")["ref_id"]
    sent(office, campaign_id="other")
    assert [row["ref_id"] for row in office.get("/v1/email/logs", ref_id=ref_id)["data"]] == [ref_id]
    campaign = office.get("/v1/campaigns/orders")
    assert (campaign["total"], campaign["counts"]["sent"]) == (1, 1)


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("providers.gmail_service", "googleapiclient"),
        ("providers.microsoft365_token", "msal"),
        ("providers.postmark", "postmarker"),
    ],
)
def test_d7_the_named_packages_do_the_work(module: str, library: str) -> None:
    source = Path(import_module(module).__file__ or "").read_text()
    assert re.search(rf"^ *(from|import) {library}\b", source, re.MULTILINE)
