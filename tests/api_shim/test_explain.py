"""Why a message is where it is: blocked in every known way, on real rows, each with the cause that comes first."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import text, update
from starlette.testclient import TestClient

from api_shim.explain.cause import Why
from api_shim.services import Services
from models.mailer import Mailer, Suppression
from models.message import UNTIL_SOMEBODY_ACTS, Campaign, Message, State, Submission
from tests.api_shim.conftest import Tenant
from tests.api_shim.mail_rows import Mailroom
from worker import circuits
from worker.mailers import OpenMailer


class Scene:
    """One message in a system that is well, and what can be made worse about it."""

    def __init__(self, services: Services, tenant: Tenant) -> None:
        self.services = services
        self.room = Mailroom(services, tenant)
        self.accepted = self.room.submit()
        self.id = self.room.message(self.accepted).id

    def sql(self, statement: str, **values: Any) -> None:
        with self.services.engine.begin() as db:
            db.execute(text(statement), {"id": self.id, "mailer": self.room.mailer_id} | values)

    def message(self, state: State = State.QUEUED, **columns: Any) -> None:
        if state in (State.QUEUED, State.UNCERTAIN):
            columns.setdefault("due_at", datetime.now(UTC))
        self.room.put(self.accepted, state, **columns)

    def mailer(self, **columns: Any) -> None:
        with self.services.sessions() as session:
            session.execute(update(Mailer).where(Mailer.id == self.room.mailer_id).values(**columns))
            session.commit()

    def submission(self, **columns: Any) -> None:
        with self.services.sessions() as session:
            key = Submission.id == self.accepted.submission_id
            session.execute(update(Submission).where(key).values(**columns))
            session.commit()

    def lease(self, state: State = State.CLAIMED, *, worker: str = "host:1", age: float = 0.1) -> None:
        """Puts it in a worker's hand."""
        self.message(state, lease_id=900_001, due_at=None)
        self.sql(
            """insert into lease (id, worker, mailer_id, priority, message_ids, created_at, expires_at)
               values (900001, :worker, :mailer, 0, array[cast(:id as uuid)],
                       clock_timestamp() - make_interval(secs => :age), clock_timestamp() + interval '1 minute')""",
            worker=worker, age=age,
        )  # fmt: skip

    def campaign(self, status: str) -> None:
        with self.services.sessions() as session:
            session.add(Campaign(workspace_id=self.room.tenant.workspace_id, id="spring", status=status))
            session.commit()
        self.submission(campaign_id="spring")

    def suppress(self) -> None:
        with self.services.sessions() as session:
            workspace_id = self.room.tenant.workspace_id
            row = Suppression(workspace_id=workspace_id, address="p0@example.com", reason="complaint")
            session.add(row)
            session.commit()

    def outbox(self, tries: int, error: str | None = None) -> None:
        self.message(State.SENT)
        self.sql(
            "insert into followup (message_ids, tries, error) values (array[cast(:id as uuid)], :tries, :error)",
            tries=tries, error=error,
        )  # fmt: skip

    def spend(self, **caps: int) -> None:
        """Uses up the mailer's limits."""
        self.mailer(caps=caps)
        open_mailer = OpenMailer.__new__(OpenMailer)
        open_mailer.id, open_mailer.caps, open_mailer.learning = self.room.mailer_id, caps, False
        assert self.services.pace.take(open_mailer, 1, min(caps.values()))

    def open_circuit(self) -> None:
        self.mailer(fallback_id=self.room.mailer_id)
        key = f"postroad:circuit:{self.room.mailer_id}"
        self.services.redis.hset(key, "failures", circuits.FAILURES)
        self.services.redis.hset(key, "since", time.time() - circuits.OPEN_SECONDS - 1)


WELL = """
    delete from lease; delete from followup; delete from worker_heartbeat; delete from queue_sample; delete from queue_pause;
    insert into worker_heartbeat (name, queues, lock_key) values ('host:1', '{send.normal,send.high,followup}', 1);
    insert into queue_sample (queue, at, ready, scheduled, in_flight, oldest_age_seconds, in_per_second, out_per_second)
    values ('send.normal', clock_timestamp(), 0, 0, 0, 0, 0, 0)
"""


@pytest.fixture
def scene(app_services: Services, tenant: Tenant) -> Iterator[Scene]:
    made = Scene(app_services, tenant)
    for statement in WELL.split(";"):
        made.sql(statement)
    yield made
    made.sql("update message set due_at = null, state = 'cancelled', finished_at = now() where id = :id")
    made.sql("delete from lease")
    made.sql("delete from queue_pause")


def _ahead(**span: float) -> datetime:
    return datetime.now(UTC) + timedelta(**span)


def _attempt(outcome: str, **more: str) -> dict[str, Any]:
    return {"at": datetime.now(UTC).isoformat(), "outcome": outcome, **more}


@dataclass(frozen=True)
class Case:
    """A situation: how it comes about, its first cause, what the sentence says, and whether there is a forecast."""

    make: Callable[[Scene], None]
    why: Why
    says: str
    person: bool = False
    eta: bool = False


def _both(first: Callable[[Scene], None], second: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        first(scene)
        second(scene)

    return make


BUSY = "451 try again later"
SITUATIONS: dict[str, Case] = {
    "next in its lane": Case(lambda s: None, Why.IN_TURN, "next in its lane", eta=True),
    "others before it": Case(lambda s: s.message(due_at=_ahead(seconds=-1)), Why.IN_TURN, "It is due", eta=True),
    "scheduled": Case(
        _both(lambda s: s.submission(send_at=_ahead(hours=2)), lambda s: s.message(due_at=_ahead(hours=2))),
        Why.SCHEDULED, "send_at comes in 2 h", eta=True,
    ),
    "backing off": Case(
        lambda s: s.message(due_at=_ahead(minutes=5), tries=2, attempts=[_attempt("transient", detail=BUSY)]),
        Why.BACKOFF, BUSY, eta=True,
    ),
    "provider asked for a pause": Case(
        lambda s: s.mailer(throttled_until=_ahead(minutes=10)), Why.THROTTLED, "asked mailer m for a pause", eta=True
    ),
    "credentials refused": Case(
        lambda s: s.mailer(status="reconnect_required", status_reason="535 bad login"),
        Why.RECONNECT_REQUIRED, "535 bad login", person=True,
    ),
    "mailer paused": Case(lambda s: s.mailer(status="paused"), Why.MAILER_PAUSED, "paused mailer m", person=True),
    "mailer deleted": Case(
        lambda s: s.mailer(deleted_at=datetime.now(UTC)), Why.MAILER_DELETED, "mailer m was deleted", person=True
    ),
    "queue paused": Case(
        lambda s: s.sql("insert into queue_pause (queue, reason) values ('send.normal', 'relay moves')"),
        Why.QUEUE_PAUSED, "relay moves", person=True,
    ),
    "campaign paused": Case(
        _both(lambda s: s.campaign("paused"), lambda s: s.message(due_at=UNTIL_SOMEBODY_ACTS)),
        Why.CAMPAIGN_PAUSED, "campaign spring is paused", person=True,
    ),
    "campaign cancelled": Case(lambda s: s.campaign("cancelled"), Why.CAMPAIGN_CANCELLED, "is cancelled", eta=True),
    "no worker": Case(
        lambda s: s.sql("delete from worker_heartbeat"), Why.NO_WORKER, "No worker of send.normal", person=True
    ),
    "worker silent": Case(
        lambda s: s.sql("update worker_heartbeat set seen_at = now() - interval '20 seconds'"),
        Why.NO_WORKER, "No worker of send.normal", person=True,
    ),
    "beat silent": Case(
        lambda s: s.sql("update queue_sample set at = now() - interval '40 seconds'"),
        Why.BEAT_SILENT, "silent for 40 s", eta=True,
    ),
    "beat never heard of, and a schedule": Case(
        _both(lambda s: s.sql("delete from queue_sample"), lambda s: s.message(due_at=_ahead(hours=1))),
        Why.BEAT_SILENT, "was never heard of", person=True,
    ),
    "limit of the mailer used up": Case(
        lambda s: s.spend(per_minute=30), Why.PACED, "may send 30 per minute; left are 0", eta=True
    ),
    "limit of a day used up": Case(lambda s: s.spend(per_day=500), Why.PACED, "500 per day", eta=True),
    "circuit open": Case(lambda s: s.open_circuit(), Why.CIRCUIT_OPEN, "given to its fallback", eta=True),
    "server slow": Case(
        lambda s: s.sql(
            """insert into lease (id, worker, mailer_id, priority, message_ids, created_at, expires_at)
               values (900002, 'host:1', :mailer, 0, '{}', now() - interval '3 seconds', now() + interval '1 minute')"""
        ),
        Why.SERVER_SLOW, "waited 3", eta=True,
    ),
    "its worker died before": Case(
        lambda s: s.message(crashes=2), Why.WORKER_DIED, "died 2 times with it in hand", eta=True
    ),
    "suppressed meanwhile": Case(lambda s: s.suppress(), Why.SUPPRESSED_SOON, "(complaint)", eta=True),
    "expires before its turn": Case(
        _both(lambda s: s.submission(expires_at=_ahead(minutes=1)), lambda s: s.message(due_at=_ahead(minutes=5))),
        Why.EXPIRED_SOON, "expires in", eta=True,
    ),
    "expired already": Case(
        lambda s: s.submission(expires_at=_ahead(minutes=-1)), Why.EXPIRED_SOON, "has expired", eta=True
    ),
    "moved to a fallback": Case(
        lambda s: s.message(attempts=[_attempt("moved", detail="moved to mailer spare: m must be reconnected")]),
        Why.MOVED, "moved to mailer spare", eta=True,
    ),
    "in a worker's hand": Case(lambda s: s.lease(), Why.IN_HAND, "Worker host:1 has it in a batch of 1"),
    "on the wire": Case(lambda s: s.lease(State.SENDING), Why.ON_THE_WIRE, "Worker host:1 is sending it"),
    "its worker is gone": Case(
        lambda s: s.lease(State.SENDING, worker="host:2"), Why.WORKER_LOST, "is gone"
    ),
    "nothing leads to it": Case(
        lambda s: s.message(State.CLAIMED, lease_id=77), Why.WORKER_LOST, "is gone"
    ),
    "being asked about": Case(
        lambda s: s.lease(State.UNCERTAIN), Why.BEING_LOOKED_UP, "asks the provider"
    ),
    "to be asked about": Case(
        _both(lambda s: s.mailer(provider="postmark"), lambda s: s.message(State.UNCERTAIN, due_at=_ahead(minutes=1))),
        Why.AWAITING_LOOKUP, "asked, for the 1. time",
    ),
    "to be decided": Case(
        lambda s: s.message(State.UNCERTAIN, due_at=UNTIL_SOMEBODY_ACTS, reason="timeout"),
        Why.AWAITING_DECISION, "timeout", person=True,
    ),
    "sent, no reports": Case(lambda s: s.message(State.SENT), Why.ACCEPTED, "reports no delivery"),
    "sent, report open": Case(
        _both(lambda s: s.mailer(provider="postmark"), lambda s: s.message(State.SENT)), Why.AWAITING_REPORT, "not reported"
    ),
    "delivered": Case(lambda s: s.message(State.DELIVERED), Why.DELIVERED, "receiving server"),
    "bounced": Case(lambda s: s.message(State.BOUNCED, reason="550 unknown"), Why.BOUNCED, "550 unknown"),
    "complained": Case(lambda s: s.message(State.COMPLAINED), Why.COMPLAINED, "as spam"),
    "refused": Case(
        lambda s: s.message(State.FAILED, attempts=[_attempt("permanent", code="550", detail="no such user")]),
        Why.REFUSED, "550 no such user",
    ),
    "given up": Case(
        lambda s: s.message(State.FAILED, reason=f"given up after 4 attempts: {BUSY}"), Why.GIVEN_UP, BUSY
    ),
    "not composed": Case(
        lambda s: s.message(State.FAILED, reason="could not be composed: no value for {{name}}"),
        Why.NOT_COMPOSED, "no value for",
    ),
    "isolated": Case(
        lambda s: s.message(State.FAILED, reason="isolated: its worker died 3 times with it in hand"),
        Why.ISOLATED, "3 times",
    ),
    "cancelled": Case(lambda s: s.message(State.CANCELLED, reason="cancelled through the API"), Why.CANCELLED, "the API"),
    "suppressed": Case(lambda s: s.message(State.SUPPRESSED, reason="hard_bounce"), Why.SUPPRESSED, "hard_bounce"),
    "expired": Case(lambda s: s.message(State.EXPIRED, reason="expires_at passed"), Why.EXPIRED, "expires_at passed"),
    "skipped": Case(lambda s: s.message(State.SKIPPED, reason="no MX record"), Why.SKIPPED, "no MX record"),
}  # fmt: skip


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_message_is_explained_by_what_holds_it_back(name: str, scene: Scene, client: TestClient) -> None:
    case = SITUATIONS[name]
    case.make(scene)
    answer = client.get(f"/v1/messages/{scene.id}/explain")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    first = found["causes"][0]
    assert (first["code"], first["needs_person"]) == (case.why, case.person), found
    assert case.says in first["what"]
    assert found["summary"] == first["what"]
    assert (found["eta"] is not None) == case.eta, found
    assert found["next_step"] == "Nothing." or found["next_step"] in [cause["do"] for cause in found["causes"]]


@pytest.mark.parametrize(("tries", "why"), [(0, Why.FOLLOWUP_OPEN), (3, Why.FOLLOWUP_FAILED)])
def test_a_sent_mail_without_a_log_row_says_what_the_followup_does(
    scene: Scene, client: TestClient, tries: int, why: Why
) -> None:
    scene.outbox(tries, "disk full" if tries else None)
    causes = client.get(f"/v1/messages/{scene.id}/explain").json()["causes"]
    assert [cause["code"] for cause in causes] == [Why.ACCEPTED, why]
    assert ("disk full" in causes[1]["what"]) == bool(tries)


def test_a_followup_that_stands_still_is_a_cause_too(scene: Scene, client: TestClient) -> None:
    scene.outbox(0)
    scene.sql("insert into queue_pause (queue) values ('followup')")
    scene.sql("delete from worker_heartbeat")
    found = client.get(f"/v1/messages/{scene.id}/explain").json()
    codes = [cause["code"] for cause in found["causes"]]
    assert codes == [Why.ACCEPTED, Why.FOLLOWUP_OPEN, Why.QUEUE_PAUSED, Why.NO_WORKER]
    assert "queue followup has been paused" in found["causes"][2]["what"]


def test_all_that_holds_a_message_back_is_named_at_once(scene: Scene, client: TestClient) -> None:
    scene.mailer(status="paused", throttled_until=_ahead(minutes=1))
    scene.sql("delete from worker_heartbeat")
    scene.suppress()
    found = client.get(f"/v1/messages/{scene.id}/explain").json()
    codes = [cause["code"] for cause in found["causes"]]
    assert codes == [Why.MAILER_PAUSED, Why.NO_WORKER, Why.SUPPRESSED_SOON, Why.THROTTLED, Why.IN_TURN]
    assert found["eta"] is None
    assert found["next_step"].endswith("/resume, or Resume on the page of mailers.")


def test_redis_that_is_away_is_a_cause_and_no_error(
    scene: Scene, client: TestClient, app_services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = redis.Redis(host="127.0.0.1", port=9, socket_connect_timeout=0.2)
    monkeypatch.setattr(app_services, "redis", nobody)
    found = client.get(f"/v1/messages/{scene.id}/explain").json()
    assert (found["causes"][0]["code"], found["eta"]) == (Why.BROKER_AWAY, None)


def test_those_before_it_in_the_lane_are_counted(scene: Scene, client: TestClient) -> None:
    behind = scene.room.submit(3)
    last = max((message.due_at, message.id) for message in scene.room.messages(behind))[1]
    numbers = client.get(f"/v1/messages/{last}/explain").json()["causes"][0]["numbers"]
    assert numbers["before"] == 3
    _end(scene, behind.submission_id)


def test_a_mail_whose_deadline_put_it_ahead_is_explained_so_and_due_when_it_came(
    scene: Scene, client: TestClient
) -> None:
    hurried = scene.room.submit(expires_at=datetime.now(UTC) + timedelta(hours=1))
    message = scene.room.message(hurried)
    found = client.get(f"/v1/messages/{message.id}/explain").json()["causes"][0]
    assert (found["code"], found["numbers"]["before"]) == (Why.IN_TURN, 0)
    assert found["what"] == "It is due and next in its lane. Its expires_at has put it ahead of others."
    shown = client.get(f"/v1/messages/{message.id}").json()
    assert shown["due_at"] == shown["created_at"]
    _end(scene, hurried.submission_id)


def _end(scene: Scene, submission_id: UUID) -> None:
    with scene.services.sessions() as session:
        done = {"state": State.CANCELLED, "due_at": None, "finished_at": datetime.now(UTC)}
        session.execute(update(Message).where(Message.submission_id == submission_id).values(**done))
        session.commit()


def test_every_cause_is_on_the_page_about_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explain.md").read_text()
    table = page[page.index("## The causes") :]
    assert {why.value for why in Why} == set(
        re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| `.*?\|", table, re.M)))
    )


def test_another_workspaces_message_is_not_explained(scene: Scene, other: TestClient) -> None:
    assert other.get(f"/v1/messages/{scene.id}/explain").status_code == 404
