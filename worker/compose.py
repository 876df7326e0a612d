"""A submission's content compiled once, and one mail per message spliced from it. Pure: no database, no clock.

Content -> Compiled     slow, once per submission: links found, texts encoded, attachments in base64
Letter  -> email()      fast, once per message: what differs is filled in and joined
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from functools import cached_property, lru_cache
from uuid import UUID

from models.content import Address, AttachmentRef, Content
from providers.base import Fields, File, Form, Mailbox, OutboundEmail
from worker.dkim import Signer, body_hash
from worker.headers import (
    EOL,
    address_line,
    check_header,
    check_line,
    ids_line,
    is_mailbox,
    is_message_id,
    needs_smtputf8,
    text_line,
    to_ascii_domain,
)
from worker.mime import Boundaries, BytePiece, Spliced, attachment, check_attachment, multipart, text_entity
from worker.template import (
    UNSUBSCRIBE_URL,
    CompositionError,
    Scene,
    join,
    variables_in,
)
from worker.texts import Texts, compile_texts
from worker.tracking import Tracker

__all__ = ["UNSUBSCRIBE_URL", "Compiled", "CompositionError", "Letter", "check_header", "check_line", "variables_in"]

_ONE_CLICK = "List-Unsubscribe=One-Click"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What differs per message."""

    message_id: UUID
    rfc_message_id: str
    """With angle brackets."""
    recipients: tuple[str, ...] = field(repr=False)
    """Envelope recipients still to serve."""
    to: Address | None = field(repr=False)
    """The recipient of an individual message. None for a shared one, whose headers stand in the content."""
    variables: Mapping[str, str] | None = field(repr=False)
    date: datetime
    """Aware. The same on every attempt, so that every attempt is the same mail."""
    tracked: bool = True
    """False: without pixel and click addresses, whatever the settings say."""
    reply_to: Address | None = field(default=None, repr=False)
    """Where its answers go, for content without a Reply-To of its own. A name must be the sender's."""


class Compiled:
    """The content of one submission, ready to be spliced. Immutable and safe to share between threads.

    seed: decides the boundaries; the submission's id. files: bytes of the attachments by their sha256.
    tracker: None leaves links and opens alone. envelope_from: where bounces go, if not to the sender.
    Content that no mail can be made of is no error here, but one for each of its messages: see ``email``.
    """

    size_estimate: int
    """Bytes of a mail, attachments encoded, values taken as 32 bytes each."""

    def __init__(
        self,
        content: Content,
        *,
        seed: UUID,
        form: Form,
        files: Mapping[str, bytes],
        tracker: Tracker | None,
        workspace: UUID,
        envelope_from: str | None = None,
    ) -> None:
        self._content = content
        self._form = form
        self._tracker = tracker
        self._workspace = workspace
        self._unsubscribe = content.settings.unsubscribe
        self.size_estimate = 0
        self._fault: str | None = None
        try:
            self._compile(seed, files, envelope_from or content.sender.email)
        except CompositionError as error:
            self._fault = str(error)

    def _compile(self, seed: UUID, files: Mapping[str, bytes], envelope_from: str) -> None:
        content, tracker = self._content, self._tracker
        _check(content, files)
        if self._unsubscribe and tracker is None:
            raise CompositionError("an unsubscribe link is asked for, but there is nothing to sign it with")
        if not is_mailbox(envelope_from):
            raise CompositionError("the envelope sender is not an address")
        self._envelope_from = to_ascii_domain(envelope_from)
        self._texts = compile_texts(content, tracker)
        self._shared_smtputf8 = any(needs_smtputf8(address.email) for address in _header_addresses(content))
        self._before, self._after = _fixed_headers(content)
        of_mime = self._form is Form.MIME
        self._body = Spliced(_body(content, self._texts, files, seed) if of_mime else [])
        self._files = () if of_mime else tuple(_file(ref, files) for ref in content.attachments)
        self.size_estimate = self._estimate()

    def email(self, letter: Letter, signer: Signer | None = None) -> OutboundEmail:
        """The mail of one message: the same bytes for the same letter and signer. Raises CompositionError."""
        self._raise_fault()
        if not is_message_id(letter.rfc_message_id):
            raise CompositionError("the Message-ID is not of the form <left@right>")
        scene = self._scene(letter)
        to = self._recipients(letter)
        mime = form_fields = None
        if self._form is Form.MIME:
            mime = self._head(letter, to, scene) + self._body.join(scene)
            if signer is not None:
                mime = signer.signed(mime, self._shared_body_hash)
        else:
            form_fields = self._fields(letter, to, scene)
        return OutboundEmail(
            ref=letter.message_id.hex,
            rfc_message_id=letter.rfc_message_id,
            envelope_from=self._envelope_from,
            recipients=letter.recipients,
            mime=mime,
            fields=form_fields,
            provider_thread_id=self._content.provider_thread_id,
            smtputf8=self._shared_smtputf8
            or any(map(needs_smtputf8, letter.recipients))
            or (letter.to is not None and needs_smtputf8(letter.to.email)),
            ip_pool=self._content.settings.ip_pool,
        )

    @cached_property
    def _shared_body_hash(self) -> str | None:
        """The hash for signatures of a body in which nothing differs per message."""
        return None if self._body.places else body_hash(self._body.fixed.partition(b"\r\n\r\n")[2])

    def subject(self, variables: Mapping[str, str] | None) -> str:
        """The subject with its variables filled in. Raises CompositionError."""
        self._raise_fault()
        scene = Scene(
            message_id=UUID(int=0),
            workspace=self._workspace,
            variables=variables or {},
            unsubscribe_url="",
            tracker=None,
        )
        return join(self._texts.subject, scene)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise CompositionError(self._fault)

    def _scene(self, letter: Letter) -> Scene:
        return Scene(
            message_id=letter.message_id,
            workspace=self._workspace,
            variables=letter.variables or {},
            unsubscribe_url=self._unsubscribe_url(letter) if self._unsubscribe else "",
            tracker=self._tracker if letter.tracked else None,
        )

    def _recipients(self, letter: Letter) -> Sequence[Address]:
        if letter.to is None:
            return self._content.to
        complaint = check_line(letter.to.name or "")
        if complaint:
            raise CompositionError(f"the recipient's name {complaint}")
        if not is_mailbox(letter.to.email):
            raise CompositionError("the recipient's address cannot be written in a header")
        return (letter.to,)

    def _head(self, letter: Letter, to: Sequence[Address], scene: Scene) -> bytes:
        lines = [
            self._before,
            address_line("To", to) if to else f"To: undisclosed-recipients:;{EOL}",
            self._after,
            text_line("Subject", join(self._texts.subject, scene)),
            f"Date: {_date(letter.date)}{EOL}Message-ID: {letter.rfc_message_id}{EOL}"
            f"X-Postroad-Ref: {letter.message_id.hex}{EOL}",
        ]
        if letter.reply_to is not None:
            lines.append(address_line("Reply-To", (letter.reply_to,)))
        lines += [f"{name}: {value}{EOL}" for name, value in self._unsubscribe_headers(scene).items()]
        return "".join(lines).encode()

    def _fields(self, letter: Letter, to: Sequence[Address], scene: Scene) -> Fields:
        content, texts = self._content, self._texts
        reply_to = content.reply_to if letter.reply_to is None else (letter.reply_to,)
        return Fields(
            sender=_mailbox(content.sender),
            to=tuple(map(_mailbox, to)),
            cc=tuple(map(_mailbox, content.cc)),
            bcc=tuple(map(_mailbox, content.bcc)),
            reply_to=tuple(map(_mailbox, reply_to)),
            subject=join(texts.subject, scene),
            html=None if texts.html is None else join(texts.html, scene),
            text=None if texts.text is None else join(texts.text, scene),
            headers={
                **_threading(content),
                **_list_header(content),
                **content.headers,
                **self._unsubscribe_headers(scene),
            },
            files=self._files,
        )

    def _unsubscribe_url(self, letter: Letter) -> str:
        """One address per recipient; where several share the mail, the page behind it asks which."""
        if self._tracker is None:
            return ""
        recipient, list_id = self._sole_recipient(letter), self._content.settings.list_id
        return self._tracker.unsubscribe_url(letter.message_id, self._workspace, recipient, list_id)

    def _sole_recipient(self, letter: Letter) -> str:
        if letter.to is not None:
            return letter.to.email
        everybody = (*self._content.to, *self._content.cc, *self._content.bcc)
        return everybody[0].email if len(everybody) == 1 else ""

    def _unsubscribe_headers(self, scene: Scene) -> dict[str, str]:
        """RFC 2369 and 8058. One click cannot act for one of several recipients, so there it is not offered."""
        if not scene.unsubscribe_url:
            return {}
        headers = {"List-Unsubscribe": f"<{scene.unsubscribe_url}>"}
        content = self._content
        if content.individual or len(content.to) + len(content.cc) + len(content.bcc) == 1:
            headers["List-Unsubscribe-Post"] = _ONE_CLICK
        return headers

    def _estimate(self) -> int:
        if self._form is Form.MIME:
            head = len(self._before) + len(self._after) + 400
            return head + self._body.fixed_bytes + 32 * self._body.places
        texts = (self._texts.html or (), self._texts.text or (), self._texts.subject)
        characters = sum(len(piece.encode()) if isinstance(piece, str) else 32 for text in texts for piece in text)
        return characters + sum(4 * -(-len(file.data) // 3) for file in self._files) + 400


def _check(content: Content, files: Mapping[str, bytes]) -> None:
    for address in _header_addresses(content):
        complaint = check_line(address.name or "")
        if complaint:
            raise CompositionError(f"a name in From, To, Cc or Reply-To {complaint}")
        if not is_mailbox(address.email):
            raise CompositionError("an address in From, To, Cc or Reply-To cannot be written in a header")
    complaint = check_line(content.subject)
    if complaint:
        raise CompositionError(f"the subject {complaint}")
    for name, value in content.headers.items():
        complaint = check_header(name, value)
        if complaint:
            raise CompositionError(f"a custom header {complaint}")
    if not all(map(is_message_id, (content.in_reply_to or "<ok>", *content.references))):
        raise CompositionError("In-Reply-To or References holds what is not a Message-ID of the form <left@right>")
    for ref in content.attachments:
        check_attachment(ref)
    missing = sum(ref.sha256 not in files for ref in content.attachments)
    if missing:
        raise CompositionError(f"the bytes of {missing} of {len(content.attachments)} attachments are gone")


def _header_addresses(content: Content) -> tuple[Address, ...]:
    return (content.sender, *content.to, *content.cc, *content.reply_to)


def _fixed_headers(content: Content) -> tuple[str, str]:
    """The header lines before and after To that no message changes."""
    lines = [address_line(name, addresses) for name, addresses in _other_addresses(content) if addresses]
    if content.in_reply_to:
        lines.append(ids_line("In-Reply-To", [content.in_reply_to]))
    if content.references:
        lines.append(ids_line("References", content.references))
    lines += [text_line(name, value) for name, value in {**_list_header(content), **content.headers}.items()]
    lines.append(f"MIME-Version: 1.0{EOL}")
    return address_line("From", [content.sender]), "".join(lines)


def _other_addresses(content: Content) -> tuple[tuple[str, tuple[Address, ...]], ...]:
    return ("Cc", content.cc), ("Reply-To", content.reply_to)


def _list_header(content: Content) -> dict[str, str]:
    """List-Id (RFC 2919) of the list that the mail belongs to, unless the caller wrote one."""
    list_id = content.settings.list_id
    if not list_id or any(name.lower() == "list-id" for name in content.headers):
        return {}
    return {"List-Id": f"<{list_id}.{to_ascii_domain(content.sender.email).rpartition('@')[2]}>"}


def _threading(content: Content) -> dict[str, str]:
    """The threading headers as a JSON API takes them."""
    headers = {"In-Reply-To": content.in_reply_to or "", "References": " ".join(content.references)}
    return {name: value for name, value in headers.items() if value}


def _body(content: Content, texts: Texts, files: Mapping[str, bytes], seed: UUID) -> list[BytePiece]:
    """multipart/mixed of (alternative of (text, related of (html, inline images)), attachments), as far as needed."""
    related = [ref for ref in content.attachments if texts.html is not None and ref.inline and ref.content_id]
    others = [ref for ref in content.attachments if ref not in related]
    inline = [attachment(ref, files[ref.sha256]) for ref in related]
    attached = [attachment(ref, files[ref.sha256]) for ref in others]
    versions = [] if texts.text is None else [text_entity("plain", texts.text)]
    html = [] if texts.html is None else [text_entity("html", texts.html)]
    plain = [piece for entity in (*versions, *html, *attached) for piece in entity.body if isinstance(piece, bytes)]
    boundaries = Boundaries(seed, plain)
    if html:
        versions.append(multipart("related", [*html, *inline], boundaries.take(), f'{EOL} type="text/html";'))
    body = multipart("mixed", [multipart("alternative", versions, boundaries.take()), *attached], boundaries.take())
    return list(body.pieces())


def _file(ref: AttachmentRef, files: Mapping[str, bytes]) -> File:
    return File(
        filename=ref.filename,
        content_type=ref.content_type,
        data=files[ref.sha256],
        inline=ref.inline,
        content_id=ref.content_id,
    )


def _mailbox(address: Address) -> Mailbox:
    return Mailbox(email=to_ascii_domain(address.email), name=address.name)


@lru_cache(maxsize=64)
def _date(date: datetime) -> str:
    """Messages of one submission have one date; dates of one second look alike."""
    return _second(date.replace(microsecond=0))


@lru_cache(maxsize=64)
def _second(date: datetime) -> str:
    return format_datetime(date)
