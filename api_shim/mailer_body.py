"""What a mailer is made from and what can be changed of it, as request bodies."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api_shim.mailer_pools import Pool
from api_shim.text import Domain, Email, Name
from models.mailer import OnUncertain

Url = Annotated[str, StringConstraints(max_length=2000, strip_whitespace=True, pattern=r"^[\x21-\x7e]+$")]
Cap = Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)]

COLUMNS = {"from_": "from_addresses", "default": "is_default"}
"""Fields of a body whose column has another name."""


class Caps(BaseModel):
    """Limits of one mailer; null is the provider's own."""

    model_config = ConfigDict(extra="forbid")

    per_second: Cap | None = None
    per_minute: Cap | None = None
    per_day: Cap | None = None
    connections: Annotated[int, Field(ge=1, le=100, strict=True)] | None = None


class MailerChange(BaseModel):
    """What can be changed; a field that is left out stays as it is. Lists and objects are replaced as a whole."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"name": "relay", "caps": {"per_second": 50, "connections": 4}}}
    )

    name: Name = ""
    from_: Annotated[list[Email], Field(alias="from", max_length=1000)] = []
    domains: Annotated[list[Domain], Field(max_length=1000)] = []
    default: Annotated[bool, Field(strict=True)] = False
    credentials: dict[str, Any] = {}
    base_url: Url | None = None
    auth_url: Url | None = None
    caps: Caps = Caps()
    on_uncertain: OnUncertain = OnUncertain.HOLD
    user_id: UUID | None = None
    fallback_id: UUID | None = None
    ip_pools: Annotated[dict[Name, Pool], Field(max_length=100)] = {}
    tracking_domain: Url | None = None
    return_path_domain: Domain | None = None
    """Bounces come back to an address of their own at this domain, whose MX is ``postroad inbound``; SMTP only."""

    reply_domain: Domain | None = None
    """Answers come back to an address of their own at this domain, unless the caller gives a Reply-To."""

    def columns(self) -> dict[str, Any]:
        """Column -> value of every field that was given, but for the credentials."""
        given = self.model_dump(exclude_unset=True, exclude={"credentials", "provider"})
        return {COLUMNS.get(name, name): value for name, value in given.items()}


class MailerNew(MailerChange):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "provider": "smtp",
                "name": "relay",
                "from": ["hello@example.com"],
                "domains": ["example.com"],
                "credentials": {"host": "smtp.example.com", "port": 587, "security": "starttls"},
                "caps": {"per_second": 50, "connections": 4},
            }
        }
    )

    provider: str
    credentials: dict[str, Any]
