"""The shape of the CRM mail API: ``to_email``, ``html_body``; errors ``{"error": "VALIDATION_ERROR", "details"}``.

Its error envelope also serves every resource other than send.
"""

from typing import Any

from api_shim.errors import ApiError
from api_shim.shapes.addresses import MAX_NAME, parse_mailboxes, shared_once
from api_shim.shapes.attachments import read_attachments
from api_shim.shapes.fields import MAX_SUBJECT, Faults, Form, body_form, check_content_size, line_fault
from api_shim.shapes.names import refuse_other_names
from api_shim.shapes.options import read_alias, read_links, read_personal, read_priority
from api_shim.shapes.outcome import error_details, sentence_of, success
from api_shim.submission import SendResult, Shape, Submission
from models.content import Address
from models.message import ACCEPTED

SHAPE: Shape = Shape.CRM
WAITS: bool = True
WAITS_FOR_LOG: bool = True


def parse(body: Any) -> Submission:
    """Raises ApiError VALIDATION_ERROR with every fault of the body."""
    faults = Faults()
    form = body_form(body, faults)
    cc_text = form.text("cc")
    to, cc, _ = shared_once(form, _recipient(form), parse_mailboxes(cc_text, "cc", faults) if cc_text else (), ())
    personal, user = read_personal(form)
    html = form.text("html_body", required="give the HTML of the mail.")
    check_content_size(form, "html_body", html)
    submission = Submission(
        shape=SHAPE,
        to=to,
        cc=cc,
        individual=False,
        subject=form.line("subject", MAX_SUBJECT, required="give the line the recipient sees."),
        html=html,
        personal=personal,
        sender_user_id=user,
        from_alias=read_alias(form, personal),
        email_config_id=form.uuid("email_config_id"),
        links=read_links(form),
        thread_id=form.uuid("thread_id"),
        priority=read_priority(form),
        attachments=read_attachments(form, content="content", type_name="mime_type"),
    )
    refuse_other_names(SHAPE, form.body, faults)
    faults.check()
    return submission


def _recipient(form: Form) -> tuple[Address, ...]:
    """``to_email`` with ``to_name``, which wins over a name written beside the address."""
    text = form.text("to_email", required="give the address of the recipient.")
    name = form.text("to_name")
    problem = line_fault(name, MAX_NAME) if name else None
    if problem:
        form.fault("to_name", problem)
        name = None
    if text is None:
        return ()
    before = len(form.faults.listed)
    found = parse_mailboxes(text, "to_email", form.faults)
    if len(found) != 1:
        if len(form.faults.listed) == before:
            form.fault("to_email", f"holds {len(found)} addresses; send exactly one, and the others in cc.")
        return ()
    return (Address(found[0].email, name.strip() if name else found[0].name),)


def render(result: SendResult) -> tuple[int, dict[str, Any]]:
    """Status and body of a send: 200, 202, 422 or 502."""
    try:
        if result.log_failed and result.state in ACCEPTED:
            raise ApiError("EMAIL_LOG_FAILED", message_id=result.provider_message_id or result.rfc_message_id)
        return success(result)
    except ApiError as error:
        return render_error(error)


def render_error(error: ApiError) -> tuple[int, dict[str, Any]]:
    """``{"error", "message", "details"}``; two answers are documented to the letter and have no ``message``."""
    body: dict[str, Any] = {"error": error.code.name}
    if error.message_id is not None:
        body["message_id"] = error.message_id
    details = error_details(error)
    documented = error.code.name == "EMAIL_LOG_FAILED" or (error.missing and not error.faults)
    if not documented:
        body["message"] = sentence_of(error)
    if details:
        body["details"] = details
    return error.status, body
