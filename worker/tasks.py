"""The table of contents: every task.

A task hears a bell, does the due work of its lane, and rings again if there may be more. What a newer version's bell
says beyond that is not for us.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog
from celery import Celery

from worker import collect, delivery, record, reports
from worker.bell import FOLLOWUP_LANE, REPORTS_LANE, Lane, endpoint_lane, inbox_lane, send_lane
from worker.deadline import deadline
from worker.runtime import Runtime

log = structlog.get_logger()


def register(app: Celery, runtime: Callable[[], Runtime]) -> None:
    """Gives the app its tasks. ``runtime`` opens this process' runtime on first use, after any fork."""

    def deliver(lane: str, bell: str, *_more: Any, **_named: Any) -> None:
        """Sends what is due in one lane (a mailer's mail of one priority)."""
        mailer_id, _, priority = lane.partition(":")
        answer(
            send_lane(UUID(mailer_id), int(priority)),
            bell,
            lambda: delivery.deliver(runtime(), UUID(mailer_id), int(priority)).more,
        )

    def record_outcomes(_lane: str, bell: str, *_more: Any, **_named: Any) -> None:
        """Writes log, activities, threads, events and webhook deliveries of what reached an outcome."""
        answer(FOLLOWUP_LANE, bell, lambda: record.record(runtime()).more)

    def apply_reports(_lane: str, bell: str, *_more: Any, **_named: Any) -> None:
        """Applies what providers reported: delivery, bounces, complaints, mail that came in."""
        answer(REPORTS_LANE, bell, lambda: reports.apply_reports(runtime()) > 0)

    def notify(lane: str, bell: str, *_more: Any, **_named: Any) -> None:
        """Delivers one webhook endpoint's due events."""
        aside(endpoint_lane(UUID(lane)), bell, lambda: runtime().notifier.deliver(UUID(lane)))

    def collect_mail(mailer: str, bell: str, *_more: Any, **_named: Any) -> None:
        """Looks into a mailbox and fetches the mail that came in."""
        aside(inbox_lane(UUID(mailer)), bell, lambda: collect.collect(runtime(), UUID(mailer)))

    def aside(lane: Lane, bell: str, work: Callable[[], bool]) -> None:
        answer(lane, bell, lambda: runtime().siding.run(lane, work))

    def answer(lane: Lane, bell: str, work: Callable[[], bool]) -> None:
        bells = runtime().bells
        bells.answer(lane, bell)
        bound = structlog.contextvars.bound_contextvars(task=lane.task, lane=lane.subject)
        with bound, runtime().activity.task(), deadline(runtime().settings.lease_seconds):
            more = work()
        if more:
            bells.ring(lane)

    app.task(name="deliver")(deliver)
    app.task(name="record")(record_outcomes)
    app.task(name="apply_reports")(apply_reports)
    app.task(name="notify")(notify)
    app.task(name="collect")(collect_mail)
