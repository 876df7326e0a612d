"""The audit trail: who did what to which thing, written in the transaction of the change itself."""

from typing import Any

from sqlalchemy.orm import Session

from api_shim.auth import Caller
from models.access import AuditEntry


def audit(session: Session, caller: Caller, action: str, target: str, **detail: Any) -> None:
    """Adds an entry to the caller's transaction.

    action: the thing and what was done to it, such as ``mailer.paused``. target: its id. detail: JSON values that say
    more; never a secret and never an address: an entry cannot be changed when its person is to be forgotten.
    """
    entry = AuditEntry(
        workspace_id=caller.workspace_id, api_key_id=caller.key_id, action=action, target=target, detail=detail
    )
    session.add(entry)
