"""A workspace whose mail goes to an SMTP emulator, with the worker's steps called by hand."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import text
from sqlalchemy.orm import Session

from api_shim.auth import Caller
from api_shim.intake import accept
from api_shim.submission import Accepted, Shape, Submission
from models.access import Workspace
from models.base import uuid7
from models.content import Address
from models.crm import Contact
from models.mailer import Mailer
from models.message import Message
from providers.emulators.smtp import SmtpEmulator
from tests.conftest import PATIENCE_SECONDS
from worker.beat import Ticker
from worker.delivery import deliver
from worker.heartbeat import Heartbeat
from worker.mailers import mailer_purpose
from worker.record import record
from worker.runtime import Runtime
from worker.settings import Settings

HTML = "<p>Hello</p>"


def settings_for(database_url: str, redis_url: str, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "database_url": database_url,
        "redis_url": redis_url,
        "secret_keys": Fernet.generate_key().decode(),
        "mailer_allowed_hosts": "127.0.0.1",
        "retry_seconds": "0.01,0.01,0.01",
    }
    return Settings(**(values | changes))


class House:
    """One worker process' runtime, a workspace, a mailer and its server."""

    def __init__(self, settings: Settings, server: SmtpEmulator) -> None:
        self.settings = settings
        self.server = server
        self.runtime = Runtime(settings, application="test worker")
        self.on_close: list[Callable[[], None]] = []
        self.workspace_id, self.mailer_id, self.contact_id = uuid7(), uuid7(), uuid7()
        with self.session() as session:
            session.add(Workspace(id=self.workspace_id, name="test", mail_domain="mail.test"))
            session.flush()
            session.add(
                Contact(id=self.contact_id, workspace_id=self.workspace_id, email="ann@example.com", name="Ann")
            )
            session.add(self._mailer())
            session.commit()

    def _mailer(self) -> Mailer:
        credentials = {"host": "127.0.0.1", "port": self.server.port, "security": "none"}
        return Mailer(
            id=self.mailer_id,
            workspace_id=self.workspace_id,
            provider="smtp",
            name="test",
            from_addresses=["hello@demo.test"],
            domains=["demo.test"],
            sealed_credentials=self.runtime.vault.seal(mailer_purpose(self.mailer_id), credentials),
            caps={"connections": 2},
            hook_token=str(self.mailer_id),
            is_default=True,
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        with Session(self.runtime.engine) as session:
            yield session

    def submit(self, *recipients: str, **fields: Any) -> Accepted:
        """Accepts a submission: an individual mail to each recipient, unless told otherwise."""
        values: dict[str, Any] = {
            "shape": Shape.MAILER,
            "sender": Address("hello@demo.test"),
            "to": tuple(Address(recipient) for recipient in recipients),
            "individual": True,
            "subject": "Hello",
            "html": HTML,
            "mailer_id": self.mailer_id,
        }
        with self.session() as session:
            accepted = accept(
                session,
                Caller(workspace_id=self.workspace_id),
                Submission(**(values | fields)),
                settings=self.settings,
            )
            session.commit()
            return accepted

    def deliver(self, priority: int = 0) -> int:
        return deliver(self.runtime, self.mailer_id, priority).done

    def deliver_all(self, priority: int = 0) -> None:
        """Delivers until nothing is due, retries that come due meanwhile included."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.deliver(priority) or self._due_soon():
            assert time.monotonic() < deadline, "what is due is not taken in hand"

    def _due_soon(self) -> bool:
        return bool(
            self.scalar(
                "select count(*) from message where due_at < clock_timestamp() + interval '1 second' and mailer_id = :m"
            )
        )

    def record_all(self) -> None:
        while record(self.runtime).done:
            pass

    def tick(self) -> None:
        Ticker(self.runtime).tick()

    def messages(self, accepted: Accepted) -> list[Message]:
        with self.session() as session:
            return list(
                session.query(Message).where(Message.submission_id == accepted.submission_id).order_by(Message.id)
            )

    def message(self, accepted: Accepted) -> Message:
        [message] = self.messages(accepted)
        return message

    def version(self) -> str:
        """Of the mailer's row, for `worker.lease.claim`."""
        return str(self.scalar("select xmin::text from mailer where id = :m"))

    def scalar(self, statement: str, **parameters: Any) -> Any:
        with self.runtime.engine.connect() as connection:
            return connection.execute(
                text(statement), {"m": self.mailer_id, "w": self.workspace_id} | parameters
            ).scalar()

    def rows(self, statement: str, **parameters: Any) -> list[Mapping[str, Any]]:
        with self.runtime.engine.connect() as connection:
            found = connection.execute(text(statement), {"m": self.mailer_id, "w": self.workspace_id} | parameters)
            return [dict(row) for row in found.mappings()]

    def heartbeat(self) -> Heartbeat:
        beat = Heartbeat(self.runtime, ["send.normal"])
        beat.start()
        return beat

    def close(self) -> None:
        for close in self.on_close:
            close()
        self.runtime.close()
