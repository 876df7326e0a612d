"""Where a mail stands in a conversation: In-Reply-To, References and the thread."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from api_shim.submission import Submission

LONGEST_CHAIN = 50
"""References kept: the first and the newest ones. RFC 5322 sets no limit, mail servers do."""

_CHAIN = text("""
    select rfc_message_id, inbound from (
        select rfc_message_id, finished_at as at, false as inbound
        from email_log where thread_id = :id and status = any(:accepted)
        union all
        select rfc_message_id, received_at, true from inbound_message where thread_id = :id
    ) mails order by at
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    thread_id: UUID | None = None
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    """Oldest first, complete."""
    provider_thread_id: str | None = None


def conversation(session: Session, submission: Submission) -> Conversation:
    """The caller's own headers where given; what is missing comes from the thread, when the caller names one."""
    if submission.thread_id is None:
        return Conversation(
            in_reply_to=submission.in_reply_to,
            references=submission.references,
            provider_thread_id=submission.provider_thread_id,
        )
    accepted = ["sent", "delivered", "bounced", "complained"]
    rows = session.execute(_CHAIN, {"id": submission.thread_id, "accepted": accepted}).all()
    chain = [row.rfc_message_id for row in rows]
    last_inbound = next((row.rfc_message_id for row in reversed(rows) if row.inbound), None)
    kept = chain if len(chain) <= LONGEST_CHAIN else [chain[0], *chain[-(LONGEST_CHAIN - 1) :]]
    provider_thread_id = session.execute(
        text("select provider_thread_id from thread where id = :id"), {"id": submission.thread_id}
    ).scalar_one()
    return Conversation(
        thread_id=submission.thread_id,
        in_reply_to=submission.in_reply_to or last_inbound or (chain[-1] if chain else None),
        references=submission.references or tuple(kept),
        provider_thread_id=submission.provider_thread_id or provider_thread_id,
    )
