"""Gmail and Google Workspace over SMTP: an app password, or OAuth with the scope ``https://mail.google.com/``."""

from collections.abc import Mapping
from typing import ClassVar

from providers.smtp_mailbox import MailboxSmtp


class GmailSmtp(MailboxSmtp):
    name: ClassVar[str] = "gmail_smtp"
    server: ClassVar[str | None] = "smtp+starttls://smtp.gmail.com:587"
    service: ClassVar[str] = "google"
    scope: ClassVar[str] = "https://mail.google.com/"
    batch: ClassVar[int] = 50
    mails_per_connection: ClassVar[int] = 100
    default_caps: ClassVar[Mapping[str, int]] = {"per_day": 500}
    """What a consumer account may send to in a day; Workspace allows 2 000 messages."""
