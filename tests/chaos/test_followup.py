"""What follows from an outcome is refused for a while. The mail went out, and is in the log once in the end."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from tests.chaos.world import LONG, World

pytestmark = pytest.mark.stack

MAILS = 1_000 if LONG else 200
CALLERS = 20
REFUSED_SECONDS = 60.0 if LONG else 3.0


@contextmanager
def log_refuses(world: World) -> Iterator[None]:
    """Every insert into the log fails, as on a full or broken disk."""
    world.sql("""
        create function refuse() returns trigger language plpgsql as $$
        begin raise exception using errcode = '53100', message = 'no space left on device'; end $$
    """)
    world.sql("create trigger refuse before insert on email_log for each statement execute function refuse()")
    try:
        yield
    finally:
        world.sql("drop trigger refuse on email_log")
        world.sql("drop function refuse()")


def test_r32_mail_that_cannot_be_logged_is_sent_once_and_logged_once_when_the_log_recovers(world: World) -> None:
    with world.scenario(
        "R32", f"the log refuses writes for {REFUSED_SECONDS:.0f} s, {CALLERS} callers wait"
    ) as scenario:
        mailer = world.mailer()
        with log_refuses(world):
            until = time.monotonic() + REFUSED_SECONDS
            scenario.send(MAILS, mailer_id=mailer)
            with ThreadPoolExecutor(CALLERS) as callers:
                answers = list(callers.map(lambda number: ask(world, number), range(CALLERS)))
            time.sleep(max(0.0, until - time.monotonic()))
        scenario.mended()
        assert {answer.status_code for answer in answers} == {422}
        assert {answer.json()["error"] for answer in answers} == {"EMAIL_LOG_FAILED"}
        assert [len(world.client.inbox(address(number))) for number in range(CALLERS)] == [1] * CALLERS
    assert events_about(world, scenario.campaign) == {"log_failed": MAILS, "log_repaired": MAILS}


def address(number: int) -> str:
    return f"r32-{number}@example.com"


def ask(world: World, number: int) -> requests.Response:
    """A request of the crm shape, which waits for the log row."""
    body = {"to_email": address(number), "subject": "Hello", "html_body": "<p>Hello</p>"}
    url = f"{world.stack.json['api']}/v1/email/send"
    return requests.post(url, json=body, headers=world.stack.auth, timeout=30)


def events_about(world: World, campaign: str) -> Counter[str]:
    rows = world.sql(
        """select e.type, count(*) from event e join submission s on s.id = e.submission_id
           where s.campaign_id = %s and e.type in ('log_failed', 'log_repaired') group by 1""",
        campaign,
    )
    return Counter(dict(rows))
