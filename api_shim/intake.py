"""Intake: a canonical submission becomes rows, in one transaction, and after its commit the lane is rung.

`accept` is plain Python. A service that embeds postroad calls it with its own session, and its mail is sent if and
only if its own transaction commits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import orjson
from sqlalchemy import Table, event, insert, text
from sqlalchemy.orm import Session

from api_shim import idempotency
from api_shim.attachments import Attachment, read_attachments
from api_shim.auth import Caller
from api_shim.campaigns import due_under, status_held
from api_shim.conversation import Conversation, conversation
from api_shim.entities import require_entities
from api_shim.errors import ApiError
from api_shim.idempotency import Repeat
from api_shim.sender import Sender, pool_of, resolve_sender
from api_shim.submission import Accepted, Submission
from api_shim.templates import Wording, wording
from models.base import uuid7
from models.content import Address, Content, message_id_for
from models.message import CampaignStatus, State
from models.message import Submission as SubmissionRow
from worker import phishing
from worker.bell import BellRinger, Lane, send_lane
from worker.phishing import Suspicion
from worker.settings import Settings

_INSERT = insert(cast(Table, SubmissionRow.__table__))
"""Past the ORM, which would add nothing but its time."""

_COPY = (
    "copy message (id, workspace_id, submission_id, mailer_id, priority, state, due_at, recipients, recipient_name,"
    " variables, rfc_message_id, thread_id, created_at) from stdin"
)
_COPY_TYPES = (
    "uuid", "uuid", "uuid", "uuid", "int2", "text", "timestamptz", "text[]", "text",
    "text", "text", "uuid", "timestamptz",
)  # fmt: skip

_STORED = text("""
    select s.id, s.total, s.mailer_id, s.priority, m.id as message_id, m.rfc_message_id, m.thread_id, mailer.provider
    from submission s join mailer on mailer.id = s.mailer_id
    join lateral (select * from message where submission_id = s.id order by id limit 1) m on true
    where s.id = :id
""")


def accept(
    session: Session,
    caller: Caller,
    submission: Submission,
    *,
    settings: Settings,
    ringer: BellRinger | None = None,
    repeat: Repeat | None = None,
    request_id: str | None = None,
    awaited: bool = False,
) -> Accepted:
    """Validates a submission against the database and stores it. The caller commits; only then does anything count.

    ringer: rings the lane after the commit; without one the beat finds the work within a second.
    repeat: an Idempotency-Key with its body; a repeated one returns the original with ``replayed`` set and stores
    nothing. awaited: somebody will wait for the outcome (api_shim/waiting.py), so the worker is to announce it.
    Raises ApiError with everything that is wrong; then nothing was stored.
    """
    attachments = read_attachments(settings, caller.workspace_id, submission.attachments)
    if repeat and caller.key_id and (original := idempotency.find(session, caller.key_id, repeat)):
        return _replayed(session, original)
    prepared = prepare(session, caller, submission, attachments, settings)
    submission_id = uuid7()
    if repeat and caller.key_id:
        since = submission.send_at or datetime.now(UTC)
        original = idempotency.take(session, caller.key_id, repeat, submission_id, since, settings.idempotency_hours)
        if original:  # a concurrent request with the same key was first
            return _replayed(session, original)
    for attachment in attachments:
        _store_blob(session, caller, attachment)
    campaign = status_held(session, caller.workspace_id, submission.campaign_id)
    if campaign == CampaignStatus.CANCELLED:
        raise ApiError("CONFLICT", details={"campaign_id": submission.campaign_id, "status": campaign})
    due_at = due_under(campaign, submission.send_at or datetime.now(UTC))
    messages = _Messages(caller, submission, submission_id, prepared, due_at)
    row = _submission_row(caller, submission, submission_id, prepared, request_id, awaited)
    session.connection().execute(_INSERT, row)
    _copy(session, messages)
    if ringer is not None and submission.send_at is None and campaign == CampaignStatus.ACTIVE:
        _ring_after_commit(session, ringer, send_lane(prepared.sender.mailer.id, submission.priority))
    return Accepted(
        submission_id=submission_id,
        message_id=messages.first_id,
        total=messages.total,
        rfc_message_id=messages.rfc_message_id(messages.first_id),
        thread_id=messages.thread_id,
        provider=prepared.sender.mailer.provider,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A submission after everything that the database has to say about it; nothing is stored yet."""

    sender: Sender
    words: Wording
    earlier: Conversation
    content: Content
    suspicion: Suspicion | None
    """What ``settings.phishing_protection`` found; None where it is off."""


def prepare(
    session: Session, caller: Caller, submission: Submission, attachments: Sequence[Attachment], settings: Settings
) -> Prepared:
    """Finds sender, words and conversation of a submission. Raises ApiError with what is wrong."""
    require_entities(session, caller.workspace_id, submission)
    sender = resolve_sender(session, caller, submission)
    words = wording(session, submission)
    earlier = conversation(session, submission)
    content = Content(
        sender=sender.address,
        to=() if submission.individual else submission.to,
        cc=submission.cc,
        bcc=submission.bcc,
        reply_to=submission.reply_to,
        subject=words.subject,
        html=words.html,
        text=words.text,
        headers=submission.headers,
        in_reply_to=earlier.in_reply_to,
        references=earlier.references,
        provider_thread_id=earlier.provider_thread_id,
        attachments=tuple(attachment.ref for attachment in attachments),
        individual=submission.individual,
        personalised=submission.substitutions is not None,
        settings=replace(submission.settings, ip_pool=pool_of(sender.mailer, submission.settings.ip_pool)),
    )
    suspicion = _suspicion(submission, words, content, settings.phishing_threshold)
    return Prepared(sender=sender, words=words, earlier=earlier, content=content, suspicion=suspicion)


def _suspicion(submission: Submission, words: Wording, content: Content, threshold: int) -> Suspicion | None:
    """What the content looks like, read with the first recipient's values. Raises ApiError PHISHING_SUSPECTED."""
    if not content.settings.phishing_protection:
        return None
    given = submission.substitutions
    values = None if given is None else {**words.defaults, **given.get(submission.to[0].email.lower(), {})}
    suspicion = phishing.examine(content, values)
    if suspicion.score >= threshold:
        raise ApiError("PHISHING_SUSPECTED", details=suspicion.to_json())
    return suspicion


class _Messages:
    """The rows of a submission's messages, made one at a time: a hundred thousand need no list."""

    def __init__(
        self, caller: Caller, submission: Submission, submission_id: UUID, prepared: Prepared, due_at: datetime
    ) -> None:
        self._due_at = due_at
        self._caller = caller
        self._submission = submission
        self._submission_id = submission_id
        self._sender = prepared.sender
        self._defaults = prepared.words.defaults
        self.first_id = uuid7()
        self.total = len(submission.to) if submission.individual else 1
        # A conversation is opened for every mail to one person or one group; a campaign's mails get theirs when
        # somebody answers.
        self.thread_id = prepared.earlier.thread_id or (uuid7() if self.total == 1 else None)

    def rfc_message_id(self, message_id: UUID) -> str:
        # Gmail replaces Message-IDs; a caller's own would only be a wrong promise (inventory C27).
        custom = self._submission.custom_message_id if self._sender.mailer.provider != "gmail" else None
        return message_id_for(message_id, self._sender.address.domain, custom)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        submission, now = self._submission, datetime.now(UTC)
        common = (self._caller.workspace_id, self._submission_id, self._sender.mailer.id, int(submission.priority))
        for position, (recipients, name, variables) in enumerate(self._envelopes()):
            message_id = uuid7() if position else self.first_id
            # A microsecond apart, so that a lane goes out in the order in which it came in.
            due = self._due_at + timedelta(microseconds=position)
            rfc_message_id = self.rfc_message_id(message_id)
            yield (
                message_id,
                *common,
                State.QUEUED.value,
                due,
                recipients,
                name,
                variables,
                rfc_message_id,
                self.thread_id,
                now,
            )

    def _envelopes(self) -> Iterator[tuple[list[str], str | None, str | None]]:
        if not self._submission.individual:
            everyone: Sequence[Address] = (*self._submission.to, *self._submission.cc, *self._submission.bcc)
            yield list({address.email: None for address in everyone}), None, None
            return
        given = self._submission.substitutions or {}
        for address in self._submission.to:
            variables = {**self._defaults, **given.get(address.email.lower(), {})}
            yield [address.email], address.name, orjson.dumps(variables).decode() if variables else None


def _copy(session: Session, messages: _Messages) -> None:
    raw = session.connection().connection.driver_connection
    if raw is None:
        raise RuntimeError("the session has no database connection")
    with raw.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.set_types(_COPY_TYPES)
        for row in messages.rows():
            copy.write_row(row)


def _submission_row(
    caller: Caller,
    submission: Submission,
    submission_id: UUID,
    prepared: Prepared,
    request_id: str | None,
    awaited: bool,
) -> dict[str, Any]:
    links = {f"{link.kind}_id": link.id for link in submission.links}
    return {
        "id": submission_id,
        "workspace_id": caller.workspace_id,
        "api_key_id": caller.key_id,
        "request_id": request_id,
        "shape": submission.shape.value,
        "priority": int(submission.priority),
        "mailer_id": prepared.sender.mailer.id,
        "campaign_id": submission.campaign_id,
        "content": prepared.content.to_json(),
        "phishing": prepared.suspicion.to_json() if prepared.suspicion else None,
        "contact_id": links.get("contact_id"),
        "deal_id": links.get("deal_id"),
        "customer_id": links.get("customer_id"),
        "sender_user_id": prepared.sender.user_id,
        "custom_args": dict(submission.custom_args) if submission.custom_args is not None else None,
        "total": len(submission.to) if submission.individual else 1,
        "awaited": awaited,
        "send_at": submission.send_at,
        "expires_at": submission.expires_at,
    }


_HAS_BLOB = text("select exists (select from blob where workspace_id = :workspace_id and sha256 = :sha256)")
_STORE_BLOB = text("""
    insert into blob (workspace_id, sha256, size, data) values (:workspace_id, :sha256, :size, :data)
    on conflict do nothing
""")


def _store_blob(session: Session, caller: Caller, attachment: Attachment) -> None:
    """Stores the bytes once by their hash, however many submissions carry them."""
    parameters = {
        "workspace_id": caller.workspace_id,
        "sha256": attachment.ref.sha256,
        "size": attachment.ref.size,
        "data": attachment.data,
    }
    if not session.execute(_HAS_BLOB, parameters).scalar():
        session.execute(_STORE_BLOB, parameters)


def _replayed(session: Session, original: idempotency.Original) -> Accepted:
    row = session.execute(_STORED, {"id": original.submission_id}).one_or_none()
    if row is None:
        raise ApiError("NOT_FOUND", details={"submission": "the original of this Idempotency-Key was erased"})
    return Accepted(
        submission_id=row.id,
        message_id=row.message_id,
        total=row.total,
        rfc_message_id=row.rfc_message_id,
        thread_id=row.thread_id,
        provider=row.provider,
        original=original,
    )


def _ring_after_commit(session: Session, ringer: BellRinger, lane: Lane) -> None:
    """Rings once the rows are there for a worker to see; a rollback forgets it."""
    lanes: list[Lane] = session.info.setdefault("postroad_lanes", [])
    if not lanes:
        event.listen(session, "after_commit", _ring_all(ringer), once=True)
        event.listen(session, "after_rollback", _forget, once=True)
    lanes.append(lane)


def _ring_all(ringer: BellRinger) -> Any:
    def ring(session: Session) -> None:
        for lane in session.info.pop("postroad_lanes", ()):
            ringer.ring(lane)

    return ring


def _forget(session: Session) -> None:
    session.info.pop("postroad_lanes", None)
