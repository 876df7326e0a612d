"""Outlook and Exchange Online over SMTP: OAuth with the scope ``https://outlook.office.com/SMTP.Send``, or a password.

SMTP AUTH is off by default in most tenants, and passwords end in December 2026 unless an administrator allows them.
"""

from collections.abc import Mapping
from typing import ClassVar

from providers.smtp import Smtp


class OutlookSmtp(Smtp):
    """Credentials: ``username`` with ``access_token`` or with ``password``.

    Where the OAuth fields are given instead, ``access_token`` is what they were exchanged for; Graph's will not do.
    """

    name: ClassVar[str] = "outlook_smtp"
    server: ClassVar[str | None] = "smtp+starttls://smtp.office365.com:587"
    batch: ClassVar[int] = 30
    max_connections: ClassVar[int | None] = 3
    mails_per_connection: ClassVar[int] = 100
    default_caps: ClassVar[Mapping[str, int]] = {"per_minute": 30, "per_day": 10_000}
