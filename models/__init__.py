"""The tables, the states and what may follow what. Imports nothing of ours but itself.

Importing this package registers every table on ``Base.metadata``.
"""

from models import (
    access,
    blob,
    crm,
    domain,
    erasure,
    event,
    idempotency,
    imap,
    mailbox,
    mailer,
    message,
    metric,
    record,
    template,
    webhook,
    worker,
)
from models.base import Base

__all__ = [
    "Base",
    "access",
    "blob",
    "crm",
    "domain",
    "erasure",
    "event",
    "idempotency",
    "imap",
    "mailbox",
    "mailer",
    "message",
    "metric",
    "record",
    "template",
    "webhook",
    "worker",
]
