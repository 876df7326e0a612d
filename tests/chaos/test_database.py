"""The database is broken in every way. It holds the truth, so what was promised must still be there."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg
import pytest

from tests.chaos.world import LONG, Scenario, World
from tests.conftest import wait_until

pytestmark = pytest.mark.stack

MAILS = 2_000 if LONG else 300
AWAY_SECONDS = 20.0 if LONG else 2.0


def knock(world: World, scenario: Scenario, seconds: float) -> list[int]:
    """Tries to have mail accepted for a while; a 503 must say when to come again. Returns the statuses."""
    statuses = []
    until = time.monotonic() + seconds
    mailer = world.client.stack.json["mailer_id"]
    while time.monotonic() < until:
        answer = world.client.send(scenario.body(1, mailer_id=mailer) | {"campaign_id": "knock"})
        statuses.append(answer.status_code)
        if answer.status_code == 503:
            assert answer.headers["Retry-After"] == "1"
        time.sleep(0.05)
    return statuses


def rows_of_knocks(world: World) -> int:
    """How many of the mails that knocked were stored."""
    [(rows,)] = world.sql("""
        select count(*) from message m join submission s on s.id = m.submission_id where s.campaign_id = 'knock'
    """)
    return int(rows)


def test_r12_a_killed_database_costs_503s_and_no_mail(world: World) -> None:
    with world.scenario("R12", "PostgreSQL killed while mail flows") as scenario:
        for _ in range(4):
            scenario.send(MAILS // 4, mailer_id=world.mailer())
        before = rows_of_knocks(world)
        with ThreadPoolExecutor(1) as caller:
            knocking = caller.submit(knock, world, scenario, 2.0)
            time.sleep(0.3)
            world.kill("postgres")
            statuses = knocking.result()
        wait_until(world.answers, "the API is ready")
        scenario.mended()
        assert 503 in statuses
        assert set(statuses) <= {202, 503}
        # An answer that was lost with its connection may belong to a commit that was not.
        assert statuses.count(202) <= rows_of_knocks(world) - before <= statuses.count(202) + 1


@pytest.mark.parametrize(
    ("fault", "broken"), [("cut", "PostgreSQL out of reach"), ("hang", "PostgreSQL behind a black hole")]
)
def test_r12_what_was_on_the_wire_while_the_database_was_away_is_written_down_when_it_is_back(
    world: World, fault: str, broken: str
) -> None:
    with world.scenario("R12", f"{broken} for {AWAY_SECONDS:.0f} s while mail flows") as scenario:
        mailers = [world.mailer() for _ in range(3)]
        for mailer in mailers:
            scenario.send(MAILS // 3, mailer_id=mailer)
        getattr(world.database, fault)()
        time.sleep(AWAY_SECONDS)
        world.database.mend()
        wait_until(world.answers, "the API is ready")
        scenario.mended()


@contextmanager
def setting(world: World, name: str, value: str) -> Iterator[None]:
    """A setting of the server, for every session."""
    with world.connect() as connection:
        connection.execute(psycopg.sql.SQL("alter system set {} = {}").format(psycopg.sql.Identifier(name), value))
        connection.execute("select pg_reload_conf()")
    try:
        yield
    finally:
        with world.connect() as connection:
            connection.execute("set default_transaction_read_only = off")
            connection.execute(psycopg.sql.SQL("alter system reset {}").format(psycopg.sql.Identifier(name)))
            connection.execute("select pg_reload_conf()")


def test_r12_a_database_that_only_reads_is_waited_for(world: World) -> None:
    with world.scenario("R12", f"PostgreSQL read-only for {AWAY_SECONDS:.0f} s while mail flows") as scenario:
        for _ in range(3):
            scenario.send(MAILS // 3, mailer_id=world.mailer())
        before = rows_of_knocks(world)
        with setting(world, "default_transaction_read_only", "on"):
            time.sleep(0.5)
            statuses = knock(world, scenario, AWAY_SECONDS)
        scenario.mended()
        assert set(statuses) == {503}
        assert rows_of_knocks(world) == before


def test_r12_a_database_without_free_connections_is_waited_for(world: World) -> None:
    with world.scenario("R12", f"no connection to be had for {AWAY_SECONDS:.0f} s") as scenario, ExitStack() as taken:
        world.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'postroad%%'")
        with suppress(psycopg.OperationalError):
            while True:
                taken.enter_context(world.connect())
        statuses = knock(world, scenario, AWAY_SECONDS)
        taken.close()
        wait_until(world.answers, "the API is ready")
        for _ in range(3):
            scenario.send(MAILS // 3, mailer_id=world.mailer())
        scenario.mended()
        assert set(statuses) <= {202, 503}


def test_r12_deadlocks_and_serialization_failures_are_tried_again(world: World) -> None:
    with world.scenario("R12", "every 3rd write to messages is a deadlock or serialization failure") as scenario:
        world.sql("create sequence unlucky")
        world.sql("""
            create function stumble() returns trigger language plpgsql as $$ declare n bigint := nextval('unlucky');
            begin
                if n % 3 = 0 then raise exception using errcode = case n % 2 when 0 then '40P01' else '40001' end; end if;
                return null;
            end $$
        """)
        world.sql("create trigger stumble before update on message for each statement execute function stumble()")
        try:
            for _ in range(6):
                scenario.send(MAILS // 6, mailer_id=world.mailer())
            time.sleep(AWAY_SECONDS)
        finally:
            world.sql("drop trigger stumble on message")
            world.sql("drop function stumble()")
            world.sql("drop sequence unlucky")
        scenario.mended()


@pytest.mark.parametrize(
    ("what", "after", "at"),
    [
        ("intake", b"insert into submission", b"COMMIT"),
        ("claim", b"with head as materialized", b"as materialized"),
        ("outcome", b"verdict as materialized", b"as materialized"),
        ("follow-up", b"delete from followup", b"COMMIT"),
    ],
)
def test_r14_a_commit_whose_answer_is_lost_counts_once(world: World, what: str, after: bytes, at: bytes) -> None:
    with world.scenario("R14", f"the answer to the commit of the {what} is lost") as scenario:
        forget_prepared_statements(world)
        mailer = world.mailer()
        world.database.swallow(after, at)
        body, key = scenario.body(50, mailer_id=mailer), str(uuid4())
        answer = world.client.send(body, Idempotency_Key=key)
        if what == "intake":
            assert answer.status_code == 503
            answer = world.client.send(body, Idempotency_Key=key)
            assert answer.headers["Idempotency-Replayed"] == "true"
        assert answer.status_code == 202
        scenario.promised += 50
        wait_until(lambda: world.database.swallowed, "the answer is lost")
        scenario.mended()


def forget_prepared_statements(world: World) -> None:
    """New connections everywhere: the text of a prepared statement does not pass the wire again."""
    world.sql("""
        select pg_terminate_backend(pid) from pg_stat_activity
        where application_name like 'postroad %%' and application_name <> 'postroad heartbeat'
    """)
    wait_until(world.answers, "the API is ready")


@pytest.fixture
def small_disk(world: World, scratch: Path) -> Iterator[Path]:
    """A small file system, with room for what earlier tests have left in the table, where this machine lets us make one."""
    place = scratch / "small"
    place.mkdir(mode=0o755)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("making a small file system takes the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(file: Path) -> None:
    """Writes until nothing more fits."""
    with suppress(OSError), file.open("wb", buffering=0) as filler:
        while True:
            filler.write(b"\0" * 4096)


def test_r31_a_full_disk_is_a_503_at_intake_and_waited_for_by_the_workers(world: World, small_disk: Path) -> None:
    with world.scenario("R31", f"no space left for the messages for {AWAY_SECONDS:.0f} s") as scenario:
        owner = psutil.Process(world.pid("postgres")).uids().real
        space = small_disk / "space"
        space.mkdir()
        shutil.chown(space, owner, owner)
        with world.connect() as connection:
            place = psycopg.sql.Literal(str(space))
            connection.execute(psycopg.sql.SQL("create tablespace small location {}").format(place))
        world.sql("alter table message set tablespace small")
        mailers = [world.mailer() for _ in range(3)]
        try:
            for mailer in mailers:
                scenario.send(MAILS // 3, mailer_id=mailer)
            fill(small_disk / "filler")
            statuses = []
            until = time.monotonic() + AWAY_SECONDS
            while time.monotonic() < until:
                answer = world.client.send(scenario.body(100, mailer_id=mailers[0]))
                statuses.append(answer.status_code)
                scenario.promised += 100 * (answer.status_code == 202)
            (small_disk / "filler").unlink()
            scenario.mended()
            assert 503 in statuses
            assert set(statuses) <= {202, 503}
            scenario.settle()
        finally:
            world.sql("alter table message set tablespace pg_default")
            world.sql("drop tablespace small")
