"""Rows that webhook tests need: a workspace with a mail, its events, an endpoint and what is due there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.fernet import Fernet
from sqlalchemy import Engine, insert, select, text, update

from models.access import Workspace
from models.base import uuid7
from models.event import Event, EventType
from models.mailer import Mailer
from models.message import Message, State, Submission
from models.webhook import WebhookDelivery, WebhookEndpoint
from worker.notify import SECRET_PURPOSE, Notifier, new_secret
from worker.settings import Settings
from worker.vault import Vault

KEY = Fernet.generate_key().decode()
AT = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def settings_for(database_url: str, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "database_url": database_url,
        "secret_keys": KEY,
        "webhook_allowed_hosts": "127.0.0.1",
        "webhook_timeout_seconds": 20.0,
    }
    return Settings(**(values | changes))


@dataclass(frozen=True)
class Endpoint:
    id: UUID
    secret: str


class World:
    """One workspace with one sent mail."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self.vault = Vault(KEY)
        self._notifiers: list[Notifier] = []
        self.workspace, self.mailer, self.submission, self.message = uuid7(), uuid7(), uuid7(), uuid7()
        self._write_mail()

    def _write_mail(self) -> None:
        with self.engine.begin() as db:
            db.execute(insert(Workspace).values(id=self.workspace, name="w", mail_domain="w.test"))
            db.execute(
                insert(Mailer).values(
                    id=self.mailer, workspace_id=self.workspace, provider="gmail", name="m", from_addresses=[], domains=[],
                    sealed_credentials=b"", hook_token=str(self.mailer),
                )
            )  # fmt: skip
            db.execute(
                insert(Submission).values(
                    id=self.submission, workspace_id=self.workspace, shape="mailer", priority=0, mailer_id=self.mailer,
                    campaign_id="spring", content={}, custom_args={"order_id": "12345"}, total=1, awaited=False,
                )
            )  # fmt: skip
            db.execute(
                insert(Message).values(
                    id=self.message, workspace_id=self.workspace, submission_id=self.submission, mailer_id=self.mailer,
                    priority=0, state=State.SENT, recipients=["a@example.test"], rfc_message_id="<m@w.test>",
                )
            )  # fmt: skip

    def notifier(self, **changes: Any) -> Notifier:
        notifier = Notifier(self.engine, self.settings.model_copy(update=changes), self.vault)
        self._notifiers.append(notifier)
        return notifier

    def close(self) -> None:
        for notifier in self._notifiers:
            notifier.close()

    def endpoint(self, url: str, **values: Any) -> Endpoint:
        endpoint, secret = uuid7(), new_secret()
        row = {"id": endpoint, "workspace_id": self.workspace, "url": url, "events": ["*"]}
        with self.engine.begin() as db:
            db.execute(insert(WebhookEndpoint).values(row | {"sealed_secret": self.seal(endpoint, secret)} | values))
        return Endpoint(endpoint, secret)

    def seal(self, endpoint: UUID, secret: str) -> bytes:
        return self.vault.seal(SECRET_PURPOSE.format(id=endpoint), {"secret": secret})

    def due(self, endpoint: Endpoint, count: int = 1, type_: EventType = EventType.DELIVERED) -> list[UUID]:
        """Appends events and makes them due at the endpoint; the ids of the deliveries, in the order of the events."""
        with self.engine.begin() as db:
            last = db.execute(
                text("update workspace set event_cursor = event_cursor + :n where id = :w returning event_cursor"),
                {"n": count, "w": self.workspace},
            ).scalar_one()
            first = last - count + 1
            events = [
                {
                    "id": uuid7(), "workspace_id": self.workspace, "cursor": first + n, "message_id": self.message,
                    "submission_id": self.submission, "seq": first + n, "type": type_.value, "state": "sent",
                    "recipients": ["a@example.test"], "data": {"evidence": "accepted"}, "at": AT,
                }
                for n in range(count)
            ]  # fmt: skip
            now = datetime.now(UTC) - timedelta(seconds=1)
            deliveries = [
                {
                    "id": uuid7(), "workspace_id": self.workspace, "endpoint_id": endpoint.id, "event_id": event["id"],
                    "due_at": now, "created_at": now + timedelta(microseconds=n),
                }
                for n, event in enumerate(events)
            ]  # fmt: skip
            db.execute(insert(Event), events)
            db.execute(insert(WebhookDelivery), deliveries)
        return [delivery["id"] for delivery in deliveries]

    def delivery(self, delivery: UUID) -> Any:
        with self.engine.connect() as db:
            return db.execute(select(WebhookDelivery.__table__).where(WebhookDelivery.id == delivery)).one()

    def states(self, deliveries: Sequence[UUID]) -> list[str]:
        return [self.delivery(each).state for each in deliveries]

    def row(self, endpoint: Endpoint) -> Any:
        with self.engine.connect() as db:
            return db.execute(select(WebhookEndpoint.__table__).where(WebhookEndpoint.id == endpoint.id)).one()

    def change(self, endpoint: Endpoint, **values: Any) -> None:
        with self.engine.begin() as db:
            db.execute(update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint.id).values(**values))

    def make_due(self, endpoint: Endpoint) -> None:
        """Lets the time pass until everything pending is due."""
        with self.engine.begin() as db:
            db.execute(
                text("update webhook_delivery set due_at = now() where endpoint_id = :e and state = 'pending'"),
                {"e": endpoint.id},
            )
