"""Who of a mail's recipients gets nothing, and what becomes of a mail that has nobody left."""

from collections.abc import Iterable, Mapping

from models.message import State
from providers.base import Result
from worker.domains import Domains
from worker.lease import Held
from worker.validation import refusal
from worker.wishes import Wishes

DNS_SECONDS = 3.0
"""Longest that a batch waits for the DNS; shorter than a task, so that every batch sends something."""


def stopped(message: Held, wishes: Wishes, list_id: str, refused: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The recipients that get nothing, each with its outcome."""
    found = {}
    for address in message.pending:
        if why := wishes.why_not(address, list_id):
            found[address] = {"outcome": State.SUPPRESSED.value, "detail": why}
        elif refused and (why := refused.get(domain_of(address))):
            found[address] = {"outcome": State.SKIPPED.value, "detail": f"invalid recipient: {why}"}
    return found


def undeliverable(domains: Domains, messages: Iterable[Held]) -> dict[str, str]:
    """Why mail to a domain surely cannot be delivered, of the domains that these are to go to. Asks the DNS."""
    asked = {domain_of(address) for message in messages for address in message.pending}
    found = domains.look_up(asked, DNS_SECONDS) if asked else {}
    return {domain: why for domain, mail in found.items() if (why := refusal(domain, mail))}


def state_without_recipients(message: Held) -> State:
    """What became of a message that has nobody left to go to. A suppression may be lifted, so it comes first."""
    outcomes = {one["outcome"] for one in message.outcomes.values()}
    if Result.ACCEPTED in outcomes:
        return State.SENT
    return State.SKIPPED if State.SKIPPED in outcomes and State.SUPPRESSED not in outcomes else State.SUPPRESSED


def domain_of(address: str) -> str:
    return address.rpartition("@")[2].lower()
