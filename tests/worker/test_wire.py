"""The bodies of events, as the source documents print them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from models.base import from_ulid
from models.event import WIRE_NAMES, EventType
from worker import wire

REF_ID = "01JC3BBW8S9YGX2VNKG5MD7BTA"
EVENT = UUID("01a1feae-6412-7801-a001-2e16a5593439")
THREAD = UUID("01a1feae-642e-7f89-b7e7-f389601b904f")


def row(**changes: Any) -> dict[str, Any]:
    return {
        "id": EVENT,
        "cursor": 42,
        "seq": 2,
        "type": "delivered",
        "state": "delivered",
        "recipients": ["recipient@example.com"],
        "data": {},
        "at": datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC),
        "message_id": EVENT,
        "submission_id": from_ulid(REF_ID),
        "campaign_id": "order-confirmation-2024",
        "custom_args": {"order_id": "12345"},
        "rfc_message_id": "<edith_mailer550e8400@sparrowmailer.com>",
        "thread_id": THREAD,
        "provider_thread_id": "18c5a1b2d3e4f5g6",
        "provider": "gmail",
    } | changes


def body(facts: dict[str, Any]) -> dict[str, Any]:
    """As it is read outside."""
    read: dict[str, Any] = orjson.loads(orjson.dumps(wire.body(facts)))
    return read


def test_c36_the_documented_outgoing_body() -> None:
    sent = body(row())
    assert sent["event"] == "MAIL_DELIVERED"
    assert sent["details"] == {
        "ref_id": REF_ID,
        "email": ["recipient@example.com"],
        "message_id": "<edith_mailer550e8400@sparrowmailer.com>",
        "thread_id": "18c5a1b2d3e4f5g6",
        "campaign_id": "order-confirmation-2024",
        "custom_args": {"order_id": "12345"},
    }


def test_what_stands_beside_the_documented_body() -> None:
    sent = body(row())
    assert {key: value for key, value in sent.items() if key not in ("event", "details")} == {
        "type": "delivered",
        "id": str(EVENT),
        "timestamp": "2026-11-21T12:00:00+00:00",
        "sequence": 2,
        "cursor": 42,
        "state": "delivered",
    }


def test_c31_the_documented_incoming_body_keeps_its_hyphens() -> None:
    data = {
        "message_id": "<CABc123def@mail.example.com>",
        "in_reply_to": "<edith_mailer550e8400@sparrowmailer.com>",
        "references": ["<edith_mailer550e8400@sparrowmailer.com>", "<CABc123def@mail.example.com>"],
        "from": "customer@example.com",
        "subject": "Re: Your order #12345",
    }
    received = body(row(type="received", data=data))
    assert received["event"] == "INCOMING_EMAIL"
    assert received["details"] == {
        "message-id": "<CABc123def@mail.example.com>",
        "in-reply-to": "<edith_mailer550e8400@sparrowmailer.com>",
        "thread-id": "18c5a1b2d3e4f5g6",
        "references": "<edith_mailer550e8400@sparrowmailer.com> <CABc123def@mail.example.com>",
        "from": "customer@example.com",
        "subject": "Re: Your order #12345",
        "mailer-service": "gmail",
    }


def test_an_incoming_mail_that_answers_nothing_of_ours_is_complete_in_itself() -> None:
    data = {
        "message_id": "<x@y.test>",
        "from": "a@y.test",
        "subject": "Hi",
        "thread_id": str(THREAD),
        "mailer_service": "smtp",
    }
    alone = row(
        type="received", data=data, message_id=None, submission_id=None, rfc_message_id=None, thread_id=None,
        provider_thread_id=None, provider=None, campaign_id=None, custom_args=None,
    )  # fmt: skip
    assert body(alone)["details"] == {
        "message-id": "<x@y.test>",
        "in-reply-to": None,
        "thread-id": str(THREAD),
        "references": None,
        "from": "a@y.test",
        "subject": "Hi",
        "mailer-service": "smtp",
    }


def test_our_thread_id_stands_where_the_provider_has_none() -> None:
    assert body(row(provider_thread_id=None))["details"]["thread_id"] == str(THREAD)
    assert body(row(provider_thread_id=None, thread_id=None))["details"]["thread_id"] is None


def test_what_the_event_itself_says_stands_in_the_details_and_overrides_nothing() -> None:
    data = {
        "evidence": "accepted",
        "url": "https://a.test/",
        "is_bot": True,
        "reason": "550",
        "message_id": "<other@x>",
    }
    details = body(row(type="clicked", data=data))["details"]
    assert details["evidence"] == "accepted"
    assert (details["url"], details["is_bot"], details["reason"]) == ("https://a.test/", True, "550")
    assert details["message_id"] == "<edith_mailer550e8400@sparrowmailer.com>"


def test_missing_custom_args_are_an_empty_object() -> None:
    assert body(row(custom_args=None))["details"]["custom_args"] == {}


@pytest.mark.parametrize("kind", list(EventType))
def test_c35_every_event_has_a_body_under_its_wire_name(kind: EventType) -> None:
    sent = body(row(type=kind.value))
    assert sent["event"] == WIRE_NAMES[kind]
    assert isinstance(sent["details"], dict)


@pytest.mark.parametrize("kind", ["endpoint_disabled", "mailer_reconnect_required"])
def test_an_operators_event_has_no_mail_in_it(kind: str) -> None:
    assert body(row(type=kind, data={"reason": "410"}, recipients=[]))["details"] == {"reason": "410"}


def test_the_documentation_names_every_event() -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
    for kind, name in WIRE_NAMES.items():
        assert f"| `{name}` | `{kind.value}` |" in page
