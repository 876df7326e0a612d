"""One mail as the recipient gets it, composed once more for display: same content, without tracking."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import cast
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from api_shim.ops.display import harmless
from api_shim.services import Services
from models.blob import Blob
from models.content import Address, AttachmentRef, Content
from models.mailer import Mailer
from models.message import Message, Submission
from providers.base import Form
from worker.compose import Compiled, Letter
from worker.template import CompositionError

SHOWN_CHARACTERS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A composed mail taken apart. ``fault`` says why it could not be composed; then the rest is empty."""

    fault: str = ""
    headers: Sequence[tuple[str, str]] = ()
    text: str | None = field(default=None, repr=False)
    html: str | None = field(default=None, repr=False)
    """A page of its own, harmless."""
    left_out: int = 0
    """Pictures, styles and frames from elsewhere that the page does without."""
    files: Sequence[AttachmentRef] = ()


def source(session: Session, submission: Submission, message: Message, services: Services) -> bytes:
    """The mail as a file. Raises CompositionError.

    The date is that of the outcome. Opening it reports nothing: links and images are those of the author.
    """
    content = Content.from_json(submission.content)
    quiet = replace(content.settings, open_tracking=False, click_tracking=False)
    content = replace(content, settings=quiet)
    compiled = Compiled(
        content,
        seed=submission.id,
        form=Form.MIME,
        files=_files(session, submission.workspace_id, content),
        tracker=services.tracker,
        workspace=submission.workspace_id,
    )
    letter = Letter(
        message_id=message.id,
        rfc_message_id=message.rfc_message_id,
        recipients=tuple(message.recipients),
        to=Address(message.recipients[0], message.recipient_name) if content.individual else None,
        variables=message.variables,
        date=message.finished_at or message.created_at,
        reply_to=_reply_to(session, content, message, services),
    )
    return compiled.email(letter).mime or b""


def _reply_to(session: Session, content: Content, message: Message, services: Services) -> Address | None:
    """The address of its own that answers to the mail go to, if its mailer has them."""
    domain = session.get_one(Mailer, message.mailer_id).reply_domain
    if domain is None or content.reply_to:
        return None
    return Address(services.paths.reply(domain, message.id), content.sender.name)


def shown(session: Session, submission: Submission, message: Message, services: Services) -> Shown:
    """The parts of the mail that a page shows."""
    try:
        mail = _parse(source(session, submission, message, services))
    except CompositionError as error:
        return Shown(fault=str(error))
    html, left_out = _page(_body(mail, "html"))
    return Shown(
        headers=[(name, "".join(str(value).splitlines())) for name, value in mail.raw_items()],
        text=_body(mail, "plain"),
        html=html,
        left_out=left_out,
        files=Content.from_json(submission.content).attachments,
    )


def _page(html: str | None) -> tuple[str | None, int]:
    return (None, 0) if html is None else harmless(html)


def _parse(raw: bytes) -> EmailMessage:
    return message_from_bytes(raw, policy=policy.default)


def _files(session: Session, workspace_id: UUID, content: Content) -> dict[str, bytes]:
    hashes = {attachment.sha256 for attachment in content.attachments}
    if not hashes:
        return {}
    mine = (Blob.workspace_id == workspace_id, Blob.sha256.in_(hashes))
    return {row.sha256: row.data for row in session.execute(select(Blob.sha256, Blob.data).where(*mine))}


def _body(mail: EmailMessage, kind: str) -> str | None:
    part = mail.get_body((kind,))
    if part is None:
        return None
    return cast(bytes, part.get_payload(decode=True)).decode("utf-8", "replace")[:SHOWN_CHARACTERS]
