"""Every setting, read once from ``POSTROAD_*`` variables. No other module reads the environment."""

import ipaddress
from datetime import timedelta
from functools import cached_property
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from providers.guard import Guard, parse_hosts
from worker.faults import parse_plan


class Settings(BaseSettings):
    """Typed, frozen configuration of every process."""

    model_config = SettingsConfigDict(env_prefix="POSTROAD_", frozen=True, extra="ignore", hide_input_in_errors=True)

    database_url: str = Field(repr=False)
    """``postgresql://...``; several hosts in one URL fail over."""
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", repr=False)
    """Limits, bells. Nothing in it is the only copy of anything."""
    broker_url: str | None = Field(default=None, repr=False)
    """Celery's broker where it is not ``redis_url``."""
    secret_keys: str = Field(repr=False)
    """Comma-separated Fernet keys that seal credentials; the first seals, all open.

    Rotate by adding a new one at the end, then putting it first; see docs/operating.md.
    """
    public_url: str = "http://127.0.0.1:8025"
    """Root of tracking, unsubscribe and hook URLs as the outside reaches them."""
    link_days: float | None = Field(default=None, gt=0)
    """How old a mail's pixel and tracked links may be before they answer 410; empty: any age.

    Unsubscribe links always work.
    """
    mail_domain: str = "mail.postroad.test"
    """Default domain of company addresses for new workspaces."""
    webhook_allowed_hosts: str = ""
    """Comma-separated hosts or networks that webhooks may reach although they are not public."""
    mailer_allowed_hosts: str = ""
    """The same for hosts that a mailer names: SMTP servers, API roots."""
    source_addresses: str = ""
    """Comma-separated addresses or networks that members of an IP pool may send from; empty: any of the machine's."""
    dns_servers: str = ""
    """Comma-separated ``address:port`` of the resolvers that ``settings.validate`` asks; empty: the system's.

    Only addresses, such as ``192.0.2.53:53`` or ``[2001:db8::53]:53``.
    """
    spf_mechanisms: str = Field(default="mx", pattern=r"^[\x21-\x7e]+( [\x21-\x7e]+)*$", max_length=400)
    """SPF mechanisms of the servers that mail leaves from, as ``GET /v1/domains`` asks for them.

    For example ``ip4:192.0.2.10 include:_spf.relay.example``.
    """
    mail_host: str = ""
    """Name of the host that takes mail for us: the target of MX records; empty: the host of ``public_url``."""
    phishing_threshold: int = Field(default=60, ge=1)
    """Score from which ``settings.phishing_protection`` refuses content; 0 is harmless, 100 the most. Above 100
    nothing is refused, only noted.
    """
    attachment_root: str | None = None
    """Where ``storage_path`` attachments lie: a directory, or an object store URL such as ``s3://bucket/prefix``."""
    pool_size: int = 10
    """Database connections per process."""
    lease_seconds: float = 120.0
    """How long a claim holds. Longer than any one provider call may take."""
    retry_seconds: str = "5,30,120,600,1800,7200,14400,28800"
    """Waits before the 2nd, 3rd, ... attempt after a transient failure; when used up, the message fails."""
    retry_days: float = Field(default=3.0, gt=0, le=365)
    """How long a mail is tried again that its provider only puts off, throttling included; then it fails."""
    webhook_retry_seconds: str = "5,300,1800,7200,18000,36000,36000"
    """Waits after the 1st, 2nd, ... failed try of a webhook; used up, the delivery is dead."""
    webhook_timeout_seconds: float = 15.0
    """Longest that one webhook request may take, from the name lookup to the answer."""
    webhook_disable_days: float = 5.0
    """An endpoint that has only failed for so long is disabled, with an operator event."""
    key_per_second: int = 1000
    """Default cap of submissions a second per API key."""
    key_per_day: int = 10_000_000
    """Default cap of mails a day per API key."""
    limits_when_redis_is_down: str = "open"
    """``open`` lets requests pass uncounted, ``closed`` answers 503."""
    max_body_bytes: int = 36 * 1024 * 1024
    """Largest body of a request that carries mail. All others may have 1 MB."""
    idempotency_hours: int = 24
    """How long an ``Idempotency-Key`` is remembered."""
    retention_message_days: int = Field(default=90, ge=0)
    """How long a finished mail is kept: the message with its attempts, its content, attachments that no other mail
    has. 0 keeps it for ever, here and below.
    """
    retention_log_days: int = Field(default=400, ge=0)
    """How long the log, the timelines of contacts, deals and customers, and the conversations are kept."""
    retention_event_days: int = Field(default=100, ge=0)
    """How long events and their webhook deliveries are kept."""
    retention_audit_days: int = Field(default=730, ge=0)
    """How long the audit trail is kept."""
    inbound_domains: str = ""
    """Comma-separated domains whose MX is ``postroad inbound``: mail to addresses that a mailer sends as is taken in.

    Return paths and other addresses that postroad made need none.
    """
    log_level: str = "info"
    """``debug``, ``info``, ``warning`` or ``error``."""
    otel_endpoint: str = ""
    """Root of an OTLP/HTTP receiver of traces, such as ``http://127.0.0.1:4318``; empty: none.

    Needs ``postroad[otel]``.
    """
    otel_ratio: float = Field(default=1.0, ge=0, le=1)
    """Part of the requests that are traced where the caller does not say; 0.01 is one in a hundred."""
    faults: str = ""
    """Makes processes die or freeze at named points, for tests (docs/reliability.md). Empty anywhere else."""

    @field_validator("faults")
    @classmethod
    def _is_a_plan(cls, plan: str) -> str:
        if not plan.startswith("@"):
            parse_plan(plan)
        return plan

    @field_validator("source_addresses")
    @classmethod
    def _networks(cls, value: str) -> str:
        for entry in parse_hosts(value):
            ipaddress.ip_network(entry, strict=False)
        return value

    @field_validator("retention_log_days")
    @classmethod
    def _log_outlives_mail(cls, log_days: int, given: ValidationInfo) -> int:
        message_days = given.data.get("retention_message_days", 0)
        if log_days and (message_days == 0 or message_days > log_days):
            kept = f"{message_days} days" if message_days else "for ever"
            raise ValueError(f"mails are kept {kept}, and the log must be kept as long as they are; raise it, or set 0")
        return log_days

    @classmethod
    def from_env(cls) -> Self:
        """Reads the environment. Raises pydantic.ValidationError naming each missing or wrong variable."""
        return cls()

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The secret keys, the one in use first."""
        return tuple(key.strip() for key in self.secret_keys.split(",") if key.strip())

    @property
    def broker(self) -> str:
        return self.broker_url or self.redis_url

    @property
    def sqlalchemy_url(self) -> str:
        """The database URL with SQLAlchemy's name of the driver."""
        scheme, _, rest = self.database_url.partition("://")
        return f"postgresql+psycopg://{rest}" if scheme in ("postgres", "postgresql") else self.database_url

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @cached_property
    def inbound_domain_names(self) -> frozenset[str]:
        return parse_hosts(self.inbound_domains)

    @cached_property
    def retry_delays(self) -> tuple[float, ...]:
        return tuple(float(part) for part in self.retry_seconds.split(","))

    @cached_property
    def mail_host_name(self) -> str:
        return self.mail_host or urlsplit(self.public_url).hostname or ""

    @property
    def link_age(self) -> timedelta | None:
        return None if self.link_days is None else timedelta(days=self.link_days)

    @cached_property
    def retry_for(self) -> timedelta:
        return timedelta(days=self.retry_days)

    @cached_property
    def webhook_retry_delays(self) -> tuple[float, ...]:
        return tuple(float(part) for part in self.webhook_retry_seconds.split(","))

    @cached_property
    def mailer_guard(self) -> Guard:
        return Guard(parse_hosts(self.mailer_allowed_hosts), "POSTROAD_MAILER_ALLOWED_HOSTS")

    @cached_property
    def webhook_guard(self) -> Guard:
        return Guard(parse_hosts(self.webhook_allowed_hosts), "POSTROAD_WEBHOOK_ALLOWED_HOSTS")
