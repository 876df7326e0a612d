"""S7 for the worker: what a task does for one workspace reads, sends and writes nothing of another's.

A task that is not driven here fails, and so does a statement on tenants' tables that names no workspace and is not
listed with what keeps it inside one.
"""

import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from importlib import import_module
from uuid import UUID

import pytest
from sqlalchemy import TextClause, text

import worker
from api_shim.submission import Accepted
from models.base import Base, uuid7
from models.mailbox import MailboxWatch, Pickup
from models.partition import is_part
from models.webhook import WebhookDelivery, WebhookEndpoint
from providers.emulators.postmark import Mail, PostmarkEmulator
from tests.conftest import wait_until
from tests.e2e.outside import Receiver
from tests.worker.house import settings_for
from tests.worker.postmark_house import PostmarkHouse
from tests.worker.registered import registered
from worker.app import celery_app
from worker.notify import SECRET_PURPOSE, new_secret
from worker.reports import RawMail, store_mail
from worker.tasks import register

TENANT_TABLES = {
    table.name for table in Base.metadata.sorted_tables if "workspace_id" in table.c and not is_part(table.name)
}
MARK = "of-theirs-alone"
"""Stands in what the other workspace has, and nowhere in ours."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Two workspaces; the other has one mail that was sent and one of everything that is due."""

    ours: PostmarkHouse
    theirs: PostmarkHouse
    sent: Accepted
    mail: Mail
    """The one that was sent, as the provider has it."""
    receiver: Receiver

    def ring(self, task: str, subject: str) -> None:
        registered(self.ours.runtime)[task](subject, "bell")


@pytest.fixture(scope="module")
def postmark() -> Iterator[PostmarkEmulator]:
    with PostmarkEmulator() as emulator:
        yield emulator


@pytest.fixture
def scene(database_url: str, redis_url: str, postmark: PostmarkEmulator) -> Iterator[Scene]:
    settings = settings_for(database_url, redis_url, webhook_allowed_hosts="127.0.0.1")
    ours, theirs = (PostmarkHouse(settings, postmark) for _ in range(2))
    with Receiver() as receiver:
        sent, mail = theirs.sent(f"{MARK}@example.com", subject=MARK, html=MARK, links=theirs.links)
        leave_due(theirs, receiver)
        yield Scene(ours=ours, theirs=theirs, sent=sent, mail=mail, receiver=receiver)
        ours.close()
        theirs.close()


def leave_due(house: PostmarkHouse, receiver: Receiver) -> None:
    """A queued mail, a mailbox to be looked into with a mail in it, and an event for an endpoint."""
    house.submit(f"{MARK}@example.com", subject=MARK, html=MARK)
    watch = MailboxWatch(mailer_id=house.mailer_id, workspace_id=house.workspace_id)
    pickup = Pickup(mailer_id=house.mailer_id, workspace_id=house.workspace_id, locator=MARK)
    with house.session() as session:
        session.add_all([watch, pickup])
        session.commit()
    owe(house, endpoint(house, receiver), newest_event(house))
    now = {"m": house.mailer_id, "w": house.workspace_id}
    with house.runtime.engine.begin() as connection:
        connection.execute(text("update mailbox_watch set due_at = now() where mailer_id = :m"), now)
        connection.execute(text("update pickup set due_at = now() where mailer_id = :m"), now)


def endpoint(house: PostmarkHouse, receiver: Receiver) -> UUID:
    id_ = uuid7()
    sealed = house.runtime.vault.seal(SECRET_PURPOSE.format(id=id_), {"secret": new_secret()})
    row = WebhookEndpoint(
        id=id_, workspace_id=house.workspace_id, url=receiver.url, events=["MAIL_SPAM"], sealed_secret=sealed
    )
    with house.session() as session:
        session.add(row)
        session.commit()
    return id_


def newest_event(house: PostmarkHouse) -> UUID:
    found: UUID = house.scalar("select id from event where workspace_id = :w order by cursor desc limit 1")
    return found


def owe(house: PostmarkHouse, endpoint_id: UUID, event_id: UUID) -> None:
    """Makes an event due at an endpoint of the workspace."""
    with house.session() as session:
        delivery = WebhookDelivery(
            id=uuid7(), workspace_id=house.workspace_id, endpoint_id=endpoint_id, event_id=event_id
        )
        session.add(delivery)
        session.flush()
        session.execute(text("update webhook_delivery set due_at = now() where id = :id"), {"id": delivery.id})
        session.commit()


def rows(house: PostmarkHouse) -> dict[str, list[str]]:
    """Everything that is stored for a workspace, table by table, and the leases of its mailer."""
    statement = "select to_jsonb(t)::text as row from {} t where workspace_id = :w order by 1"
    found = {
        name: [row["row"] for row in house.rows(statement.format(name))]
        for name in sorted(TENANT_TABLES - {"worker_heartbeat"})
    }
    return found | {"lease": [str(row) for row in house.rows("select * from lease where mailer_id = :m")]}


def send_ours(scene: Scene) -> None:
    """A mail of our lane goes out; the other workspace's, due as long, does not."""
    before = len(scene.ours.postmark.mails)
    accepted = scene.ours.submit("ann@example.com")
    scene.ring("deliver", f"{scene.ours.mailer_id}:0")
    assert scene.ours.message(accepted).state == "sent"
    assert len(scene.ours.postmark.mails) == before + 1


def record_ours(scene: Scene) -> None:
    """Our mail is linked to ids that are now the other's: ours were deleted meanwhile, and ids are given by callers."""
    accepted = scene.ours.submit("ann@example.com", links=scene.ours.links)
    theirs = {"c": scene.theirs.contact_id, "d": scene.theirs.deal_id, "u": scene.theirs.customer_id}
    with scene.ours.runtime.engine.begin() as connection:
        connection.execute(
            text("update submission set contact_id = :c, deal_id = :d, customer_id = :u where id = :id"),
            theirs | {"id": accepted.submission_id},
        )
    scene.ours.deliver_all()
    scene.ring("record", "all")
    statement = "select contact_id, deal_id, customer_id from {} where workspace_id = :w"
    unlinked = {"contact_id": None, "deal_id": None, "customer_id": None}
    assert scene.ours.rows(statement.format("email_log")) == [unlinked]
    assert scene.ours.rows(statement.format("thread")) in ([], [unlinked])
    assert scene.ours.rows("select * from activity where workspace_id = :w") == []


def report_theirs(scene: Scene) -> None:
    """Our provider says all kinds of things about the other's mail, and somebody answers it to us."""
    mail, postmark = scene.mail, scene.ours.postmark
    about = [
        postmark.report("Bounce", mail, Type="HardBounce", ID=1),
        postmark.report("SpamComplaint", mail),
        postmark.report("Delivery", mail),
    ]
    scene.ours.hand_over(*about, *({**body, "Metadata": {}} for body in about))
    with scene.ours.runtime.engine.begin() as connection:
        mailer = scene.ours.runtime.providers.mailer(scene.ours.mailer_id)
        assert mailer is not None
        known = scene.theirs.message(scene.sent).rfc_message_id
        came_in = RawMail(natural_key="answer", raw=answer_to(known), recipient="hello@demo.test")
        store_mail(connection, scene.ours.runtime.vault, mailer, came_in)
    for _ in range(3):
        scene.ring("apply_reports", "reports")
    assert scene.ours.suppressed() == {}
    [thread] = scene.ours.rows("select thread_id, contact_id from inbound_message i join thread t on t.id = i.thread_id"
                               " where i.workspace_id = :w and t.workspace_id = :w")  # fmt: skip
    assert thread["thread_id"] != scene.theirs.message(scene.sent).thread_id


def answer_to(known: str) -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "ann@example.com", "hello@demo.test", "Re: hello"
    mail["Message-ID"], mail["In-Reply-To"] = "<answer@example.com>", known
    mail.set_content("yes")
    return mail.as_bytes()


def notify_ours(scene: Scene) -> None:
    """Our endpoint is owed an event of ours, and one that is the other's."""
    scene.ours.sent()
    id_ = endpoint(scene.ours, scene.receiver)
    owe(scene.ours, id_, newest_event(scene.theirs))
    owe(scene.ours, id_, newest_event(scene.ours))
    scene.ring("notify", str(id_))
    settled = "select count(*) from webhook_delivery where endpoint_id = :e and state = 'pending'"
    wait_until(lambda: scene.ours.scalar(settled, e=id_) == 0, "both are settled")
    states = scene.ours.rows("select state from webhook_delivery where endpoint_id = :e order by id", e=id_)
    assert [row["state"] for row in states] == ["dead", "delivered"]
    assert len(scene.receiver.requests) == 1


def collect_ours(scene: Scene) -> None:
    scene.ring("collect", str(scene.ours.mailer_id))


DRIVEN: Mapping[str, Callable[[Scene], None]] = {
    "deliver": send_ours,
    "record": record_ours,
    "apply_reports": report_theirs,
    "notify": notify_ours,
    "collect": collect_ours,
}
"""Every task -> how it is driven, with whatever its arguments and rows could name of the other workspace."""


def test_s7_every_task_is_driven(scene: Scene) -> None:
    app = celery_app(scene.ours.settings)
    register(app, lambda: scene.ours.runtime)
    assert {name for name in app.tasks if not name.startswith("celery.")} == set(DRIVEN)


@pytest.mark.parametrize("task", DRIVEN)
def test_s7_a_task_reads_sends_and_writes_nothing_of_another_workspace(scene: Scene, task: str) -> None:
    before = rows(scene.theirs)
    DRIVEN[task](scene)
    assert rows(scene.theirs) == before
    reports = {"provider_report"}  # our provider's own words, as they came
    shown = {name for name, stored in rows(scene.ours).items() if MARK in "".join(stored)} - reports
    assert shown == set()
    assert not any(MARK.encode() in body for _, body in scene.receiver.requests)


INSIDE: Mapping[str, str] = {
    "serves all workspaces at once: finds lanes, counts, ages rows out; hands nothing from one to another": """
        beat._ENDPOINT_LANES beat._HOUSEKEEPING beat._INBOX_LANES beat._REPORTS_DUE
        beat._SEND_LANES domain_check._DUE gauges._ENDPOINTS gauges._KEY_EXPIRES gauges._MAILERS
        gauges._STUCK imap_mailbox._ALL orphans._RECONCILE orphans._REQUEUE queues._FAILED
        queues._FOLLOWUP queues._IN_HAND queues._SEND_RATES queues._WAITING queues._WEBHOOKS
        reports._TAKE retention._AUDIT retention._DELIVERIES retention._MESSAGES
        retention._SUBMISSIONS retention._THREADS
    """,
    "takes the id of a mailer or an endpoint, as its lane has it: the rows with it are its workspace's": """
        deliveries._CLAIM deliveries._FAILING deliveries._IN_ORDER deliveries._PARK
        deliveries._PUT_OFF deliveries._REST deliveries._RESTS fallback._MOVE fallback._STAYS
        gate._OF_MAILER halt._THROTTLE imap_mailbox._FAILED imap_mailbox._LOOKED
        imap_mailbox._MOVE imap_mailbox._ONE keeper._READ keeper._STORE lease._CLAIM
        mailers._MAILER pickups._FORGET pickups._REST
    """,
    "takes ids that were read from rows of one workspace, or that a signed address carries": """
        deliveries._CLAIM_THESE deliveries._HAND_BACK deliveries._SETTLE erasure_sql.ACTIVITY
        erasure_sql.BUSY erasure_sql.CANCEL erasure_sql.EVENT erasure_sql.FINISH
        erasure_sql.LEAVE_OUT erasure_sql.LOG erasure_sql.MESSAGE erasure_sql.RECEIVED_WIPED
        erasure_sql.SUBMISSION erasure_sql.SUBMISSIONS gate._OF_MESSAGE inbound._ADOPT
        lease._RECOVER lease._RETURN mail_events._MOVE mail_events._MOVE_LOG
        mail_events._RESOLVE meter._OUTCOMES moves._COUNT moves._MOVE moves._PICK_ONE
        moves._PICK_SOME moves._PICK_THESE moves._UNSETTLED outcome_rows._LATE outcome_rows._RECORD
        outcome_rows._RECORD_OUTCOMES record._ANNOUNCE record._TRACED reports._AGAIN
        reports._DONE
    """,
}
"""What keeps a statement that names no workspace inside one -> such statements."""


def sql_of(constant: object) -> str:
    """A statement's text, or that of a part of one that could be one; empty for anything else."""
    if isinstance(constant, TextClause):
        return constant.text
    return (
        constant if isinstance(constant, str) and re.match(r"\s*(select|with|update|insert|delete)\s", constant) else ""
    )


def statements() -> set[str]:
    """Every statement of the worker on tenants' tables that names no workspace, by module and constant."""
    found = set()
    for module in pkgutil.iter_modules(worker.__path__):
        for name, value in vars(import_module(f"worker.{module.name}")).items():
            for sql in map(sql_of, value if isinstance(value, tuple) else (value,)):
                named = set(re.findall(r"\b(?:from|join|update|into)\s+(\w+)", sql)) & TENANT_TABLES
                if named and "workspace_id" not in sql:
                    found.add(f"{module.name}.{name}")
    return found


def test_s7_a_statement_names_the_workspace_or_says_what_keeps_it_inside_one() -> None:
    assert sorted(statements()) == sorted(" ".join(INSIDE.values()).split())
