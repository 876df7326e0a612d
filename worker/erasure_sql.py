"""Where addresses stand: the statements of `worker.erasure`.

Each takes ``workspace``, ``address`` (lower case), ``pattern`` (a regular expression that finds it) and ``erased``
(what stands in its place). Those about mails take their ``ids``. Run again they change nothing.
"""

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB


def _replaced(column: str) -> str:
    """An array of addresses with the person's one overwritten, in its order."""
    return f"""array(select case when lower(one) = :address then :erased else one end
                     from unnest({column}) with ordinality as each(one, place) order by place)"""  # noqa: S608 -- names of our own


def _page(key: str, order: str, table: str, named: str) -> str:
    """The workspace's next rows: ``found``, the keys of those that name the person, and ``last``, where to go on."""
    return f"""
        with page as (select {key} as id, {order} as place, {named} as named from {table}
                      where workspace_id = :workspace and {order} > :after order by {order} limit :limit)
        select array_agg(id) filter (where named ~* :pattern) as found,
               (array_agg(place order by place desc))[1] as last
        from page
    """  # noqa: S608 -- names of our own


PENDING = text("select id, workspace_id, sealed_address, with_contacts, with_suppressions from erasure "
               "where finished_at is null order by id limit 100")  # fmt: skip

# Counts of an earlier try, which was stopped or had to wait, are added to.
FINISH = text("""
    update erasure set finished_at = :finished_at,
        sealed_address = case when cast(:finished_at as timestamptz) is null then sealed_address end,
        report = (select coalesce(jsonb_object_agg(name, count), '{}') from (
            select name, sum(count) as count from (
                select key as name, value::int as count from jsonb_each_text(report)
                union all select * from unnest(cast(:names as text[]), cast(:counts as int[]))) added
            group by name having sum(count) > 0) summed)
    where id = :id and finished_at is null
""")

LOGGED = text(_page("message_id", "message_id", "email_log", "array_to_string(recipients || cc, ' ')"))
MESSAGES = text(_page("id", "id", "message", "array_to_string(recipients, ' ')"))
EVENTS = text(_page("id", "cursor", "event", "concat_ws(' ', array_to_string(recipients, ' '), data)"))

BUSY = text("select count(*) from message where id = any(:ids) and state in ('claimed', 'sending')")

# Nobody else gets it: it is not sent any more. Of an uncertain one it will never be known.
CANCEL = text("""
    with taken as (
        update message set state = case state when 'queued' then 'cancelled' else 'failed' end::message_state,
            due_at = null, finished_at = clock_timestamp(), reason = null
        where id = any(:ids) and state in ('queued', 'uncertain') and cardinality(recipients) = 1
          and lower(recipients[1]) = :address
        returning id
    ), outbox as (
        insert into followup (message_ids) select array_agg(id) from taken having count(*) > 0
    )
    select count(*) from taken
""")

# Others get it too: it goes to them alone.
LEAVE_OUT = text("""
    update message set recipients = array(select one from unnest(recipients) with ordinality as each(one, place)
                                          where lower(one) <> :address order by place),
        outcomes = (select jsonb_object_agg(key, value) from jsonb_each(outcomes) where lower(key) <> :address)
    where id = any(:ids) and state in ('queued', 'uncertain') and cardinality(recipients) > 1
      and array_to_string(recipients, ' ') ~* :pattern
""")

MESSAGE = text(f"""
    update message set recipients = {_replaced("recipients")},
        recipient_name = case when cardinality(recipients) > 1 then recipient_name end,
        variables = case when cardinality(recipients) > 1 then variables end,
        subject = case when cardinality(recipients) > 1 then subject end, reason = null,
        attempts = (select coalesce(jsonb_agg(jsonb_build_object('at', one->'at', 'outcome', one->'outcome')), '[]')
                    from jsonb_array_elements(attempts) one),
        outcomes = (select jsonb_object_agg(key, value - 'detail') from jsonb_each(outcomes)
                    where lower(key) <> :address)
    where id = any(:ids) and finished_at is not null
""")  # noqa: S608 -- constants

LOG = text(f"""
    update email_log set recipients = {_replaced("recipients")}, cc = {_replaced("cc")}, error = null,
        recipient_email = case when lower(recipient_email) = :address then :erased else recipient_email end,
        subject = case when cardinality(recipients) > 1 then subject else '' end,
        attachment_filename = case when cardinality(recipients) > 1 then attachment_filename end
    where message_id = any(:ids)
""")  # noqa: S608 -- constants

ACTIVITY = text("update activity set subject = null, detail = '{}' where message_id = any(:ids)")

SUBMISSIONS = text("""
    select s.id, s.content, not exists (
        select from message other where other.submission_id = s.id and other.recipients <> array[:erased]) as theirs
    from submission s where s.id in (select submission_id from message where id = any(:ids)) for update
""")
SUBMISSION = text("""
    update submission set content = :content, custom_args = case when not :theirs then custom_args end,
        phishing = case when not :theirs then phishing end
    where id = :id
""").bindparams(bindparam("content", type_=JSONB))

EVENT = text(f"""
    update event set recipients = {_replaced("recipients")},
        data = (select coalesce(jsonb_object_agg(key, value), '{{}}') from jsonb_each(data) where key = any(:kept))
    where id = any(:ids)
""")  # noqa: S608 -- constants
DELIVERY = text("""
    update webhook_delivery set attempts = '[]'
    where event_id = any(:ids) and attempts <> '[]'
      and endpoint_id in (select id from webhook_endpoint where workspace_id = :workspace)
""")

RECEIVED = text("""
    select i.id, i.attachments from inbound_message i join thread t on t.id = i.thread_id
    where t.workspace_id = :workspace and t.participants @> array[cast(:address as text)]
      and (lower(i.from_email) = :address or array_to_string(i.to_emails || i.cc_emails, ' ') ~* :pattern)
""")
_THEIRS = "lower(from_email) = :address"
RECEIVED_WIPED = text(f"""
    update inbound_message set to_emails = {_replaced("to_emails")}, cc_emails = {_replaced("cc_emails")},
        subject = case when {_THEIRS} then '' else subject end, text = case when not {_THEIRS} then text end,
        html = case when not {_THEIRS} then html end, from_name = case when not {_THEIRS} then from_name end,
        attachments = case when {_THEIRS} then '[]' else attachments end,
        from_email = case when {_THEIRS} then :erased else from_email end
    where id = any(:ids)
""")  # noqa: S608 -- constants
THREADS = text("""
    update thread set participants = array_remove(participants, :address),
        subject = case when cardinality(participants) > 2 then subject else '' end
    where workspace_id = :workspace and participants @> array[cast(:address as text)]
""")

REPORTS = text("""
    delete from provider_report
    where workspace_id = :workspace and position(convert_to(:address, 'UTF8') in body) > 0
""")
CONTACTS = text("delete from contact where workspace_id = :workspace and lower(email) = :address")
SUPPRESSIONS = text("delete from suppression where workspace_id = :workspace and address = :address")

HOLD_FILES = text("""
    select sha256 from blob where workspace_id = :workspace and sha256 = any(:hashes) order by sha256 for update
""")
FILES = text("""
    delete from blob b where workspace_id = :workspace and sha256 = any(:hashes)
      and not exists (
        select from submission s where s.workspace_id = :workspace
          and s.content->'attachments' @> jsonb_build_array(jsonb_build_object('sha256', b.sha256)))
      and not exists (
        select from inbound_message i where i.workspace_id = :workspace
          and i.attachments @> jsonb_build_array(jsonb_build_object('sha256', b.sha256)))
""")
