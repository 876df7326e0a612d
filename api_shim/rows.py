"""The rows that submissions become, and how they get into the database: in one statement, a long list by COPY."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy.orm import Session

from api_shim.auth import Caller
from api_shim.conversation import Conversation
from api_shim.sender import Sender
from api_shim.submission import Submission
from api_shim.templates import Wording
from models.arrays import Ids
from models.base import uuid7
from models.content import Address, Content, message_id_for
from models.database import copying, fetch
from models.message import State
from worker.bell import SEND_QUEUES
from worker.phishing import Suspicion
from worker.series import ACCEPTED

Row = Mapping[str, Any]

MANY = 500
"""So many messages of one submission are worth a COPY of their own, and with it a transaction."""

_SUBMISSION = {
    "id": "uuid", "workspace_id": "uuid", "api_key_id": "uuid", "request_id": "text", "traceparent": "text",
    "shape": "text", "priority": "int2", "mailer_id": "uuid", "campaign_id": "text", "content": "jsonb",
    "phishing": "jsonb", "contact_id": "uuid", "deal_id": "uuid", "customer_id": "uuid", "sender_user_id": "uuid",
    "custom_args": "jsonb", "total": "int4", "awaited": "bool", "send_at": "timestamptz", "expires_at": "timestamptz",
}  # fmt: skip
_MESSAGE = {
    "id": "uuid", "workspace_id": "uuid", "submission_id": "uuid", "mailer_id": "uuid", "priority": "int2",
    "state": "message_state", "due_at": "timestamptz", "recipients": "text[]", "recipient_name": "text",
    "variables": "jsonb", "rfc_message_id": "text", "thread_id": "uuid", "created_at": "timestamptz",
}  # fmt: skip
_COUNTED = {"name": "text", "labels": "text[]", "value": "float8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A submission after everything that the database has to say about it; nothing is stored yet."""

    sender: Sender
    words: Wording
    earlier: Conversation
    content: Content
    suspicion: Suspicion | None
    """What ``settings.phishing_protection`` found; None where it is off."""


class MailerGoneError(Exception):
    """A mailer was deleted since it was looked up; nothing was stored."""


class Entry:
    """One submission on its way in. Its messages are made one at a time: a hundred thousand need no list."""

    def __init__(
        self,
        caller: Caller,
        submission: Submission,
        prepared: Prepared,
        *,
        due_at: datetime,
        request_id: str | None,
        traceparent: str | None,
        awaited: bool,
    ) -> None:
        self.id = uuid7()
        self.first_id = uuid7()
        self.total = len(submission.to) if submission.individual else 1
        # A conversation is opened for every mail to one person or one group; a campaign's mails get theirs when
        # somebody answers.
        self.thread_id = prepared.earlier.thread_id or (uuid7() if self.total == 1 else None)
        self.sender = prepared.sender
        self._caller = caller
        self._submission = submission
        self._prepared = prepared
        self._due_at = due_at
        self._request_id = request_id
        self._traceparent = traceparent
        self._awaited = awaited

    def rfc_message_id(self, message_id: UUID) -> str:
        # Gmail replaces Message-IDs; a caller's own would only be a wrong promise (inventory C27).
        custom = self._submission.custom_message_id if self.sender.mailer.provider != "gmail" else None
        return message_id_for(message_id, self.sender.address.domain, custom)

    @property
    def counted_as(self) -> tuple[str, str]:
        """The labels of `worker.series.ACCEPTED`."""
        return SEND_QUEUES[self._submission.priority], self._submission.shape.value

    def row(self) -> Row:
        """Of table submission; null columns are left out."""
        submission, prepared = self._submission, self._prepared
        return {
            "id": self.id,
            "workspace_id": self._caller.workspace_id,
            "api_key_id": self._caller.key_id,
            "request_id": self._request_id,
            "traceparent": self._traceparent,
            "shape": submission.shape,
            "priority": int(submission.priority),
            "mailer_id": self.sender.mailer.id,
            "campaign_id": submission.campaign_id,
            "content": prepared.content.filled(),
            "phishing": prepared.suspicion.to_json() if prepared.suspicion else None,
            **{f"{link.kind}_id": link.id for link in submission.links},
            "sender_user_id": self.sender.user_id,
            "custom_args": submission.custom_args,
            "total": self.total,
            "awaited": self._awaited,
            "send_at": submission.send_at,
            "expires_at": submission.expires_at,
        }

    def messages(self) -> Iterator[Row]:
        """Of table message."""
        now = datetime.now(UTC)
        shared = {
            "workspace_id": self._caller.workspace_id,
            "submission_id": self.id,
            "mailer_id": self.sender.mailer.id,
            "priority": int(self._submission.priority),
            "state": State.QUEUED,
            "thread_id": self.thread_id,
            "created_at": now,
        }
        for position, (recipients, name, variables) in enumerate(self._envelopes()):
            message_id = uuid7() if position else self.first_id
            yield {
                **shared,
                "id": message_id,
                # A microsecond apart, so that a lane goes out in the order in which it came in.
                "due_at": self._due_at + timedelta(microseconds=position) if position else self._due_at,
                "recipients": recipients,
                "recipient_name": name,
                "variables": variables,
                "rfc_message_id": self.rfc_message_id(message_id),
            }

    def _envelopes(self) -> Iterator[tuple[list[str], str | None, Mapping[str, str] | None]]:
        submission = self._submission
        if not submission.individual:
            everyone: Sequence[Address] = (*submission.to, *submission.cc, *submission.bcc)
            yield list({address.email: None for address in everyone}), None, None
            return
        given, defaults = submission.substitutions or {}, self._prepared.words.defaults
        for address in submission.to:
            yield [address.email], address.name, {**defaults, **given.get(address.email.lower(), {})} or None


def store(session: Session, entries: Sequence[Entry]) -> None:
    """Writes the rows of all entries: one statement, unless one of them makes `MANY` messages.

    Raises MailerGoneError, and what SQLAlchemy raises.
    """
    if not entries:
        return
    is_many = any(entry.total >= MANY for entry in entries)
    mailers = Ids({entry.sender.mailer.id for entry in entries})
    submissions = [entry.row() for entry in entries]
    messages = [] if is_many else [message for entry in entries for message in entry.messages()]
    counted = _counted(entries)
    given = [orjson.dumps(rows).decode() for rows in (submissions, messages, counted)]
    (stored,) = fetch(session, STORE, [mailers, given[0], len(mailers), given[1], given[2]])
    if not stored.submissions:
        raise MailerGoneError
    if is_many:
        _copy(session, (message for entry in entries for message in entry.messages()))


def _given(columns: Mapping[str, str]) -> str:
    """The rows of one table, given as a JSON array."""
    types = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    return f"json_to_recordset(%s::json) as given({types})"


def _names(columns: Mapping[str, str], prefix: str = "") -> str:
    return ", ".join(prefix + name for name in columns)


# All or nothing: only under mailers that are there and stay until the commit. The lock is the one that the foreign key
# takes anyway.
STORE = f"""
    with alive as materialized (
             select id from mailer where id = any(%s) and deleted_at is null order by id for key share
         ),
         stored as (
             insert into submission ({_names(_SUBMISSION)}) select {_names(_SUBMISSION, "given.")}
             from {_given(_SUBMISSION)} where (select count(*) from alive) = %s
             returning id
         ),
         messages as (
             insert into message ({_names(_MESSAGE)}) select {_names(_MESSAGE, "given.")}
             from {_given(_MESSAGE)} join stored on stored.id = given.submission_id
         ),
         counted as (
             insert into metric_count ({_names(_COUNTED)}) select {_names(_COUNTED)}
             from {_given(_COUNTED)} where exists (select from stored)
         )
    select count(*) as submissions from stored
"""  # noqa: S608 -- of names that stand above


def _counted(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    mails: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        mails[entry.counted_as] += entry.total
    return [{"name": ACCEPTED.name, "labels": labels, "value": count} for labels, count in mails.items()]


def _copy(session: Session, messages: Iterable[Row]) -> None:
    """JSON goes as the text that it is, and an enum as its word."""
    types = [{"jsonb": "text", "message_state": "text"}.get(kind, kind) for kind in _MESSAGE.values()]
    with copying(session, f"copy message ({_names(_MESSAGE)}) from stdin") as copy:
        copy.set_types(types)
        for message in messages:
            variables = message["variables"]
            encoded = variables and orjson.dumps(variables).decode()
            copy.write_row([encoded if name == "variables" else message[name] for name in _MESSAGE])
