"""`postroad doctor`: a healthy stack passes, and each thing that can be wrong is found."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet
from sqlalchemy import Connection, create_engine, select, text
from sqlalchemy.orm import Session

from api_shim.auth import Caller
from api_shim.intake import accept
from api_shim.submission import Shape, Submission
from models.access import Workspace
from models.base import uuid7
from models.content import Address
from models.domain import SendingDomain
from models.mailer import Mailer
from tests.conftest import Services, Stack
from tests.deploy.shell import run, run_on_terminal
from tests.dns_server import DnsServer
from worker.dkim_keys import add_keys, keys_of
from worker.domain_check import records_of
from worker.invariants import INVARIANTS, sampled_violations, violations
from worker.settings import Settings
from worker.vault import Vault

KEYS = Fernet.generate_key().decode()


@pytest.fixture
def fresh_url(services: Services) -> str:
    return services.fresh_database()


@pytest.fixture
def env(fresh_url: str, redis_url: str) -> dict[str, str]:
    return {"POSTROAD_DATABASE_URL": fresh_url, "POSTROAD_REDIS_URL": redis_url, "POSTROAD_SECRET_KEYS": KEYS}


@pytest.fixture
def connection(fresh_url: str) -> Iterator[Connection]:
    engine = create_engine(fresh_url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def _examined(env: Mapping[str, str | None], *arguments: str) -> dict[str, Any]:
    """The checks by name."""
    ended = run(["doctor", *arguments], env)
    report = json.loads(ended.out)
    assert ended.code == (0 if report["ok"] else 1)
    assert [check["check"] for check in report["checks"] if not check["ok"] and not check["fix"]] == []
    return {check["check"]: check for check in report["checks"]}


def _stack_env(stack: Stack) -> dict[str, str]:
    secrets = json.loads((stack.directory / "stack.secrets").read_text())
    return {
        "POSTROAD_DATABASE_URL": stack.json["database_url"],
        "POSTROAD_REDIS_URL": stack.json["redis_url"],
        "POSTROAD_SECRET_KEYS": secrets["secret_keys"],
    }


@pytest.mark.stack
def test_a_running_stack_is_in_order(stack: Stack) -> None:
    ended = run(["doctor", "--invariants"], _stack_env(stack))
    report = ended.json
    assert report["ok"] is True
    assert {finding["invariant"]: finding["broken"] for finding in report["invariants"]} == dict.fromkeys(INVARIANTS, 0)
    assert len(report["checks"]) >= 11


@pytest.mark.stack
def test_on_a_terminal_every_line_has_its_mark(stack: Stack) -> None:
    code, seen = run_on_terminal(["doctor"], _stack_env(stack))
    assert code == 0
    assert seen.count("\N{CHECK MARK}") >= 11
    assert "\N{BALLOT X}" not in seen


def test_a_server_without_processes_is_told_which_to_start(env: dict[str, str]) -> None:
    checks = _examined(env)
    silent = {f"worker {queue}" for queue in ("send.high", "send.normal", "followup", "webhooks")} | {"beat"}
    assert {name for name, check in checks.items() if not check["ok"]} == silent
    assert checks["worker followup"]["fix"] == "Start one: postroad worker --queues followup"
    assert checks["beat"]["fix"] == "Start it: postroad beat"


def test_a_worker_counts_only_while_it_is_heard_of(env: dict[str, str], connection: Connection) -> None:
    for queue, seconds in (("send.high", 1), ("followup", 60)):
        connection.execute(
            text("insert into worker_heartbeat values (:name, array[:queue], 1, now(), now() - :age)"),
            {"name": queue, "queue": queue, "age": timedelta(seconds=seconds)},
        )
    connection.commit()
    checks = _examined(env)
    assert (checks["worker send.high"]["ok"], checks["worker followup"]["ok"]) == (True, False)


def test_a_queue_that_stands_still_is_found_and_is_no_neglected_work(
    env: dict[str, str], connection: Connection
) -> None:
    connection.execute(text("insert into queue_pause (queue, reason) values ('followup', 'repairs')"))
    late = text("insert into followup (message_ids, due_at) values ('{}', now() - interval '5 minutes')")
    connection.execute(late)
    connection.commit()
    checks = _examined(env)
    assert "repairs" in checks["queue followup"]["found"]
    assert checks["queue followup"]["fix"] == "Run: postroad queue resume followup"
    assert checks["due work"]["ok"] is True
    connection.execute(text("delete from queue_pause"))
    connection.execute(text("delete from followup"))
    connection.commit()
    assert "queue followup" not in _examined(env)


def test_a_beat_that_stopped_measuring_is_found(env: dict[str, str], connection: Connection) -> None:
    sample = text("insert into queue_sample values ('followup', now() - :age, 0, 0, 0, 0, 0, 0, 0, 0)")
    connection.execute(sample, {"age": timedelta(seconds=200)})
    connection.commit()
    found = _examined(env)["beat"]["found"]
    assert 200 <= int(found.split("last ")[1].split(" s ago")[0]) < 260
    connection.execute(sample, {"age": timedelta(seconds=5)})
    connection.commit()
    assert _examined(env)["beat"]["ok"] is True


def test_a_database_that_is_behind_is_told_to_migrate(env: dict[str, str], connection: Connection) -> None:
    connection.execute(text("update alembic_version set version_num = '0000'"))
    connection.commit()
    checks = _examined(env)
    assert checks["migrations"]["fix"] == "Run: postroad migrate"
    assert "beat" not in checks


def test_a_domain_whose_records_are_wrong_is_told_what_to_publish(
    env: dict[str, str], connection: Connection, fresh_url: str
) -> None:
    settings = Settings(database_url=fresh_url, secret_keys=KEYS)
    with Session(connection) as session:
        workspace = Workspace(name="w", mail_domain="demo.test")
        session.add(workspace)
        session.flush()
        for name in ("acme-mail.com", "no-keys.com"):
            session.add(SendingDomain(workspace_id=workspace.id, name=name, created_at=datetime.now(UTC)))
        mailer = Mailer(
            workspace_id=workspace.id, provider="smtp", name="m", from_addresses=[], domains=[], hook_token="t",
            sealed_credentials=b"", return_path_domain="bounces.acme-mail.com",
        )  # fmt: skip
        session.add(mailer)
        session.flush()
        row = session.scalars(select(SendingDomain).where(SendingDomain.name == "acme-mail.com")).one()
        add_keys(session, Vault(KEYS), row)
        session.flush()
        records = records_of(settings, row, keys_of(session, [row]))
        session.commit()
    zone: dict[str, dict[str, str]] = {name: {} for name in ("acme-mail.com", *(each.name for each in records))}
    held: dict[str, str | Mapping[str, str]] = {**zone}
    with DnsServer(held) as dns:
        asking = env | {"POSTROAD_DNS_SERVERS": dns.address}
        wrong = _examined(asking)["domain acme-mail.com"]
        for each in records:
            if each.purpose != "mx":
                zone[each.name][each.type] = each.zone_line.split(" ", 3)[3]
        right = _examined(asking)
    assert wrong["ok"] is False
    for purpose in ("dkim", "spf", "dmarc", "return_path"):
        assert f"{purpose}: publish this" in wrong["fix"]
    assert "postroad domain check acme-mail.com" in wrong["fix"]
    assert (right["domain acme-mail.com"]["ok"], right["domain acme-mail.com"]["fix"]) == (True, None)
    assert "domain no-keys.com" not in right


def test_a_redis_that_evicts_is_found(env: dict[str, str], redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        held = client.config_get("maxmemory-policy")["maxmemory-policy"]
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            check = _examined(env)["redis"]
        finally:
            client.config_set("maxmemory-policy", held)
    assert check["ok"] is False
    assert "noeviction" in check["fix"]
    assert "appendonly" in check["found"]


def test_what_is_away_is_found_and_the_rest_is_examined(env: dict[str, str]) -> None:
    checks = _examined(env | {"POSTROAD_DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/x"})
    assert (checks["database"]["ok"], checks["redis"]["ok"]) == (False, True)
    assert "hush" not in str(checks)
    checks = _examined(env | {"POSTROAD_REDIS_URL": "redis://127.0.0.1:1/0"})
    assert (checks["database"]["ok"], checks["redis"]["ok"]) == (True, False)


@pytest.mark.parametrize("keys", [None, "no key", ","])
def test_wrong_settings_are_found(env: dict[str, str], keys: str | None) -> None:
    check = _examined(env | {"POSTROAD_SECRET_KEYS": keys})["settings"]
    assert check["ok"] is False
    assert "POSTROAD_SECRET_KEYS" in check["found"]


@pytest.fixture
def submitted(fresh_url: str, redis_url: str, connection: Connection) -> Connection:
    """Three queued messages; the connection to break them with."""
    settings = Settings(database_url=fresh_url, redis_url=redis_url, secret_keys=KEYS)
    with Session(connection) as session:
        workspace = Workspace(name="w", mail_domain="demo.test")
        session.add(workspace)
        session.flush()
        mailer_id = uuid7()
        session.add(
            Mailer(
                id=mailer_id, workspace_id=workspace.id, provider="smtp", name="m", is_default=True,
                from_addresses=["hello@demo.test"], domains=["demo.test"], sealed_credentials=b"", hook_token="t",
            )
        )  # fmt: skip
        session.flush()
        people = tuple(Address(f"p{number}@example.com") for number in range(3))
        submission = Submission(shape=Shape.MAILER, to=people, individual=True, subject="Hi", text="Hi")
        accept(session, Caller(workspace_id=workspace.id), submission, settings=settings)
        session.commit()
    return connection


def test_due_mail_that_nobody_takes_is_found_when_it_has_waited(env: dict[str, str], submitted: Connection) -> None:
    assert _examined(env)["due work"]["ok"] is True
    a_minute_ago = "now() - interval '1 minute'"
    submitted.execute(text(f"update message set due_at = {a_minute_ago}, created_at = {a_minute_ago}"))
    submitted.commit()
    check = _examined(env)["due work"]
    assert check["ok"] is False
    assert "send.normal" in check["found"]
    submitted.execute(text("update mailer set status = 'paused'"))
    submitted.commit()
    assert _examined(env)["due work"]["ok"] is True


@pytest.mark.parametrize(("waited", "well"), [("1 second", True), ("1 minute", False)])
def test_a_mailbox_that_nobody_looks_into_is_found_when_it_has_waited(
    env: dict[str, str], submitted: Connection, waited: str, well: bool
) -> None:
    submitted.execute(
        text(f"""
            insert into mailbox_watch (mailer_id, workspace_id, due_at)
            select id, workspace_id, now() - interval '{waited}' from mailer
        """)
    )
    submitted.commit()
    assert _examined(env)["due work"]["ok"] is well


BROKEN: dict[str, tuple[str, dict[str, int]]] = {
    "no time and no lease": ("update message set due_at = null", {"open_has_a_future": 3}),
    "in hand without a lease": (
        "update message set due_at = null, state = 'sending'",
        {"open_has_a_future": 3, "in_hand_is_leased": 3},
    ),
    "finished without a date": (
        "update message set due_at = null, state = 'cancelled', reason = 'by hand'",
        {"finished_is_dated": 3},
    ),
    "finished and still due": (
        "update message set state = 'failed', reason = 'refused', finished_at = now()",
        {"finished_is_dated": 3},
    ),
    "failed for no reason": (
        "update message set state = 'failed', due_at = null, finished_at = now()",
        {"unsent_has_a_reason": 3},
    ),
    "one too few": ("update submission set total = 4", {"totals_add_up": 1}),
    "sent and not logged": (
        """update message set state = 'sent', due_at = null, finished_at = now(), attempts = '[{"outcome": "accepted"}]'""",
        {"sent_is_logged": 3},
    ),
    "sent without an attempt": (
        """with f as (insert into followup (message_ids) select array_agg(id) from message)
           update message set state = 'sent', due_at = null, finished_at = now()""",
        {"sent_was_attempted": 3},
    ),
    "a lease long over": (
        """with l as (insert into lease (worker, mailer_id, priority, message_ids, expires_at)
               select 'x', mailer_id, 0, array_agg(id), now() - interval '1 minute' from message group by 2
               returning id)
           update message set due_at = null, state = 'claimed', lease_id = l.id from l""",
        {"open_has_a_future": 3},
    ),
}
SOUND: dict[str, str] = {
    "as accepted": "select 1",
    "in hand": """with l as (insert into lease (worker, mailer_id, priority, message_ids, expires_at)
               select 'x', mailer_id, 0, array_agg(id), now() + interval '1 minute' from message group by 2
               returning id)
           update message set due_at = null, state = 'claimed', lease_id = l.id from l""",
    "sent and on its way to the log": """with f as (insert into followup (message_ids) select array_agg(id) from message)
           update message set state = 'sent', due_at = null, finished_at = now(),
                              attempts = '[{"outcome": "accepted"}]'""",
}


def _counts(connection: Connection) -> dict[str, int]:
    return {finding.name: finding.broken for finding in violations(connection.engine) if finding.broken}


@pytest.mark.parametrize("case", BROKEN)
def test_an_invariant_that_does_not_hold_is_counted(submitted: Connection, case: str) -> None:
    statement, expected = BROKEN[case]
    submitted.execute(text(statement))
    submitted.commit()
    assert _counts(submitted) == expected


@pytest.mark.parametrize("case", SOUND)
def test_the_invariants_hold_of_what_is_sound(submitted: Connection, case: str) -> None:
    submitted.execute(text(SOUND[case]))
    submitted.commit()
    assert _counts(submitted) == {}


def test_a_sample_of_a_small_table_is_all_of_it_and_of_a_large_one_a_part(submitted: Connection) -> None:
    submitted.execute(text("update message set due_at = null"))
    submitted.commit()
    assert {finding.name: finding.broken for finding in sampled_violations(submitted.engine) if finding.broken} == {
        "open_has_a_future": 3
    }
    submitted.execute(text("update pg_class set reltuples = 1e12 where oid = 'message'::regclass"))
    submitted.commit()
    assert not any(finding.broken for finding in sampled_violations(submitted.engine))


def test_broken_rows_end_the_doctor_with_1(env: dict[str, str], submitted: Connection) -> None:
    submitted.execute(text("update submission set total = 4"))
    submitted.commit()
    ended = run(["doctor", "--invariants"], env)
    assert ended.code == 1
    (broken,) = (finding for finding in json.loads(ended.out)["invariants"] if finding["broken"])
    assert (broken["invariant"], broken["broken"]) == ("totals_add_up", 1)
