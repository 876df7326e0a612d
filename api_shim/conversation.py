"""Where a mail stands in a conversation: In-Reply-To, References and the thread."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from api_shim.submission import Submission
from worker.headers import is_message_id

LONGEST_CHAIN = 200
"""References kept: the first and the newest ones. RFC 5322 sets no limit, mail servers do."""

_CHAIN = text("""
    select rfc_message_id, reference_ids, by_a_person from (
        select rfc_message_id, '{}'::text[] as reference_ids, finished_at as at, false as by_a_person
        from email_log where workspace_id = :workspace_id and thread_id = :id and status = any(:accepted)
        union all
        select rfc_message_id, reference_ids, received_at, not is_automatic
        from inbound_message where workspace_id = :workspace_id and thread_id = :id
    ) mails order by at
""")
_ACCEPTED = ["sent", "delivered", "bounced", "complained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    thread_id: UUID | None = None
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    """Oldest first."""
    provider_thread_id: str | None = None


def conversation(session: Session, workspace_id: UUID, submission: Submission) -> Conversation:
    """The caller's own headers where given; what is missing comes from the thread, when the caller names one.

    The chain is made of the thread's mails and of what those that came in refer to, since a conversation may be older
    than our part of it (RFC 5322 section 3.6.4). The last mail of a person is answered, before any automatic one.
    """
    if submission.thread_id is None:
        return Conversation(
            in_reply_to=submission.in_reply_to,
            references=submission.references,
            provider_thread_id=submission.provider_thread_id,
        )
    key = {"workspace_id": workspace_id, "id": submission.thread_id}
    rows = session.execute(_CHAIN, key | {"accepted": _ACCEPTED}).all()
    named = (name for row in rows for name in (*row.reference_ids, row.rfc_message_id))
    chain = [name for name in dict.fromkeys(named) if is_message_id(name)]
    answered = next((row.rfc_message_id for row in reversed(rows) if row.by_a_person), None)
    provider_thread_id = session.execute(
        text("select provider_thread_id from thread where workspace_id = :workspace_id and id = :id"), key
    ).scalar_one()
    return Conversation(
        thread_id=submission.thread_id,
        in_reply_to=submission.in_reply_to or answered or (chain[-1] if chain else None),
        references=submission.references or _kept(chain),
        provider_thread_id=submission.provider_thread_id or provider_thread_id,
    )


def _kept(chain: list[str]) -> tuple[str, ...]:
    return tuple(chain if len(chain) <= LONGEST_CHAIN else [chain[0], *chain[-(LONGEST_CHAIN - 1) :]])
