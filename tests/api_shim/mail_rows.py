"""Mail for the tests of actions: accepted for real, and moved by a worker that sends to a list."""

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, select, text, update

from api_shim.auth import Caller
from api_shim.intake import accept
from api_shim.services import Services
from api_shim.submission import Accepted, Shape, Submission
from models.base import uuid7
from models.content import Address
from models.mailer import Mailer
from models.message import Message, State
from providers.base import Outcome, Result
from tests.api_shim.conftest import Tenant
from worker import lease
from worker.outcome import Policy, judge
from worker.outcome_rows import record_verdicts
from worker.retry import Backoff

POLICY = Policy(
    now=datetime.now(UTC), backoff=Backoff((0.01,) * 50), can_ask=False, settle_seconds=0, on_uncertain="hold"
)
TRY_LATER = Outcome(result=Result.TRANSIENT, detail="try later")


class Mailroom:
    """A workspace that can send, and its rows."""

    def __init__(self, services: Services, tenant: Tenant) -> None:
        self.services = services
        self.tenant = tenant
        self.mailer_id = uuid7()
        with services.sessions() as session:
            session.add(
                Mailer(
                    id=self.mailer_id, workspace_id=tenant.workspace_id, provider="smtp", name="m", is_default=True,
                    from_addresses=["hello@demo.test"], domains=["demo.test"], sealed_credentials=b"",
                    hook_token=str(self.mailer_id),
                )
            )  # fmt: skip
            session.commit()

    def submit(self, count: int = 1, **fields: Any) -> Accepted:
        values: dict[str, Any] = {
            "shape": Shape.MAILER,
            "to": tuple(Address(f"p{number}@example.com") for number in range(count)),
            "individual": True,
            "subject": "Hello",
            "text": "Hello",
        }
        caller = Caller(workspace_id=self.tenant.workspace_id)
        with self.services.sessions() as session:
            accepted = accept(session, caller, Submission(**(values | fields)), settings=self.services.settings)
            session.commit()
        return accepted

    def messages(self, accepted: Accepted) -> list[Message]:
        with self.services.sessions() as session:
            query = select(Message).where(Message.submission_id == accepted.submission_id)
            return list(session.scalars(query.order_by(Message.id)))

    def message(self, accepted: Accepted) -> Message:
        (message,) = self.messages(accepted)
        return message

    def put(self, accepted: Accepted, state: State, **values: Any) -> None:
        """Brings the messages into a state as the worker would leave them."""
        finished_at = None if state in ("queued", "claimed", "sending", "uncertain") else datetime.now(UTC)
        changes = {"state": state, "due_at": None, "finished_at": finished_at} | values
        with self.services.sessions() as session:
            session.execute(update(Message).where(Message.submission_id == accepted.submission_id).values(**changes))
            session.commit()

    def begin(self) -> tuple[int, lease.Held]:
        """Takes what is due in hand, and puts it on the wire: the lease and the first message."""
        with self.services.engine.begin() as db:
            batch = _claim(db, self.mailer_id, 100)
            assert batch is not None
            record_verdicts(db, batch.lease_id, [], batch.messages)
        return batch.lease_id, batch.messages[0]

    def states(self, accepted: Accepted) -> Counter[str]:
        return Counter(message.state for message in self.messages(accepted))

    def worker(self, **options: Any) -> "FakeWorker":
        return FakeWorker(self.services.engine, self.mailer_id, **options)


def _claim(db: Connection, mailer_id: UUID, most: int) -> lease.Batch | None:
    version = db.execute(text("select xmin::text from mailer where id = :id"), {"id": mailer_id}).scalar_one()
    term = timedelta(seconds=60)
    return lease.claim(db, mailer_id, 0, version=version, worker="fake", batch=most, lease=term)


class FakeWorker:
    """A worker's loop without a wire: what it would send is noted with the time; some of it fails for a while.

    Every answer is thought over for a moment in which anything may happen to the rows.
    """

    def __init__(self, engine: Engine, mailer_id: UUID, *, troubled: float = 0.0, seed: int = 0) -> None:
        self.sent: list[tuple[UUID, float]] = []
        self._engine = engine
        self._mailer_id = mailer_id
        self._troubled = troubled
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> "FakeWorker":
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._engine.begin() as db:
                batch = _claim(db, self._mailer_id, 40)
            if batch is None:
                time.sleep(0.005)
            else:
                self._deliver(batch)

    def _deliver(self, batch: lease.Batch) -> None:
        for start in range(0, len(batch.messages), 10):
            self._deliver_slice(batch.lease_id, batch.messages[start : start + 10])
        with self._engine.begin() as db:
            lease.end(db, batch.lease_id)

    def _deliver_slice(self, lease_id: int, messages: Sequence[lease.Held]) -> None:
        with self._engine.begin() as db:
            ours = record_verdicts(db, lease_id, [], messages)
        begun = [message for message in messages if message.id in ours]
        verdicts = [judge(message, self._answer(message), POLICY) for message in begun]
        time.sleep(self._random.random() * 0.01)
        with self._engine.begin() as db:
            record_verdicts(db, lease_id, verdicts)

    def _answer(self, message: lease.Held) -> Outcome:
        if self._random.random() < self._troubled:
            return TRY_LATER
        self.sent.append((message.id, time.monotonic()))
        return Outcome(result=Result.ACCEPTED)
