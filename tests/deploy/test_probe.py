"""Liveness probes: a worker is judged by its work, not by its pulse."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, NullPool, create_engine, text

from deploy.commands.processes import beat, worker
from deploy.probe import probe_beat, probe_worker
from tests.worker.house import settings_for
from worker.activity import Activity
from worker.settings import Settings

HERE = "pod-1"
FOLLOWUP = ["followup"]


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    return settings_for(database_url, redis_url)


@pytest.fixture
def engine(settings: Settings) -> Engine:
    engine = create_engine(settings.sqlalchemy_url, poolclass=NullPool)
    with engine.begin() as connection:
        for table in ("worker_heartbeat", "followup", "queue_sample"):
            connection.execute(text(f"delete from {table}"))
    return engine


Seen = Callable[..., None]


@pytest.fixture
def seen(engine: Engine) -> Seen:
    def note(*, idle: float, seconds_ago: float = 0.0, host: str = HERE) -> None:
        with engine.begin() as connection:
            connection.execute(
                text("""
                    insert into worker_heartbeat (name, queues, lock_key, seen_at, idle_seconds)
                    values (:name, '{followup}', 1, clock_timestamp() - :ago, :idle)
                """),
                {"name": f"{host}:{idle}", "ago": timedelta(seconds=seconds_ago), "idle": idle},
            )

    return note


def _wait_in_vain(engine: Engine, seconds: float = 60.0) -> None:
    """An outcome that has been due for so long, with nobody at it."""
    with engine.begin() as connection:
        connection.execute(
            text("insert into followup (message_ids, due_at) values ('{}', clock_timestamp() - :ago)"),
            {"ago": timedelta(seconds=seconds)},
        )


def test_a_worker_that_does_nothing_while_work_waits_fails(engine: Engine, seen: Seen, settings: Settings) -> None:
    seen(idle=61)
    _wait_in_vain(engine)
    fault = probe_worker(settings, FOLLOWUP, HERE)
    assert fault == "Due work of followup waits, and the worker on pod-1 has done nothing for 61 s."


def test_a_busy_worker_is_well_however_much_waits(engine: Engine, seen: Seen, settings: Settings) -> None:
    seen(idle=0)
    seen(idle=500)  # another child of it, which has had no luck
    _wait_in_vain(engine)
    assert probe_worker(settings, FOLLOWUP, HERE) is None


def test_a_worker_without_work_is_well(engine: Engine, seen: Seen, settings: Settings) -> None:
    seen(idle=86_400)
    assert probe_worker(settings, FOLLOWUP, HERE) is None
    _wait_in_vain(engine, 5)
    assert probe_worker(settings, FOLLOWUP, HERE) is None


def test_a_worker_that_is_silent_or_elsewhere_fails(engine: Engine, seen: Seen, settings: Settings) -> None:
    seen(idle=0, seconds_ago=20)
    seen(idle=0, host="pod-2")
    assert probe_worker(settings, FOLLOWUP, HERE) == "No worker of followup on pod-1 was heard of for 15 s."
    assert probe_worker(settings, FOLLOWUP, "pod-2") is None
    assert probe_worker(settings, ["webhooks"], "pod-2") is not None


def test_no_worker_is_restarted_because_the_database_is_away(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/none"})
    assert probe_worker(away, FOLLOWUP, HERE) is None
    assert probe_beat(away) is None


def test_the_beat_fails_once_it_stops_measuring(engine: Engine, settings: Settings) -> None:
    assert probe_beat(settings) == "The beat has never measured the queues."
    with engine.begin() as connection:
        connection.execute(
            text("""
                insert into queue_sample (queue, at, ready, scheduled, in_flight, oldest_age_seconds, in_per_second,
                                          out_per_second)
                values ('followup', clock_timestamp(), 0, 0, 0, 0, 0, 0)
            """)
        )
    assert probe_beat(settings) is None


def test_the_commands_say_what_is_wrong_and_end_with_1(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("database_url", "redis_url", "secret_keys"):
        monkeypatch.setenv(f"POSTROAD_{name.upper()}", getattr(settings, name))
    done = CliRunner().invoke(worker, ["--queues", "followup", "--check"])
    assert (done.exit_code, "No worker of followup" in done.output) == (1, True)
    done = CliRunner().invoke(beat, ["--check"])
    assert (done.exit_code, "never measured" in done.output) == (1, True)


def test_a_process_is_idle_from_the_end_of_its_last_task() -> None:
    activity = Activity()
    with activity.task():
        with activity.task():
            pass
        assert activity.idle_seconds == 0
    assert 0 < activity.idle_seconds < 60
