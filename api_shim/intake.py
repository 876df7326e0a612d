"""Intake: a canonical submission becomes rows, in one transaction, and after its commit the lane is rung.

`accept` is plain Python. A service that embeds postroad calls it with its own session, and its mail is sent if and
only if its own transaction commits.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from api_shim import idempotency
from api_shim.attachments import Attachment, read_attachments
from api_shim.auth import Caller
from api_shim.campaigns import NO_CAMPAIGN, due_under, status_held
from api_shim.conversation import conversation
from api_shim.entities import Known
from api_shim.errors import ApiError
from api_shim.idempotency import Original, Repeat
from api_shim.rows import MANY, Entry, Prepared, store
from api_shim.sender import pool_of, resolve_sender
from api_shim.submission import Accepted, Submission
from api_shim.templates import Wording, wording
from models.content import Content, SendSettings
from models.message import CampaignStatus, due_now
from worker import phishing
from worker.bell import BellRinger, Lane, send_lane
from worker.phishing import Suspicion
from worker.settings import Settings

_STORED = text("""
    select s.id, s.total, s.awaited, m.id as message_id, m.rfc_message_id, m.thread_id, mailer.provider
    from submission s join mailer on mailer.id = s.mailer_id
    join lateral (select * from message where submission_id = s.id order by id limit 1) m on true
    where s.id = :id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A submission that wants in, and for whom."""

    caller: Caller
    submission: Submission
    repeat: Repeat | None = None
    """An Idempotency-Key with its body; a repeated one returns the original and stores nothing."""
    request_id: str | None = None
    traceparent: str | None = None
    """The span that it comes from (W3C Trace Context), which those of the workers continue."""
    awaited: bool = False
    """Somebody will wait for the outcome (api_shim/waiting.py), so the worker is to announce it."""


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

    ringer: rings the lane after the commit; without one the beat finds the work within a second. The others are the
    fields of `Arrival`. Raises ApiError with everything that is wrong; then nothing was stored.
    """
    arrival = Arrival(caller=caller, submission=submission, repeat=repeat, request_id=request_id, awaited=awaited)
    (answer,) = accept_all(Known(session), [arrival], settings=settings, ringer=ringer)
    if isinstance(answer, ApiError):
        raise answer
    return answer


def accept_all(
    known: Known, arrivals: Sequence[Arrival], *, settings: Settings, ringer: BellRinger | None = None
) -> list[Accepted | ApiError]:
    """`accept` for several at once: their rows are written together. What they name is best looked up before.

    Returns an answer for each; one that is refused leaves nothing behind and the others as they are. Those that
    `takes_one_statement` may come in a session that commits each statement. Raises MailerGoneError.
    """
    session = known.session
    admitted = [_admitted(known, arrival, settings, ringer) for arrival in arrivals]
    store(session, [entry for entry in admitted if isinstance(entry, Entry)])
    return [_answer(session, found) for found in admitted]


def takes_one_statement(submission: Submission, repeat: Repeat | None) -> bool:
    """Whether storing it writes nothing but the rows of submission and messages, and not many of these."""
    return not _writes_more(submission, repeat) and len(submission.to) < MANY


def _writes_more(submission: Submission, repeat: Repeat | None) -> bool:
    return bool(repeat or submission.attachments or submission.campaign_id != NO_CAMPAIGN)


def _admitted(
    known: Known, arrival: Arrival, settings: Settings, ringer: BellRinger | None
) -> Entry | Original | ApiError:
    try:
        with known.session.begin_nested() if _writes_more(arrival.submission, arrival.repeat) else nullcontext():
            return _admit(known, arrival, settings, ringer)
    except ApiError as refusal:
        return refusal


def _answer(session: Session, found: Entry | Original | ApiError) -> Accepted | ApiError:
    if isinstance(found, ApiError):
        return found
    if isinstance(found, Original):
        return _replayed(session, found)
    return Accepted(
        submission_id=found.id,
        message_id=found.first_id,
        total=found.total,
        rfc_message_id=found.rfc_message_id(found.first_id),
        thread_id=found.thread_id,
        provider=found.sender.mailer.provider,
    )


def _admit(known: Known, arrival: Arrival, settings: Settings, ringer: BellRinger | None) -> Entry | Original:
    session, caller, submission, repeat = known.session, arrival.caller, arrival.submission, arrival.repeat
    attachments = read_attachments(settings, caller.workspace_id, submission.attachments)
    if repeat and caller.key_id and (original := idempotency.find(session, caller.key_id, repeat)):
        return original
    prepared = prepare(known, caller, submission, attachments, settings)
    now = datetime.now(UTC)
    campaign = status_held(session, caller.workspace_id, submission.campaign_id)
    entry = Entry(
        caller,
        submission,
        prepared,
        due_at=due_under(campaign, submission.send_at or due_now(now, submission.expires_at)),
        request_id=arrival.request_id,
        traceparent=arrival.traceparent,
        awaited=arrival.awaited,
    )
    if repeat and caller.key_id:
        since, hours = submission.send_at or now, settings.idempotency_hours
        if original := idempotency.take(session, caller.key_id, repeat, entry.id, since, hours):
            return original  # a concurrent request with the same key was first
    if campaign == CampaignStatus.CANCELLED:
        raise ApiError("CONFLICT", details={"campaign_id": submission.campaign_id, "status": campaign})
    for attachment in attachments:
        _store_blob(session, caller, attachment)
    if ringer is not None and submission.send_at is None and campaign == CampaignStatus.ACTIVE:
        _ring_after_commit(session, ringer, send_lane(prepared.sender.mailer.id, submission.priority))
    return entry


def prepare(
    known: Known, caller: Caller, submission: Submission, attachments: Sequence[Attachment], settings: Settings
) -> Prepared:
    """Finds sender, words and conversation of a submission. Raises ApiError with what is wrong."""
    known.require(caller.workspace_id, submission)
    sender = resolve_sender(known, caller, submission)
    words = wording(known.session, caller.workspace_id, submission)
    earlier = conversation(known.session, caller.workspace_id, submission)
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
        settings=_in_pool(submission.settings, pool_of(sender.mailer, submission.settings.ip_pool)),
    )
    suspicion = _suspicion(submission, words, content, settings.phishing_threshold)
    return Prepared(sender=sender, words=words, earlier=earlier, content=content, suspicion=suspicion)


def _in_pool(settings: SendSettings, pool: str) -> SendSettings:
    return settings if settings.ip_pool == pool else replace(settings, ip_pool=pool)


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


# Held until the submission that names them is there to be seen by whoever clears away what nobody names.
_HAS_BLOB = text("""
    select used_at > now() - interval '12 hours' from blob
    where workspace_id = :workspace_id and sha256 = :sha256 for key share
""")
_STORE_BLOB = text("""
    insert into blob (workspace_id, sha256, size, data) values (:workspace_id, :sha256, :size, :data)
    on conflict (workspace_id, sha256) do update set used_at = now()
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


def _replayed(session: Session, original: Original) -> Accepted | ApiError:
    row = session.execute(_STORED, {"id": original.submission_id}).one_or_none()
    if row is None:
        return ApiError("NOT_FOUND", details={"submission": "the original of this Idempotency-Key was erased"})
    return Accepted(
        submission_id=row.id,
        message_id=row.message_id,
        total=row.total,
        rfc_message_id=row.rfc_message_id,
        thread_id=row.thread_id,
        provider=row.provider,
        original=replace(original, awaited=row.awaited),
    )


_BELLS = "postroad_bells"
"""Where a session holds who is to ring which lane."""


def _ring_after_commit(session: Session, ringer: BellRinger, lane: Lane) -> None:
    """Rings once the rows are there for a worker to see; a rollback forgets it."""
    if _BELLS not in session.info:
        session.info[_BELLS] = []
        event.listen(session, "after_commit", _ring_all)
        event.listen(session, "after_rollback", _forget)
    session.info[_BELLS].append((ringer, lane))


def _ring_all(session: Session) -> None:
    if session.in_nested_transaction():
        return  # a savepoint was released; nobody sees the rows yet
    bells, session.info[_BELLS] = session.info[_BELLS], []
    for ringer, lane in bells:
        ringer.ring(lane)


def _forget(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info[_BELLS] = []
