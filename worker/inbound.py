"""Mail that came in: stored, put into its thread, on the timelines, and an event.

The thread is that of the mail it answers (by References and In-Reply-To: ours, or one that came in; by the address it
was sent to), else the one that its Thread-Id names, else the provider's conversation, else one with the same subject
and people, else a new one.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import structlog
from sqlalchemy import Connection, text

from models.base import uuid7
from models.event import EventType
from providers.base import ProviderEvent
from worker.blobs import store_files
from worker.events import NewEvent
from worker.inbound_mail import InboundMail, read_inbound
from worker.mail_events import OURS
from worker.mailers import OpenMailer
from worker.return_path import Kind, ReturnPaths
from worker.timeline import REPLIED, Happening, note

log = structlog.get_logger()

SAME_SUBJECT_DAYS = 90
"""A thread that has rested longer is not continued by a subject alone."""
_REPLY_MARKS = r"^(\s*(re|aw|antw|sv|vs|odp|rif|res|tr|wg|fw|fwd)\s*(\[\d+\])?\s*:)+"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a mail belongs."""

    thread_id: UUID
    answered: Any | None = None
    """The log row of the mail of ours that it answers."""


_STORE = text("""
    insert into inbound_message (id, workspace_id, mailer_id, thread_id, rfc_message_id, in_reply_to, reference_ids,
        from_email, from_name, to_emails, cc_emails, subject, text, html, attachments, is_spam, is_automatic,
        received_at)
    values (:id, :workspace_id, :mailer_id, :thread_id, :rfc_message_id, :in_reply_to, :references, :from_email,
        :from_name, :to, :cc, :subject, :text, :html, cast(:attachments as jsonb), :is_spam, :is_automatic,
        :received_at)
    on conflict (workspace_id, mailer_id, rfc_message_id) do nothing
    returning id
""")

# Ours by the id that their Message-ID spells out; the condition on the others is that of the partial index.
_ANSWERED = text("""
    select message_id, workspace_id, submission_id, rfc_message_id, thread_id, subject, sender_email, recipients, cc,
           contact_id, deal_id, customer_id, finished_at
    from email_log where message_id = any(:ids) and workspace_id = :workspace_id
    union all
    select message_id, workspace_id, submission_id, rfc_message_id, thread_id, subject, sender_email, recipients, cc,
           contact_id, deal_id, customer_id, finished_at
    from email_log where workspace_id = :workspace_id and rfc_message_id = any(:names)
                         and rfc_message_id !~ '^<postroad[0-9a-f]{8}-'
""")
_CONTINUED = text("""
    select rfc_message_id, thread_id from inbound_message
    where workspace_id = :workspace_id and rfc_message_id = any(:names)
""")
_BY_THREAD_ID = text("select id from thread where workspace_id = :workspace_id and id = :thread_id")
_BY_CONVERSATION = text("""
    select id from thread where workspace_id = :workspace_id and provider_thread_id = :conversation limit 1
""")
_BY_SUBJECT = text("""
    select id from thread
    where workspace_id = :workspace_id and participants @> array[cast(:from_email as text)]
          and last_message_at > clock_timestamp() - make_interval(days => :days)
          and lower(btrim(regexp_replace(subject, :reply_marks, '', 'i'))) = :topic
    order by last_message_at desc limit 1
""")

_ADOPT = text("""
    with logged as (update email_log set thread_id = :thread_id where message_id = :id)
    update message set thread_id = :thread_id where id = :id
""")

# An archived conversation in which somebody writes again is open again.
_THREAD = text("""
    insert into thread as t (id, workspace_id, subject, participants, is_read, last_direction, has_inbound,
        has_outbound, provider_thread_id, contact_id, deal_id, customer_id, last_message_at)
    select :thread_id, :workspace_id, :subject,
           array(select distinct lower(address) from unnest(cast(:people as text[])) address order by 1),
           false, 'inbound', true, :has_outbound, :provider_thread_id, coalesce(linked.id, sender.id), deal.id,
           customer.id, :received_at
    from (values (1)) one
         left join contact linked on linked.id = :contact_id and linked.workspace_id = :workspace_id
         left join lateral (select id from contact where workspace_id = :workspace_id
                            and lower(email) = lower(:from_email) order by id limit 1) sender on true
         left join deal on deal.id = :deal_id and deal.workspace_id = :workspace_id
         left join customer on customer.id = :customer_id and customer.workspace_id = :workspace_id
    on conflict (id) do update set
        participants = array(
            select distinct address from unnest(t.participants || excluded.participants) address order by 1),
        is_read = false, last_direction = 'inbound', has_inbound = true,
        has_outbound = t.has_outbound or excluded.has_outbound,
        status = case t.status when 'archived' then 'active' else t.status end,
        provider_thread_id = coalesce(t.provider_thread_id, excluded.provider_thread_id),
        contact_id = coalesce(t.contact_id, excluded.contact_id), deal_id = coalesce(t.deal_id, excluded.deal_id),
        customer_id = coalesce(t.customer_id, excluded.customer_id),
        last_message_at = greatest(t.last_message_at, excluded.last_message_at)
""")

_ACTIVITIES = text("""
    insert into activity (id, workspace_id, entity_type, entity_id, message_id, kind, direction, subject, created_at)
    select gen_random_uuid(), t.workspace_id, link.kind, link.id, :id, 'email_received', 'inbound', :subject,
           :received_at
    from thread t
         left join contact on contact.id = t.contact_id and contact.workspace_id = t.workspace_id
         left join deal on deal.id = t.deal_id and deal.workspace_id = t.workspace_id
         left join customer on customer.id = t.customer_id and customer.workspace_id = t.workspace_id
         cross join lateral (values ('contact', contact.id), ('deal', deal.id), ('customer', customer.id))
             link (kind, id)
    where t.id = :thread_id and link.id is not null
    on conflict do nothing
""")


def receive(connection: Connection, mailer: OpenMailer, event: ProviderEvent, paths: ReturnPaths) -> NewEvent | None:
    """Stores the mail of a ``received`` event. The caller appends the event returned, and commits.

    paths: reads the addresses that lead to the mail answered.
    None where the mail was stored before, or the event brings none: a notice that one lies at the provider.
    """
    mail = read_inbound(event)
    if mail is None:
        log.info("inbound_without_mail", provider=mailer.provider_name, mailer_id=str(mailer.id))
        return None
    place = _place(connection, mailer.workspace_id, mail, _answered_by_address(mail, event, paths))
    values = {**_values(mail), "workspace_id": mailer.workspace_id, "thread_id": place.thread_id, "id": uuid7()}
    values |= {"mailer_id": mailer.id, "received_at": event.at}
    if connection.execute(_STORE, values).one_or_none() is None:
        return None
    store_files(connection, mailer.workspace_id, mail.files)
    _join(connection, place, mail, values, paths)
    return _event(mailer, mail, place, event)


def _values(mail: InboundMail) -> dict[str, Any]:
    return {
        "rfc_message_id": mail.rfc_message_id,
        "in_reply_to": mail.in_reply_to,
        "references": list(mail.references),
        "from_email": mail.from_email,
        "from_name": mail.from_name,
        "to": list(mail.to),
        "cc": list(mail.cc),
        "subject": mail.subject,
        "text": mail.text,
        "html": mail.html,
        "attachments": orjson.dumps([file.listing for file in mail.files]).decode(),
        "is_spam": mail.is_spam,
        "is_automatic": mail.automatic,
        "provider_thread_id": mail.provider_thread_id,
    }


def _answered_by_address(mail: InboundMail, event: ProviderEvent, paths: ReturnPaths) -> list[UUID]:
    """Messages of ours whose own reply address it was sent to."""
    read = (paths.read(address) for address in (event.recipient or "", *mail.to, *mail.cc))
    return [found.id for found in read if found is not None and found.kind is not Kind.INBOX]


def _place(connection: Connection, workspace_id: UUID, mail: InboundMail, answered: list[UUID]) -> _Place:
    if mail.answers or answered:
        found = _by_references(connection, workspace_id, [*mail.answers, *map(_spelled, answered)])
        if found is not None:
            return found
    parameters = {
        "workspace_id": workspace_id,
        "thread_id": mail.thread_id,
        "conversation": mail.provider_thread_id,
        "from_email": mail.from_email.lower(),
        "topic": mail.topic,
        "days": SAME_SUBJECT_DAYS,
        "reply_marks": _REPLY_MARKS,
    }
    found_id: UUID | None = None
    if mail.thread_id is not None:
        found_id = connection.execute(_BY_THREAD_ID, parameters).scalar_one_or_none()
    if found_id is None and mail.provider_thread_id is not None:
        found_id = connection.execute(_BY_CONVERSATION, parameters).scalar_one_or_none()
    if found_id is None and mail.topic is not None:
        found_id = connection.execute(_BY_SUBJECT, parameters).scalar_one_or_none()
    return _Place(thread_id=found_id or uuid7())


def _by_references(connection: Connection, workspace_id: UUID, names: list[str]) -> _Place | None:
    """The thread of the nearest mail that it refers to and we know."""
    ids = [UUID(match[1]) for name in names if (match := OURS.match(name))]
    parameters = {"workspace_id": workspace_id, "names": names, "ids": ids}
    ours = {row.rfc_message_id: row for row in connection.execute(_ANSWERED, parameters)}
    ours |= {_spelled(row.message_id): row for row in ours.values()}
    theirs = {row.rfc_message_id: row.thread_id for row in connection.execute(_CONTINUED, parameters)}
    for name in names:
        answered = ours.get(name) or ours.get(name.partition("@")[0] + "@")
        if answered is not None:
            return _Place(thread_id=answered.thread_id or uuid7(), answered=answered)
        if name in theirs:
            return _Place(thread_id=theirs[name])
    return None


def _spelled(message_id: UUID) -> str:
    """How a Message-ID of ours begins."""
    return f"<postroad{message_id}@"


def _join(connection: Connection, place: _Place, mail: InboundMail, values: dict[str, Any], paths: ReturnPaths) -> None:
    """Puts the mail into its thread, which a campaign's mail gets only now that somebody answers, and on timelines."""
    answered = place.answered
    people = [address for address in (mail.from_email, *mail.to, *mail.cc) if paths.read(address) is None]
    links: dict[str, Any] = {"contact_id": None, "deal_id": None, "customer_id": None}
    if answered is not None:
        people += [answered.sender_email, *answered.recipients, *answered.cc]
        links = {name: getattr(answered, name) for name in links}
        if answered.thread_id is None:
            connection.execute(_ADOPT, {"id": answered.message_id, "thread_id": place.thread_id})
    subject = mail.subject if answered is None else answered.subject
    thread = {**values, **links, "subject": subject, "people": people, "has_outbound": answered is not None}
    connection.execute(_THREAD, thread)
    connection.execute(_ACTIVITIES, values)
    if answered is not None and not mail.automatic:
        note(connection, [Happening(message_id=answered.message_id, kind=REPLIED, at=values["received_at"])])


def _event(mailer: OpenMailer, mail: InboundMail, place: _Place, event: ProviderEvent) -> NewEvent:
    """The event belongs to the mail that was answered, so that filters by campaign or submission let it through."""
    answered = place.answered
    return NewEvent(
        workspace_id=mailer.workspace_id,
        type=EventType.RECEIVED,
        at=event.at,
        message_id=None if answered is None else answered.message_id,
        submission_id=None if answered is None else answered.submission_id,
        recipients=mail.to,
        data={
            "message_id": mail.rfc_message_id,
            "in_reply_to": mail.in_reply_to,
            "references": list(mail.references),
            "thread_id": str(place.thread_id),
            "provider_thread_id": mail.provider_thread_id,
            "from": mail.from_email,
            "subject": mail.subject,
            "mailer_service": mailer.provider_name,
            "automatic": mail.automatic,
        },
        natural_key=f"{mailer.workspace_id}:received:{mailer.id}:{mail.rfc_message_id}",
    )
