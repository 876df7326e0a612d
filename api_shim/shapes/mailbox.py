"""The shape of the mailbox gateway: ``body_html``, ``body_text``, addresses as text; errors with lower-case codes."""

from typing import Any, Final

from api_shim.errors import ApiError
from api_shim.shapes.addresses import shared_once, text_mailboxes
from api_shim.shapes.attachments import read_attachments
from api_shim.shapes.fields import MAX_SUBJECT, Faults, body_form, check_content_size
from api_shim.shapes.names import refuse_other_names
from api_shim.shapes.options import read_links, read_personal, read_priority
from api_shim.shapes.outcome import error_details, sentence_of, success
from api_shim.submission import SendResult, Shape, Submission

SHAPE: Shape = Shape.MAILBOX
WAITS: bool = True
WAITS_FOR_LOG: bool = False

_CODES: Final = {
    "UNAUTHORIZED": "invalid_key",
    "FORBIDDEN": "insufficient_permissions",
    "NOT_CONNECTED": "insufficient_permissions",
    "EMAIL_DELIVERY_FAILED": "provider_error",
}
"""Codes that this shape calls otherwise; the rest is the same in lower case."""


def parse(body: Any) -> Submission:
    """Raises ApiError VALIDATION_ERROR with every fault of the body."""
    faults = Faults()
    form = body_form(body, faults)
    to = text_mailboxes(form, "to")
    if not to and not faults.listed:
        form.fault("to", "is required; give an address or a list of addresses.", "required")
    to, cc, bcc = shared_once(form, to, text_mailboxes(form, "cc"), text_mailboxes(form, "bcc"))
    personal, user = read_personal(form)
    subject = form.line("subject", MAX_SUBJECT, required="give the line the recipient sees.")
    html, text = form.text("body_html"), form.text("body_text")
    if not html and not text:
        form.fault("body_html", "or body_text is required; give one of them, or both.", "required")
    check_content_size(form, "body_html", html, text)
    submission = Submission(
        shape=SHAPE,
        to=to,
        cc=cc,
        bcc=bcc,
        individual=False,
        reply_to=text_mailboxes(form, "reply_to"),
        subject=subject,
        html=html,
        text=text,
        mailer_id=form.uuid("mailer_id"),
        personal=personal,
        sender_user_id=user,
        links=read_links(form),
        thread_id=form.uuid("thread_id"),
        priority=read_priority(form),
        attachments=read_attachments(form, content="content_base64", type_name="mime_type", with_path=True),
    )
    refuse_other_names(SHAPE, form.body, faults)
    faults.check()
    return submission


def render(result: SendResult) -> tuple[int, dict[str, Any]]:
    """Status and body of a send: 200, 202, 422 or 502."""
    try:
        return success(result)
    except ApiError as error:
        return render_error(error)


def render_error(error: ApiError) -> tuple[int, dict[str, Any]]:
    """``{"error": {"code", "message", "details"}}``."""
    name = error.code.name
    body: dict[str, Any] = {"code": _CODES.get(name, name.lower()), "message": sentence_of(error)}
    details = error_details(error)
    if error.message_id is not None:
        details["message_id"] = error.message_id
    if details:
        body["details"] = details
    return error.status, {"error": body}
