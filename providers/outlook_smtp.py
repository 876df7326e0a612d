"""Outlook and Exchange Online over SMTP: OAuth with the scope ``https://outlook.office.com/SMTP.Send``, or a password.

SMTP AUTH is off by default in most tenants, and passwords end in December 2026 unless an administrator allows them.
"""

from collections.abc import Mapping
from typing import ClassVar

from providers.credentials import Credential, Credentials, Kind
from providers.smtp_mailbox import MailboxSmtp


class OutlookSmtp(MailboxSmtp):
    """A refresh token that was granted for Graph will do too: the scope is asked for with each token."""

    name: ClassVar[str] = "outlook_smtp"
    credentials: ClassVar[Credentials] = {
        **MailboxSmtp.credentials,
        "tenant": Credential(Kind.ID, default="common"),
    }
    server: ClassVar[str | None] = "smtp+starttls://smtp.office365.com:587"
    service: ClassVar[str] = "microsoft"
    scope: ClassVar[str] = "https://outlook.office.com/SMTP.Send"
    batch: ClassVar[int] = 30
    max_connections: ClassVar[int | None] = 3
    mails_per_connection: ClassVar[int] = 100
    default_caps: ClassVar[Mapping[str, int]] = {"per_minute": 30, "per_day": 10_000}
