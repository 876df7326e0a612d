"""``POST /v1/email/validate``: what is to be said about addresses before anything is sent to them."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from api_shim.auth import Caller
from api_shim.http import caller_with, services
from api_shim.shapes.addresses import normalised
from api_shim.text import Text
from worker.domains import Domains
from worker.validation import AddressVerdict, examine, malformed

router = APIRouter(prefix="/email", tags=["email"])
Sender = Annotated[Caller, caller_with("email:send")]

MOST = 100
"""Addresses in one call."""

SECONDS = 3.0
"""Longest that the DNS is waited for; what it has not said by then is unknown."""


class Addresses(BaseModel):
    """Addresses to examine."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"example": {"emails": ["ann@example.com", "bob@gmial.com", "not an address"]}},
    )

    emails: list[Annotated[Text, Field(max_length=1000)]] = Field(min_length=1, max_length=MOST)
    """What is no address is answered as invalid."""


@router.post("/validate")
def validate_addresses(body: Addresses, request: Request, caller: Sender) -> dict[str, Any]:  # noqa: ARG001 -- the scope
    """Examines up to 100 addresses: syntax, mail servers, disposable domains, functions, misspellings.

    `verdict` is `valid`, `risky`, `unknown` (the DNS said nothing clear in time, or is not asked: `.test`, `.example`,
    `.invalid`, `.localhost` and example.com) or `invalid`. Only the invalid are skipped under `settings.validate`.
    """
    found = examined(services(request).domains, body.emails, SECONDS)
    return {"data": [_shown(verdict) for verdict in found], "next_cursor": None}


def examined(domains: Domains, emails: list[str], seconds: float) -> list[AddressVerdict]:
    """A verdict on each address, in the same order, within so many seconds."""
    good = [(email, normalised(email.strip())) for email in emails]
    mail = domains.look_up({_domain(address) for _, address in good if address}, seconds)
    return [examine(address, mail[_domain(address)]) if address else malformed(email) for email, address in good]


def _domain(address: str) -> str:
    return address.rpartition("@")[2]


def _shown(verdict: AddressVerdict) -> dict[str, Any]:
    return {
        "email": verdict.email,
        "verdict": verdict.standing,
        "reason": verdict.reason,
        "suggestion": verdict.suggestion,
        "hints": list(verdict.hints),
    }
