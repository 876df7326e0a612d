"""One of everything in a workspace, and a call that fits each documented route.

A route with a parameter that `PLACES` does not know, or an id in a body that `LINKS` does not know, fails the tests
that walk the routes: whoever adds one says here what it names.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.docs.reading import Reader
from api_shim.services import Services
from deploy.services import free_port
from models.base import uuid7
from models.blob import Blob
from models.event import EventType
from models.message import UNTIL_SOMEBODY_ACTS, Message, State
from tests.api_shim.conftest import Tenant, as_caller, new_tenant
from tests.api_shim.record_rows import add_inbound, add_log, add_thread
from worker.events import NewEvent, append_events

Json = dict[str, Any]

PLACES: Mapping[str, str] = {
    "/contacts/{id}": "contact",
    "/deals/{id}": "deal",
    "/opportunities/{id}": "deal",
    "/customers/{id}": "customer",
    "/companies/{id}": "customer",
    "/mailers/{id}": "mailer",
    "/domains/{id}": "domain",
    "/users/{id}": "user",
    "/keys/{id}": "key",
    "/erasures/{id}": "erasure",
    "/suppressions/{id}": "suppression",
    "/webhook-endpoints/{id}": "endpoint",
    "/webhook-endpoints/{id}/deliveries/{delivery_id}": "delivery",
    "/submissions/{ref_id}": "submission",
    "/messages/{message_id}": "message",
    "/email/threads/{thread_id}": "thread",
    "/email/logs/{message_id}": "log",
    "/email/messages/{inbound_id}": "inbound",
    "/email/messages/{inbound_id}/attachments/{number}": "file",
    "/email/configs/{config_id}": "config",
    "/campaigns/{id}": "campaign",
    "/templates/{id}": "template",
    "/templates/{id}/versions/{version}": "version",
    "/ops/queues/{queue}": "queue",
}
"""Path up to a parameter -> what the parameter names."""

LINKS: Mapping[str, str] = {
    "contact_id": "contact",
    "deal_id": "deal",
    "opportunity_id": "deal",
    "customer_id": "customer",
    "company_id": "customer",
    "thread_id": "thread",
    "thread_ids": "thread",
    "mailer_id": "mailer",
    "fallback_id": "mailer",
    "email_config_id": "config",
    "user_id": "user",
    "sender_user_id": "user",
    "gmail_user_id": "user",
    "template_id": "template",
    "delivery_id": "delivery",
    "message_id": "message",
    "ref_id": "submission",
}
"""Field of a body or a query -> what its id names."""

SPARE: Mapping[tuple[str, str], str] = {
    ("delete", "/v1/mailers/{id}"): "spare_mailer",
    ("delete", "/v1/domains/{id}"): "spare_domain",
    ("delete", "/v1/keys/{id}"): "spare_key",
    ("delete", "/v1/users/{id}"): "spare_user",
    ("delete", "/v1/suppressions/{id}"): "spare_suppression",
    ("get", "/v1/mailers/{id}/mailbox"): "oauth_mailer",
    ("put", "/v1/mailers/{id}/mailbox"): "oauth_mailer",
    ("delete", "/v1/mailers/{id}/mailbox"): "left_mailer",
    ("delete", "/v1/mailers/{id}/inbound/imap"): "left_mailer",
    ("post", "/v1/mailers/{id}/connect"): "oauth_mailer",
    ("post", "/v1/mailers/{id}/disconnect"): "oauth_mailer",
    ("delete", "/v1/opportunities/{id}"): "spare_deal",
    ("delete", "/v1/companies/{id}"): "spare_customer",
    ("post", "/v1/messages/{message_id}/cancel"): "spare_message",
    ("post", "/v1/messages/{message_id}/retry"): "uncertain_message",
    ("post", "/v1/messages/{message_id}/mark-sent"): "unclear_message",
}
"""Where something else is needed, because what `PLACES` names is in use."""

BODIES: Mapping[tuple[str, str], Callable[["World"], Json | list[Any] | bytes]] = {
    ("post", "/v1/suppressions/import"): lambda _: b"address\nimported@example.com\n",
    ("post", "/v1/suppressions"): lambda _: {"address": f"{uuid4().hex}@example.com"},
    ("post", "/v1/erasures"): lambda _: {"address": f"{uuid4().hex}@example.com"},
    ("post", "/v1/users"): lambda _: {"email": f"{uuid4().hex}@example.com", "name": "New"},
    ("post", "/v1/email/configs"): lambda _: {
        "from_email_handle": f"h{uuid4().hex[:8]}",
        "from_name": "New",
        "staff_email": "new@example.com",
    },
    ("patch", "/v1/email/configs/{config_id}"): lambda _: {"from_name": "Changed"},
    ("post", "/v1/templates"): lambda _: {"name": uuid4().hex, "subject": "New", "text": "New"},
    ("post", "/v1/domains"): lambda _: {"domain": f"{uuid4().hex}.test"},
    ("post", "/v1/domains/{id}/rotate"): lambda _: {"force": True},
    ("put", "/v1/mailers/{id}/inbound/imap"): lambda _: {"host": "127.0.0.1", "username": "me", "password": "secret"},
    ("post", "/v1/email/validate"): lambda _: {"emails": ["ann@example.com", "not an address"]},
    ("post", "/v1/email/threads/mark-read"): lambda world: {"thread_ids": [world["thread"]]},
    **dict.fromkeys(
        (("post", "/v1/messages/cancel"), ("post", "/v1/messages/retry")),
        lambda world: {"campaign_id": world["campaign"], "dry_run": True},
    ),
    ("post", "/v1/webhook-endpoints/{id}/replay"): lambda _: {"since": "2026-01-01T00:00:00Z"},
}
"""Bodies where the documented example does not fit a second time or has none."""

QUERIES: Mapping[tuple[str, str], Callable[["World"], dict[str, str]]] = {
    ("delete", "/v1/suppressions"): lambda world: {"address": world["suppressed_address"]},
}
"""What is not optional in a query."""

HEADERS: Mapping[tuple[str, str], dict[str, str]] = {
    ("post", "/v1/suppressions/import"): {"Content-Type": "text/csv"},
    ("post", "/v1/email/send"): {"Prefer": "respond-async"},
    ("post", "/v1/email/reply"): {"Prefer": "respond-async"},
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A documented route."""

    method: str
    path: str
    document: Json
    reader: Reader

    @property
    def name(self) -> str:
        return f"{self.method.upper()} {self.path}"

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.path

    @property
    def scope(self) -> str | None:
        """The scope it says it needs."""
        return self.document["security"][0]["bearer"][0] if self.document["security"] else None

    def forms(self) -> list[Mapping[str, Any]]:
        """The schemas its JSON body may have."""
        content = self.document.get("requestBody", {}).get("content", {}).get("application/json", {})
        schema = self.reader.resolved(content.get("schema", {}))
        options = schema.get("oneOf") or schema.get("anyOf") or [schema]
        return [form for form in map(self.reader.resolved, options) if form and form.get("type") != "null"]

    def linking(self, form: Mapping[str, Any]) -> Iterator[str]:
        """Fields of a form that hold an id, or a list of them. Ids further down would go unnoticed: there are none."""
        for name, given in form.get("properties", {}).items():
            inner = str(self.reader.resolved(given))
            if "'uuid'" in inner or name in LINKS:
                yield name

    def queried(self) -> Iterator[str]:
        """Parameters of the query that name something."""
        for item in self.document.get("parameters", ()):
            if item["in"] == "query" and ("'uuid'" in str(item["schema"]) or item["name"] in LINKS):
                yield item["name"]


def operations(document: Json) -> list[Operation]:
    reader = Reader(document)
    return [
        Operation(method=method, path=path, document=found, reader=reader)
        for path, methods in document["paths"].items()
        for method, found in methods.items()
    ]


class World:
    """A workspace with one of everything. ``world["contact"]`` is an id."""

    def __init__(self, api: TestClient, services: Services) -> None:
        self.tenant: Tenant = new_tenant(services)
        self.client = as_caller(api, self.tenant.key)
        self._ids: dict[str, str] = {"user": str(self.tenant.user_id)}
        self._entities()
        self._people()
        self._sending()
        with services.sessions() as session:
            self._rows(session)

    def __getitem__(self, name: str) -> str:
        return self._ids[name]

    def ids(self) -> set[str]:
        """What nobody else may ever see."""
        return set(self._ids.values()) - {self["version"], self["queue"], self["file"]}

    def _made(self, name: str, method: str, path: str, body: Any, *, key: str = "id", **headers: str) -> Json:
        answer = self.client.request(method, f"/v1{path}", json=body, headers=headers)
        assert answer.status_code in (200, 201, 202), f"{name}: {answer.text}"
        found: Json = answer.json()
        self._ids[name] = found[key]
        return found

    def _entities(self) -> None:
        self._made("contact", "PUT", f"/contacts/{uuid7()}", {"email": "grace@example.com", "name": "Grace"})
        self._made("customer", "PUT", f"/customers/{uuid7()}", {"name": "Example", "domain": "example.com"})
        links = {"contact_id": self["contact"], "customer_id": self["customer"]}
        self._made("deal", "PUT", f"/deals/{uuid7()}", {"name": "Order", **links})
        self._made("spare_deal", "PUT", f"/deals/{uuid7()}", {"name": "Offer"})
        self._made("spare_customer", "PUT", f"/customers/{uuid7()}", {"name": "Sample"})

    def _people(self) -> None:
        self._made("key", "POST", "/keys", {"name": "shop", "scopes": ["email:send"]})
        self._made("spare_key", "POST", "/keys", {"name": "old", "scopes": ["email:send"]})
        self._made("spare_user", "POST", "/users", {"email": f"{uuid4().hex}@example.com"})
        suppressed = f"{uuid4().hex}@example.com"
        self._made("suppression", "POST", "/suppressions", {"address": suppressed})
        self._made("spare_suppression", "POST", "/suppressions", {"address": f"{uuid4().hex}@example.com"})
        self._ids["suppressed_address"] = suppressed
        self._made("erasure", "POST", "/erasures", {"address": f"{uuid4().hex}@example.com"})

    def _sending(self) -> None:
        relay = {
            "provider": "smtp", "name": "relay", "from": ["hello@demo.test"], "domains": ["demo.test"],
            "credentials": {"host": "127.0.0.1", "port": 9, "security": "none"},
        }  # fmt: skip
        self._made("mailer", "POST", "/mailers", {**relay, "default": True})
        self._made("domain", "POST", "/domains", {"domain": "example.com"})
        self._made("spare_domain", "POST", "/domains", {"domain": "spare.test"})
        self._made("spare_mailer", "POST", "/mailers", {**relay, "name": "spare"})
        nobody = f"http://127.0.0.1:{free_port()}"
        consented = {"client_id": "c", "client_secret": "s", "refresh_token": "r"}
        gmail = {**relay, "provider": "gmail", "name": "gmail", "credentials": consented}
        for name in ("oauth_mailer", "left_mailer"):
            self._made(name, "POST", "/mailers", {**gmail, "base_url": nobody, "auth_url": nobody})
            self._made(name, "PUT", f"/mailers/{self[name]}/mailbox", {}, key="mailer_id")
        imap = {"host": "127.0.0.1", "username": "replies", "password": "secret"}
        self._made("left_mailer", "PUT", f"/mailers/{self['left_mailer']}/inbound/imap", imap, key="mailer_id")
        self._made(
            "config",
            "POST",
            "/email/configs",
            {"from_email_handle": "team", "from_name": "Team", "staff_email": "team@example.com"},
        )
        self._made("template", "POST", "/templates", {"name": "offer", "subject": "Offer", "html": "<p>Offer</p>"})
        self._ids |= {"version": "1", "queue": "send.normal"}
        hook = {"url": "http://127.0.0.1:8443/hook", "events": ["*"]}
        self._made("endpoint", "POST", "/webhook-endpoints", hook)
        campaign = f"autumn-{uuid4().hex[:8]}"
        self._ids["campaign"] = campaign
        (self._ids["message"],) = self._sent("submission", 1, campaign_id=campaign, contact_id=self["contact"])
        names = ("spare_message", "uncertain_message", "unclear_message")
        self._ids |= dict(zip(names, self._sent("spare_submission", 3), strict=True))

    def _sent(self, name: str, count: int, **fields: str) -> list[str]:
        """Sends to so many; the ids of the messages."""
        mail = {
            "from": {"email": "hello@demo.test"}, "to": [{"email": f"p{n}@example.com"} for n in range(count)],
            "subject": "Hello", "content": [{"type": "text/plain", "value": "Hi"}], "mailer_id": self["mailer"],
            "settings": {}, **fields,
        }  # fmt: skip
        self._made(name, "POST", "/email/send", mail, key="ref_id")
        listed = self.client.get("/v1/messages", params={"ref_id": self[name]}).json()["data"]
        return [message["id"] for message in listed]

    def _rows(self, session: Session) -> None:
        thread = add_thread(session, self.tenant, participants=["grace@example.com"], is_read=False, has_inbound=True)
        session.add(Blob(workspace_id=self.tenant.workspace_id, sha256="0" * 64, size=5, data=b"%PDF-"))
        file = {"name": "a.pdf", "mimeType": "application/pdf", "size": 5, "sha256": "0" * 64}
        self._ids |= {"inbound": str(add_inbound(session, self.tenant, thread, attachments=[file])), "file": "0"}
        self._ids["thread"] = str(thread)
        self._ids["log"] = str(add_log(session, self.tenant, thread_id=thread))
        event = NewEvent(
            workspace_id=self.tenant.workspace_id, type=EventType.MAILER_RECONNECT_REQUIRED, at=datetime.now(UTC)
        )
        append_events(session.connection(), [event])
        unclear = [UUID(self["uncertain_message"]), UUID(self["unclear_message"])]
        held = {"state": State.UNCERTAIN, "due_at": UNTIL_SOMEBODY_ACTS}
        session.execute(update(Message).where(Message.id.in_(unclear)).values(**held))
        session.commit()
        path = f"/v1/webhook-endpoints/{self['endpoint']}/deliveries"
        self._ids["delivery"] = self.client.get(path).json()["data"][0]["id"]

    def parameters(self, operation: Operation) -> dict[str, str]:
        """This world's ids for the parameters of the path. Fails where nobody has said what one names."""
        template = operation.path.removeprefix("/v1")
        spare = SPARE.get(operation.key)
        found = {}
        for parameter in re.finditer(r"\{(\w+)\}", template):
            place = template[: parameter.end()]
            if place not in PLACES:
                pytest.fail(f"{operation.name}: add {place} to PLACES in everything.py, and what it names to World")
            found[parameter[1]] = self[spare or PLACES[place]]
        return found

    def path_of(self, operation: Operation) -> str:
        return operation.path.format_map(self.parameters(operation))

    def bodies(self, operation: Operation) -> list[Any]:
        """One body for each form of it, each with this world's ids; one None where there is no body."""
        if own := BODIES.get(operation.key):
            return [own(self)]
        return [self._own(example) for form in operation.forms() for example in _examples(form)] or [None]

    def _own(self, example: Any) -> Any:
        if not isinstance(example, dict):
            return example
        return {name: self._ids[LINKS[name]] if name in LINKS and value else value for name, value in example.items()}

    def call(
        self,
        operation: Operation,
        *,
        client: TestClient | None = None,
        body: Any = None,
        query: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """Calls a route about what is in this world, as its own workspace or as ``client``."""
        content = {"content": body} if isinstance(body, bytes) else {} if body is None else {"json": body}
        required = QUERIES[operation.key](self) if operation.key in QUERIES else {}
        return (client or self.client).request(
            operation.method.upper(),
            self.path_of(operation),
            params=required | (query or {}),
            headers=HEADERS.get(operation.key, {}),
            **content,
        )


def _examples(form: Mapping[str, Any]) -> list[Any]:
    return [form["example"]] if "example" in form else list(form.get("examples", ()))
