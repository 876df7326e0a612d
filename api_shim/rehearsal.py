"""``dry_run``: what a submission would do, with nothing written and nothing sent."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy.orm import Session

from api_shim.attachments import read_attachments
from api_shim.auth import Caller
from api_shim.entities import Known
from api_shim.intake import prepare
from api_shim.rows import Prepared
from api_shim.services import Services
from api_shim.submission import Submission
from models.base import uuid7
from models.content import Address, SendSettings, message_id_for
from providers.base import Form
from worker.compose import Compiled, CompositionError, Letter
from worker.domains import Domains
from worker.validation import Standing, examine
from worker.wishes import read_wishes

SHOWN = 10
"""Mails that are rendered; the rest differs in its values only."""

EXAMINED = 1_000
"""Domains of recipients that the DNS is asked about."""

DNS_SECONDS = 3.0
"""Longest that the answer waits for the DNS; what it has not said by then counts as good."""


def rehearse(session: Session, caller: Caller, submission: Submission, *, services: Services) -> dict[str, Any]:
    """The answer to a dry run: the mails as they would be, and who would get none. Raises ApiError as `accept` does."""
    settings = services.settings
    attachments = read_attachments(settings, caller.workspace_id, submission.attachments)
    prepared = prepare(Known(session), caller, submission, attachments, settings)
    compiled = Compiled(
        prepared.content,
        seed=uuid7(),
        form=Form.FIELDS,
        files={attachment.ref.sha256: attachment.data for attachment in attachments},
        tracker=services.tracker,
        workspace=caller.workspace_id,
    )
    everyone = [*submission.to, *submission.cc, *submission.bcc]
    answer = {
        "success": True,
        "dry_run": True,
        "total": len(submission.to) if submission.individual else 1,
        "mailer_id": prepared.sender.mailer.id,
        "provider": prepared.sender.mailer.provider,
        "from": prepared.sender.address.email,
        "send_at": submission.send_at,
        "suppressed": _suppressed(session, caller, everyone, submission.settings),
        "invalid": None,
        "phishing": prepared.suspicion.to_json() if prepared.suspicion else None,
        "mails": [_mail(compiled, submission, prepared, address) for address in _first(submission)],
    }
    if submission.settings.validate:
        session.rollback()  # no transaction stays open while the DNS is asked
        answer["invalid"] = _invalid(services.domains, everyone)
    return answer


def _first(submission: Submission) -> Sequence[Address | None]:
    return submission.to[:SHOWN] if submission.individual else (None,)


def _suppressed(
    session: Session, caller: Caller, everyone: Sequence[Address], settings: SendSettings
) -> list[dict[str, str]]:
    addresses = {address.email.lower() for address in everyone}
    wishes = read_wishes(session.connection(), caller.workspace_id, addresses, [settings])
    reasons = ((address, wishes.reason(address, settings.list_id)) for address in sorted(addresses))
    return [{"email": address, "reason": reason} for address, reason in reasons if reason]


def _invalid(domains: Domains, everyone: Sequence[Address]) -> list[dict[str, str | None]]:
    """Who is skipped under ``settings.validate``, as far as the first `EXAMINED` domains tell within `DNS_SECONDS`."""
    first = list(islice(dict.fromkeys(address.domain for address in everyone), EXAMINED))
    mail = domains.look_up(first, DNS_SECONDS)
    verdicts = (examine(address.email, mail[address.domain]) for address in everyone if address.domain in mail)
    return [
        {"email": verdict.email, "reason": verdict.reason, "suggestion": verdict.suggestion}
        for verdict in verdicts
        if verdict.standing is Standing.INVALID
    ]


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
