"""Who of a mail's recipients gets nothing, and what becomes of a mail that has nobody left."""

from collections.abc import Mapping

from models.message import State
from providers.base import Result
from worker.lease import Held
from worker.wishes import Wishes


def stopped(message: Held, wishes: Wishes, list_id: str, refused: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The recipients that get nothing, each with its outcome."""
    found = {}
    for address in message.pending:
        if why := wishes.why_not(address, list_id):
            found[address] = {"outcome": State.SUPPRESSED.value, "detail": why}
        elif refused and (why := refused.get(domain_of(address))):
            found[address] = {"outcome": State.SKIPPED.value, "detail": f"invalid recipient: {why}"}
    return found


def state_without_recipients(message: Held) -> State:
    """What became of a message that has nobody left to go to. A suppression may be lifted, so it comes first."""
    outcomes = {one["outcome"] for one in message.outcomes.values()}
    if Result.ACCEPTED in outcomes:
        return State.SENT
    return State.SKIPPED if State.SKIPPED in outcomes and State.SUPPRESSED not in outcomes else State.SUPPRESSED


def domain_of(address: str) -> str:
    return address.rpartition("@")[2].lower()
