"""Why a message is where it is: `explain` reads the facts, asks the rules, and says when it will be sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
from sqlalchemy.orm import Session

from api_shim.explain.cause import Cause
from api_shim.explain.facts import read
from api_shim.explain.finished import causes_of_the_end
from api_shim.explain.forecast import Forecast, forecast
from api_shim.explain.waiting import causes_of_waiting
from models.base import ulid
from models.message import OPEN, Message
from worker.pace import Pace


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The causes in the order in which they have to end, and when it will be sent."""

    message: Message
    causes: Sequence[Cause]
    eta: Forecast | None

    @property
    def summary(self) -> str:
        return self.causes[0].what

    @property
    def next_step(self) -> str:
        """What to do first; where nothing has to be done, that."""
        return next((cause.do for cause in self.causes if cause.do), "Nothing.")

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.message.id,
            "ref_id": ulid(self.message.submission_id),
            "state": self.message.state,
            "finished": self.message.state not in OPEN,
            "summary": self.summary,
            "causes": [cause.as_json() for cause in self.causes],
            "eta": self.eta.as_json() if self.eta else None,
            "next_step": self.next_step,
        }


def explain(session: Session, message: Message, pace: Pace, client: redis.Redis) -> Explanation:
    """Explains one message. ``client``: the Redis of limits and bells; that it is away is a cause like others."""
    facts = read(session, message, pace, client)
    causes = list(causes_of_waiting(facts) if message.state in OPEN else causes_of_the_end(facts))
    return Explanation(message=message, causes=causes, eta=forecast(facts, causes))
