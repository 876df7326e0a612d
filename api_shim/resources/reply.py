"""``POST /v1/email/reply``: an answer into a conversation. It waits and answers as a send in the crm shape does."""

import re
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request, Response
from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from api_shim.auth import Caller
from api_shim.entities import require_entities
from api_shim.errors import ApiError, Missing
from api_shim.resources.reply_schema import OPENAPI, SCHEMA
from api_shim.send import submit
from api_shim.shapes import SHAPES, read_body
from api_shim.shapes.addresses import normalised, parse_mailboxes, shared_once, text_mailboxes
from api_shim.shapes.attachments import read_attachments
from api_shim.shapes.fields import MAX_SUBJECT, Faults, Form, body_form, check_content_size, line_fault
from api_shim.shapes.options import LINK_FIELDS, read_alias, read_links, read_personal, read_priority
from api_shim.submission import Link, Shape, Submission
from models.content import Address
from models.record import Thread

router = APIRouter(prefix="/email", tags=["email"])

_ALREADY_REPLY: Final = re.compile(r"\s*re\s*:", re.IGNORECASE)

# Whoever wrote last and is not one of our own addresses there; if nobody did, whoever we wrote to last.
_PARTNER = text("""
    (select from_email as email, from_name as name, 0 as rank, received_at as at from inbound_message i
     where thread_id = :thread_id and workspace_id = :workspace_id
       and not exists (select from email_log where thread_id = :thread_id and lower(sender_email) = lower(i.from_email))
     order by received_at desc, id desc limit 1)
    union all
    (select recipient_email, null, 1, finished_at from email_log
     where thread_id = :thread_id and workspace_id = :workspace_id order by finished_at desc, message_id desc limit 1)
    order by rank limit 1
""")

# What the thread belongs to and still exists.
_LINKS = text("""
    select contact.id as contact, deal.id as deal, customer.id as customer
    from thread t
         left join contact on contact.id = t.contact_id and contact.workspace_id = t.workspace_id
         left join deal on deal.id = t.deal_id and deal.workspace_id = t.workspace_id
         left join customer on customer.id = t.customer_id and customer.workspace_id = t.workspace_id
    where t.id = :id
""")


@router.post("/reply", openapi_extra=OPENAPI)
async def reply(request: Request) -> Response:
    """Answers into a conversation: by default to whoever wrote last, under the subject of the thread."""
    body = read_body(await request.body())
    return await submit(
        request, SHAPES[Shape.CRM], body, lambda session, caller: read_reply(session, caller, body.value)
    )


def read_reply(session: Session, caller: Caller, body: Any) -> Submission:
    """The submission that a body asks for, what it leaves out taken from the thread.

    Raises ApiError VALIDATION_ERROR with every fault of the body, or with every id that does not exist.
    """
    faults = Faults()
    form = body_form(body, faults)
    form.only(*SCHEMA["properties"])
    thread_id = form.uuid("thread_id", required="give the id of the conversation.")
    thread = _thread(session, caller, thread_id) if thread_id else None
    to, cc, _ = shared_once(form, _recipient(session, form, thread), text_mailboxes(form, "cc"), ())
    personal, user = read_personal(form)
    html, plain = _either(form, "html_body", "body_html"), _either(form, "text_body", "body_text")
    if not html and not plain:
        form.fault("html_body", "or text_body is required; give one of them, or both.", "required")
    check_content_size(form, "html_body", html, plain)
    links = read_links(form)
    submission = Submission(
        shape=Shape.CRM,
        to=to,
        cc=cc,
        individual=False,
        subject=_subject(form, thread),
        html=html,
        text=plain,
        personal=personal,
        sender_user_id=user,
        from_alias=read_alias(form, personal),
        email_config_id=form.uuid("email_config_id"),
        links=links if thread is None else _with_those_of(session, thread, links),
        thread_id=thread_id,
        priority=read_priority(form),
        attachments=read_attachments(form, content="content", type_name="mime_type", with_path=True),
    )
    faults.check()
    if thread is None:
        require_entities(session, caller.workspace_id, submission)
        raise ApiError("VALIDATION_ERROR", missing=[Missing("thread_id", str(thread_id))])
    return submission


def _thread(session: Session, caller: Caller, thread_id: UUID) -> Thread | None:
    mine = select(Thread).where(Thread.workspace_id == caller.workspace_id, Thread.id == thread_id)
    return session.scalars(mine).one_or_none()


def _either(form: Form, name: str, alias: str) -> str | None:
    """A field that goes by two names."""
    value, other = form.text(name), form.text(alias)
    if value is not None and other is not None and value != other:
        form.fault(alias, f"differs from {name}, which means the same; send one of them.")
    return value if value is not None else other


def _subject(form: Form, thread: Thread | None) -> str | None:
    """The subject given, else that of the thread with one ``Re:`` before it."""
    if form.given("subject") or thread is None:
        return form.line("subject", MAX_SUBJECT)
    whole = thread.subject if _ALREADY_REPLY.match(thread.subject) else f"Re: {thread.subject}"
    if line_fault(whole, MAX_SUBJECT):
        form.fault("subject", "is required; that of the thread does not fit into a header.", "required")
        return None
    return whole


def _recipient(session: Session, form: Form, thread: Thread | None) -> tuple[Address, ...]:
    """``to_email``, one address; without it the partner in the thread."""
    given = form.text("to_email")
    if given is None:
        return _partner(session, form, thread) if thread else ()
    found = parse_mailboxes(given, "to_email", form.faults)
    if len(found) > 1:
        form.fault("to_email", f"holds {len(found)} addresses; send exactly one, and the others in cc.")
    return found[:1]


def _partner(session: Session, form: Form, thread: Thread) -> tuple[Address, ...]:
    parameters = {"thread_id": thread.id, "workspace_id": thread.workspace_id}
    row: Row[Any] | None = session.execute(_PARTNER, parameters).one_or_none()
    email = normalised(row.email) if row else None
    if row is None or email is None:
        form.fault("to_email", "is required; nobody in this thread can be answered.", "required")
        return ()
    return (Address(email, None if row.name is None or line_fault(row.name, MAX_SUBJECT) else row.name),)


def _with_those_of(session: Session, thread: Thread, links: tuple[Link, ...]) -> tuple[Link, ...]:
    """The links given, and for the other kinds those of the thread, so that the answer is on the same timelines."""
    held = session.execute(_LINKS, {"id": thread.id}).one()._mapping
    given = {link.kind for link in links}
    inherited = (
        Link(field=names[0], kind=kind, id=held[kind])
        for kind, names in LINK_FIELDS.items()
        if kind not in given and held[kind] is not None
    )
    return (*links, *inherited)
