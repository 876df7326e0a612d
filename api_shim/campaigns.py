"""Campaigns: holding all of one's mail back, letting it go again, and cancelling it.

The status is committed first. From then on nothing of the campaign becomes due, whatever moves it: intake, a worker's
verdict and every move read the status under a lock that the change of the status waits for. What was due or in a
worker's hand before is then moved, and what is on the wire is waited for.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from models.message import UNTIL_SOMEBODY_ACTS, Campaign, CampaignStatus, Submission
from worker.bell import Lane
from worker.moves import Move, Moved, in_groups, ledger, move_some, unsettled

NO_CAMPAIGN = "NIL"

WAIT_SECONDS = 15.0
"""How long to wait for what is on the wire."""
POLL_SECONDS = 0.05


def status_held(session: Session, workspace_id: UUID, campaign_id: str) -> str:
    """The status of the campaign that a submission names. It cannot change before the transaction ends."""
    if campaign_id == NO_CAMPAIGN:
        return CampaignStatus.ACTIVE
    held = select(Campaign.status).where(Campaign.workspace_id == workspace_id, Campaign.id == campaign_id)
    held = held.with_for_update(read=True)
    status = session.scalar(held)
    if status is None:
        new = insert(Campaign).values(workspace_id=workspace_id, id=campaign_id)
        session.execute(new.on_conflict_do_nothing())
        status = session.execute(held).scalar_one()
    return status


def due_under(status: str, due: datetime) -> datetime:
    """When a message of a campaign in this status is due."""
    return UNTIL_SOMEBODY_ACTS if status == CampaignStatus.PAUSED else due


def submissions_of(session: Session, workspace_id: UUID, campaign_id: str) -> list[tuple[UUID, int]]:
    """Its submissions, each with its number of messages, in the order in which they came."""
    query = select(Submission.id, Submission.total).where(
        Submission.workspace_id == workspace_id, Submission.campaign_id == campaign_id
    )
    return [(row.id, row.total) for row in session.execute(query.order_by(Submission.id))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """Moves the mail of some submissions, in transactions of its own, as long as ``still_wanted`` holds.

    still_wanted: asked in each transaction; False ends the work, because somebody decided otherwise meanwhile.
    """

    session: Session
    submissions: Sequence[tuple[UUID, int]]
    still_wanted: Callable[[], bool] = lambda: True

    def go(self, move: Move, **values: Any) -> tuple[int, frozenset[Lane]]:
        """One pass over all messages: how many were moved, and the lanes they are in."""
        count, lanes = 0, frozenset[Lane]()
        for moved in self._chunks(move, values):
            count, lanes = count + moved.count, lanes | moved.lanes
        return count, lanes

    def stop(self, move: Move, **values: Any) -> int:
        """Moves until nothing is left that could leave; waits up to `WAIT_SECONDS` for what is on the wire."""
        deadline = time.monotonic() + WAIT_SECONDS
        stopped = 0
        while True:
            count, _ = self.go(move, **values)
            stopped += count
            if not self._unsettled(move) or time.monotonic() >= deadline or not self._wanted():
                return stopped
            if not count:
                time.sleep(POLL_SECONDS)

    def ledger(self) -> dict[str, Any]:
        return ledger(self.session, [id_ for id_, _ in self.submissions])

    def _chunks(self, move: Move, values: dict[str, Any]) -> Iterator[Moved]:
        chunks = move_some(self.session, move, in_groups(self.submissions), **values)
        while self.still_wanted():
            moved = next(chunks, None)
            self.session.commit()
            if moved is None:
                return
            yield moved
        self.session.commit()

    def _wanted(self) -> bool:
        wanted = self.still_wanted()
        self.session.commit()
        return wanted

    def _unsettled(self, move: Move) -> bool:
        found = unsettled(self.session, move, [id_ for id_, _ in self.submissions])
        self.session.commit()
        return found


def set_status(session: Session, workspace_id: UUID, campaign_id: str, status: str) -> str:
    """Sets the status unless the campaign is cancelled, which is for good. Returns what it is now.

    The caller commits at once: senders wait for it.
    """
    key = (Campaign.workspace_id == workspace_id, Campaign.id == campaign_id)
    row = session.scalars(select(Campaign).where(*key).with_for_update()).one()
    if row.status != CampaignStatus.CANCELLED:
        row.status = status
    return row.status
