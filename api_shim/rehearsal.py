"""``dry_run``: what a submission would do, with nothing written and nothing sent."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from api_shim.attachments import read_attachments
from api_shim.auth import Caller
from api_shim.intake import Prepared, prepare
from api_shim.submission import Submission
from models.base import uuid7
from models.content import Address, message_id_for
from providers.base import Form
from worker.compose import Compiled, CompositionError, Letter
from worker.settings import Settings
from worker.tracking import Tracker

SHOWN = 10
"""Mails that are rendered; the rest differs in its values only."""

_SUPPRESSED = text("""
    select address, reason from suppression
    where workspace_id = :workspace_id and list_id = '' and address = any(:addresses) order by address
""")


def rehearse(
    session: Session, caller: Caller, submission: Submission, *, settings: Settings, tracker: Tracker
) -> dict[str, Any]:
    """The answer to a dry run: the mails as they would be, and who would get none. Raises ApiError as `accept` does."""
    attachments = read_attachments(settings, caller.workspace_id, submission.attachments)
    prepared = prepare(session, caller, submission, attachments)
    compiled = Compiled(
        prepared.content,
        seed=uuid7(),
        form=Form.FIELDS,
        files={attachment.ref.sha256: attachment.data for attachment in attachments},
        tracker=tracker,
        workspace=caller.workspace_id,
    )
    everyone = [*submission.to, *submission.cc, *submission.bcc]
    suppressed = _suppressed(session, caller, everyone)
    return {
        "success": True,
        "dry_run": True,
        "total": len(submission.to) if submission.individual else 1,
        "mailer_id": prepared.sender.mailer.id,
        "provider": prepared.sender.mailer.provider,
        "from": prepared.sender.address.email,
        "send_at": submission.send_at,
        "suppressed": suppressed,
        "mails": [_mail(compiled, submission, prepared, address) for address in _first(submission)],
    }


def _first(submission: Submission) -> Sequence[Address | None]:
    return submission.to[:SHOWN] if submission.individual else (None,)


def _suppressed(session: Session, caller: Caller, everyone: Sequence[Address]) -> list[dict[str, str]]:
    addresses = list({address.email.lower() for address in everyone})
    rows = session.execute(_SUPPRESSED, {"workspace_id": caller.workspace_id, "addresses": addresses})
    return [{"email": row.address, "reason": row.reason} for row in rows]


def _mail(compiled: Compiled, submission: Submission, prepared: Prepared, address: Address | None) -> dict[str, Any]:
    """One mail as its recipient would see it, or why it cannot be composed."""
    message_id = uuid7()
    recipients = [address] if address else [*submission.to, *submission.cc, *submission.bcc]
    shown: dict[str, Any] = {"to": [recipient.email for recipient in recipients]}
    letter = Letter(
        message_id=message_id,
        rfc_message_id=message_id_for(message_id, prepared.sender.address.domain),
        recipients=tuple(recipient.email for recipient in recipients),
        to=address,
        variables=_variables(submission, prepared, address),
        date=submission.send_at or datetime.now(UTC),
    )
    try:
        fields = compiled.email(letter).fields
    except CompositionError as error:
        return shown | {"error": str(error)}
    if fields is None:
        raise TypeError("a mail composed as fields has fields")
    return shown | {"subject": fields.subject, "html": fields.html, "text": fields.text}


def _variables(submission: Submission, prepared: Prepared, address: Address | None) -> dict[str, str] | None:
    if address is None or submission.substitutions is None:
        return None
    return {**prepared.words.defaults, **submission.substitutions.get(address.email.lower(), {})}
