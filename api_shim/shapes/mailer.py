"""The native shape: ``from``, ``to`` as objects, ``content``, ``mailer_id``; answers ``{"success": ...}``."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from api_shim.errors import ApiError
from api_shim.shapes.addresses import key_of, object_mailbox, object_mailboxes, parse_mailboxes, shared_once
from api_shim.shapes.attachments import read_attachments
from api_shim.shapes.fields import MAX_SUBJECT, Faults, Form, body_form, check_content_size, shown
from api_shim.shapes.headers import CustomHeaders, read_headers
from api_shim.shapes.names import refuse_other_names
from api_shim.shapes.options import read_links, read_personal, read_priority
from api_shim.shapes.outcome import error_details, sentence_of
from api_shim.shapes.substitutions import Substitutions, check_variables, read_substitutions
from api_shim.submission import SendResult, Shape, Submission
from models.content import Address, SendSettings
from worker.template import UNSUBSCRIBE_URL

SHAPE: Shape = Shape.MAILER
WAITS: bool = False
WAITS_FOR_LOG: bool = False

SENTENCES: Final[Mapping[str, str]] = {
    "from_unknown": "from address does not exist with the provided mailer_id",
    "subject_needed": "subject is required when template_id is not provided",
    "content_needed": "content is required when template_id is not provided",
    "cc_needs_bulk": "cc recipients are not allowed when processing emails individually",
    "bcc_needs_bulk": "bcc recipients are not allowed when processing emails individually",
    "substitutions_in_bulk": "substitutions are not allowed when processing emails in bulk",
    "too_many_recipients": "total recipients cannot exceed 100",
    "unsubscribe_in_bulk": "unsubscribe is not allowed when processing emails in bulk",
    "email_format": "invalid email format",
}
"""Kind of fault -> the sentence documented for it."""

MAX_AHEAD: Final = timedelta(days=30)
MAX_CUSTOM_ARGS: Final = 64 * 1024
MAX_CAMPAIGN_ID: Final = 255


def parse(body: Any) -> Submission:
    """Raises ApiError VALIDATION_ERROR with every fault of the body."""
    faults = Faults()
    form = body_form(body, faults)
    bulk = form.flag("process_email_inbulk")
    sender = _sender(form)
    to, cc, bcc = _recipients(form, bulk)
    reply_text = form.text("replyTo")
    reply_to = parse_mailboxes(reply_text, "replyTo", faults) if reply_text else ()
    template = form.uuid("template_id")
    subject, html, text = _content(form)
    headers = read_headers(form)
    _refuse_shared_id(form, headers, to, bulk)
    settings = _settings(form, bulk)
    values = _substitutions(form, to, bulk)
    if values is not None and not form.body.get("template_id"):
        provided = frozenset({UNSUBSCRIBE_URL} if settings.unsubscribe else ())
        check_variables(form, to, values, subject, html, text, provided=provided)
    personal, user = read_personal(form)
    send_at, expires_at = _schedule(form)
    submission = Submission(
        shape=SHAPE,
        sender=sender,
        to=to,
        cc=cc,
        bcc=bcc,
        individual=not bulk,
        reply_to=reply_to,
        subject=subject,
        html=html,
        text=text,
        template_id=template,
        attachments=read_attachments(form, content="content", type_name="type", inline=True),
        headers=headers.others,
        custom_message_id=headers.message_id,
        in_reply_to=headers.in_reply_to,
        references=headers.references,
        provider_thread_id=headers.thread_id,
        substitutions=values,
        mailer_id=form.uuid("mailer_id", required="" if personal else "give the id of the mailer to send through."),
        personal=personal,
        sender_user_id=user,
        links=read_links(form),
        thread_id=form.uuid("thread_id"),
        priority=read_priority(form),
        campaign_id=form.line("campaign_id", MAX_CAMPAIGN_ID) or "NIL",
        custom_args=_custom_args(form),
        settings=settings,
        send_at=send_at,
        expires_at=expires_at,
        dry_run=form.flag("dry_run"),
    )
    refuse_other_names(SHAPE, form.body, faults)
    faults.check()
    return submission


def _sender(form: Form) -> Address | None:
    if not form.given("from"):
        form.fault("from", 'is required; send an object such as {"email": "you@your-domain"}.', "required")
        return None
    return object_mailbox(form.body["from"], "from", form.faults)


def _recipients(form: Form, bulk: bool) -> tuple[tuple[Address, ...], tuple[Address, ...], tuple[Address, ...]]:
    before = len(form.faults.listed)
    to = object_mailboxes(form, "to")
    if not to and len(form.faults.listed) == before:
        form.fault("to", 'is required; give at least one recipient such as {"email": "user@domain"}.', "required")
    cc, bcc = object_mailboxes(form, "cc"), object_mailboxes(form, "bcc")
    if bulk:
        return shared_once(form, to, cc, bcc)
    for name, found in (("cc", cc), ("bcc", bcc)):
        if found:
            problem = f"holds {len(found)} recipients, but the emails go out individually; "
            form.fault(name, f"{problem}set process_email_inbulk to true, or remove {name}.", f"{name}_needs_bulk")
    _refuse_twins(form, to)
    return to, cc, bcc


def _refuse_twins(form: Form, to: Sequence[Address]) -> None:
    seen: set[str] = set()
    for address in to:
        key = key_of(address.email)
        if key in seen:
            form.fault("to", f"lists {shown(address.email)} twice; each recipient gets one email, so list it once.")
        seen.add(key)


def _content(form: Form) -> tuple[str | None, str | None, str | None]:
    """Subject, HTML and text. Each may be absent where a template has it."""
    inline = not form.body.get("template_id")
    hint = "or name a template with template_id."
    subject = form.line(
        "subject", MAX_SUBJECT, required=f"give a subject, {hint}" if inline else "", kind="subject_needed"
    )
    before = len(form.faults.listed)
    found: dict[str, str] = {}
    for part in form.forms("content"):
        part.only("type", "value")
        kind = part.choice("type", {"text/html": "html", "text/plain": "text"}, None)
        if not part.given("type"):
            part.fault("type", "is required; send text/html or text/plain.", "required")
        value = part.text("value")
        if kind in found:
            part.fault("type", f"is {shown(part.body['type'])} for the second time; send one part of each type.")
        elif kind and value:
            found[kind] = value
    if inline and not found and len(form.faults.listed) == before:
        form.fault("content", f"is required; give text/html, text/plain or both, {hint}", "content_needed")
    check_content_size(form, "content", *found.values())
    return subject, found.get("html"), found.get("text")


def _substitutions(form: Form, to: Sequence[Address], bulk: bool) -> Substitutions | None:
    if not bulk:
        return read_substitutions(form, to)
    if form.body.get("substitutions"):
        problem = "is given, but all recipients share one email; set process_email_inbulk to false, or remove it."
        form.fault("substitutions", problem, "substitutions_in_bulk")
    return None


def _refuse_shared_id(form: Form, headers: CustomHeaders, to: Sequence[Address], bulk: bool) -> None:
    if headers.message_id and len(to) > 1 and not bulk:
        problem = f"would be the same in {len(to)} emails; send it with one recipient, or remove it."
        form.fault("headers.Message-ID", problem)


def _settings(form: Form, bulk: bool) -> SendSettings:
    settings = form.object("settings", required="send an object; {} leaves every switch off.")
    if settings is None or not settings.body:
        return SendSettings()
    switches = {name: _switch(settings, name, *_MORE.get(name, ())) for name in _SWITCHES}
    settings.only(*_SWITCHES, "ip_pool")
    if bulk and switches["unsubscribe"]:
        problem = "is on, but all recipients share one email; switch it off, or set process_email_inbulk to false."
        settings.fault("unsubscribe.enable", problem, "unsubscribe_in_bulk")
    return SendSettings(**switches, list_id=_list_id(settings), ip_pool=settings.line("ip_pool", 255) or "")


_SWITCHES: Final = ("open_tracking", "click_tracking", "validate", "phishing_protection", "unsubscribe")


_MORE: Final = {"unsubscribe": ("list_id",)}
"""What a switch has besides ``enable``."""

LIST_ID: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
"""What can be the first part of a List-Id (RFC 2919)."""
MAX_LIST_ID: Final = 64


def _switch(settings: Form, name: str, *more: str) -> bool:
    switch = settings.object(name)
    if switch is None:
        return False
    switch.only("enable", *more)
    return switch.flag("enable")


def _list_id(settings: Form) -> str:
    """``unsubscribe.list_id``: the list that the mail belongs to, whether it offers to unsubscribe or not."""
    if not isinstance(settings.body.get("unsubscribe"), dict):
        return ""  # what else it may be, the switch has said
    switch = settings.object("unsubscribe")
    found = switch.line("list_id", MAX_LIST_ID) if switch else None
    if switch and found and not LIST_ID.fullmatch(found):
        switch.fault("list_id", f"is {shown(found)}; use letters, digits, - and _, in parts joined by dots.")
    return found or ""


def _custom_args(form: Form) -> Mapping[str, Any] | None:
    given = form.object("custom_args")
    if given is None or not given.body:
        return None
    try:
        size = len(orjson.dumps(given.body))
    except orjson.JSONEncodeError:
        form.fault(
            "custom_args", "holds a value that JSON cannot carry; send strings, 64-bit numbers, lists and objects."
        )
        return None
    if size > MAX_CUSTOM_ARGS:
        form.fault("custom_args", f"is {size} bytes of JSON; keep it within {MAX_CUSTOM_ARGS} (64 KB).")
    return given.body


def _schedule(form: Form) -> tuple[datetime | None, datetime | None]:
    """``send_at``, where a past time means now, and ``expires_at``."""
    now = datetime.now(UTC)
    send_at, expires_at = form.instant("send_at"), form.instant("expires_at")
    if send_at and send_at > now + MAX_AHEAD:
        form.fault(
            "send_at", f"is {send_at.isoformat()}, more than {MAX_AHEAD.days} days ahead; send it nearer to its time."
        )
    start = max(now, send_at) if send_at else now
    if expires_at and expires_at <= start:
        form.fault("expires_at", f"is {expires_at.isoformat()}, not after the time of sending; give a later time.")
    return send_at, expires_at


def render(result: SendResult) -> tuple[int, dict[str, Any]]:
    """202: accepted and queued. What becomes of it is told by events and ``GET /v1/submissions/{ref_id}``."""
    return 202, {"success": True, "ref_id": result.ref_id}


def render_error(error: ApiError) -> tuple[int, dict[str, Any]]:
    """``{"success": false, "error", "errors"}``, documented sentences first; the specifics stand in ``details``."""
    faults = sorted(error.faults, key=lambda fault: fault.kind not in SENTENCES)
    sentences = [SENTENCES.get(fault.kind, fault.message) for fault in faults]
    sentences += [
        f"{missing.field} {missing.id} does not exist in this workspace; correct it or leave {missing.field} out."
        for missing in error.missing
    ]
    sentences = sentences or [sentence_of(error)]
    body: dict[str, Any] = {"success": False, "error": sentences[0], "errors": sentences}
    details = error_details(error, faults)
    if error.message_id is not None:
        details["message_id"] = error.message_id
    if details:
        body["details"] = details
    return error.status, body
