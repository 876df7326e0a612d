"""Cancelling or retrying many messages at once: whatever a filter finds, in chunks that commit one by one."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api_shim.campaigns import due_under, status_held
from api_shim.message_filter import Condition
from models.message import CampaignStatus, Message, State, Submission
from worker.bell import Lane
from worker.moves import CANCEL, RETRY, Move, move_these

CHUNK: Final = 1_000
"""Messages moved in one transaction."""
_FIRST: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done, and the states in which it can be."""

    move: Move
    states: Sequence[State]


ORDERS: Final = {
    "cancel": Order(CANCEL, (State.QUEUED, State.CLAIMED)),
    "retry": Order(RETRY, (State.FAILED, State.SUPPRESSED)),
}


@dataclass(slots=True, kw_only=True)
class Bulk:
    """One order about the messages for which all conditions hold; these name the workspace."""

    session: Session
    workspace_id: UUID
    conditions: Sequence[Condition]
    order: Order

    def count(self) -> int:
        """How many it is about."""
        return int(self.session.scalar(select(func.count()).select_from(Message).where(*self._where)) or 0)

    def carry_out(self, reason: str) -> tuple[int, set[Lane]]:
        """How many were moved, and the lanes of those that are due. Commits chunk by chunk.

        What a worker takes in hand meanwhile is left to it; a retry of a cancelled campaign's mail is left out.
        """
        count, lanes = 0, set[Lane]()
        for chunk in self._chunks():
            for campaign_id, ids in chunk.items():
                number, found = self._move(campaign_id, ids, reason, count)
                count += number
                lanes |= found
            self.session.commit()
        return count, lanes

    @property
    def _where(self) -> list[Condition]:
        return [*self.conditions, Message.state.in_(self.order.states)]

    def _chunks(self) -> Iterator[dict[str, list[UUID]]]:
        """Ids by campaign, in their order, each once."""
        after = _FIRST
        while True:
            query = select(Message.id, Submission.campaign_id).join(Submission, Submission.id == Message.submission_id)
            query = query.where(*self._where, Message.id > after).order_by(Message.id).limit(CHUNK)
            rows = self.session.execute(query).all()
            if not rows:
                return
            after = rows[-1].id
            chunk: defaultdict[str, list[UUID]] = defaultdict(list)
            for id_, campaign_id in rows:
                chunk[campaign_id].append(id_)
            yield chunk

    def _move(self, campaign_id: str, ids: Sequence[UUID], reason: str, done: int) -> tuple[int, frozenset[Lane]]:
        values: dict[str, Any] = {"reason": reason}
        if self.order.move is RETRY:
            status = status_held(self.session, self.workspace_id, campaign_id)
            if status == CampaignStatus.CANCELLED:
                return 0, frozenset()
            # A microsecond apart over all chunks, so that they leave in order.
            values["due"] = due_under(status, datetime.now(UTC) + timedelta(microseconds=done))
        moved = move_these(self.session, self.order.move, ids, **values)
        return moved.count, moved.lanes
