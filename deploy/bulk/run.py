"""Sends a plan and follows it to its end, or to Ctrl-C."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from deploy.bulk.journal import REMEMBERED, Journal
from deploy.bulk.plan import Chunk, Plan
from deploy.bulk.recipients import BulkError
from deploy.commands.outcome import unfinished
from deploy.commands.remote import PATIENCE_SECONDS, Refused, Remote, Unreachable, path_of
from models.message import State

POLL_SECONDS = 1.0
SERVER_ERRORS = 500


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")


def new_progress() -> Progress:
    """A bar with rate and time left on stderr, where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


class Run:
    """One plan on its way."""

    def __init__(self, remote: Remote, plan: Plan, journal: Journal, progress: Progress) -> None:
        self._remote = remote
        self._plan = plan
        self._journal = journal
        self._progress = progress
        self._task = progress.add_task(plan.campaign_id, total=len(plan.recipients))
        self._found: dict[str, dict[str, Any]] = {}
        """By ref_id: the submission as it was last seen."""
        self._held = 0
        self.interrupted = threading.Event()
        """Ctrl-C was pressed; what is in hand is finished first, so that it is known."""

    def begin(self, *, resume: bool) -> None:
        """Refuses what could send twice, or what somebody paused. Raises BulkError, which says what to do."""
        campaign = self._campaign()
        if campaign is None:
            return
        if self._journal.is_new and datetime.now(UTC) - datetime.fromisoformat(campaign["created_at"]) > REMEMBERED:
            raise BulkError(
                f"Campaign {campaign['id']} is older than a day, and this machine has no record of how much of the "
                "file it has got. Send the file under another --campaign."
            )
        if campaign["status"] == "paused":
            if not resume:
                raise BulkError(f"Campaign {campaign['id']} is paused. Repeat the command with --resume.")
            self._remote.post(path_of("campaigns", campaign["id"], "resume"))

    def go(self) -> dict[str, Any]:
        """Sends what was not sent, waits for all of it, or for Ctrl-C; says what became of it."""
        began = time.monotonic()
        with self._listening():
            complete = self._submit()
            waiting = self._look()
            while waiting and not self.interrupted.wait(POLL_SECONDS):
                waiting = self._look()
            paused = waiting or not complete
            if paused:
                self._pause()
        return self._summary(time.monotonic() - began, paused=paused)

    def _submit(self) -> bool:
        """Sends the requests that were not taken yet; False if Ctrl-C came before the last."""
        for chunk in self._plan.chunks():
            if self._journal.has(chunk):
                continue
            if self.interrupted.is_set():
                return False
            self._journal.begin(chunk)
            try:
                self._journal.take(chunk, self._send(chunk))
            except Refused as error:
                if error.status < SERVER_ERRORS:
                    self._journal.withdraw(chunk)
                raise
            self._look()
        return True

    def _send(self, chunk: Chunk) -> str:
        """The ref_id. Asks again while nobody answers: under its key it is taken once."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                ref_id: str = self._remote.post("/v1/email/send", chunk.body, Idempotency_Key=chunk.key)["ref_id"]
            except Unreachable:
                if time.monotonic() > deadline or self.interrupted.wait(POLL_SECONDS):
                    raise
            else:
                return ref_id

    def _look(self) -> bool:
        """Looks at what was unfinished; whether there is anything to wait for."""
        for ref_id in self._journal.ref_ids:
            if self._found.get(ref_id, {}).get("finished_at") is None:
                self._found[ref_id] = self._remote.get(path_of("submissions", ref_id))
        counts = self._counts()
        self._progress.update(self._task, completed=sum(counts.values()) - unfinished(counts))
        self._held = self._count_held() if 0 < unfinished(counts) == counts[State.UNCERTAIN] else 0
        return unfinished(counts) > self._held

    def _count_held(self) -> int:
        """Uncertain mails that wait for a person, however long that takes."""
        uncertain = (ref_id for ref_id, found in self._found.items() if found["counts"][State.UNCERTAIN])
        rows = (self._remote.rows("/v1/messages", ref_id=ref_id, state="uncertain") for ref_id in uncertain)
        return sum(row["held"] for page in rows for row in page)

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for found in self._found.values():
            counts.update(found["counts"])
        return counts

    def _campaign(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._remote.get(path_of("campaigns", self._plan.campaign_id))
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return found

    def _pause(self) -> None:
        """Holds back what has not left. There is nothing to hold where no request was taken."""
        if self._campaign() is not None:
            self._remote.post(path_of("campaigns", self._plan.campaign_id, "pause"))
        self._look()

    def _summary(self, seconds: float, *, paused: bool) -> dict[str, Any]:
        return {
            "campaign_id": self._plan.campaign_id,
            "recipients": len(self._plan.recipients),
            "submissions": self._journal.ref_ids,
            "counts": dict(self._counts()),
            "held": self._held,
            "paused": paused,
            "seconds": round(seconds, 1),
        }

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """The first Ctrl-C asks for the end; a second one ends the process as usual."""

        def stop(*_: object) -> None:
            self.interrupted.set()
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
