"""Gmail and Google Workspace over SMTP: an app password, or OAuth with the scope ``https://mail.google.com/``."""

from collections.abc import Mapping
from typing import ClassVar

from providers.smtp import Smtp


class GmailSmtp(Smtp):
    """Credentials: ``username`` with ``password`` (an app password) or with ``access_token``.

    Where the OAuth fields are given instead, ``access_token`` is what they were exchanged for.
    """

    name: ClassVar[str] = "gmail_smtp"
    server: ClassVar[str | None] = "smtp+starttls://smtp.gmail.com:587"
    batch: ClassVar[int] = 50
    mails_per_connection: ClassVar[int] = 100
    default_caps: ClassVar[Mapping[str, int]] = {"per_day": 500}
    """What a consumer account may send to in a day; Workspace allows 2 000 messages."""
