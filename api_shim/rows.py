"""The rows that submissions become, and how they get into the database: one COPY for a table, however many they are."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg import Connection
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api_shim.auth import Caller
from api_shim.conversation import Conversation
from api_shim.sender import Sender
from api_shim.submission import Submission
from api_shim.templates import Wording
from models.base import uuid7
from models.content import Address, Content, message_id_for
from models.message import State
from worker.bell import SEND_QUEUES
from worker.phishing import Suspicion
from worker.series import ACCEPTED

Row = tuple[Any, ...]

_SUBMISSION = {
    "id": "uuid", "workspace_id": "uuid", "api_key_id": "uuid", "request_id": "text", "traceparent": "text",
    "shape": "text", "priority": "int2", "mailer_id": "uuid", "campaign_id": "text", "content": "text",
    "phishing": "text", "contact_id": "uuid", "deal_id": "uuid", "customer_id": "uuid", "sender_user_id": "uuid",
    "custom_args": "text", "total": "int4", "awaited": "bool", "send_at": "timestamptz", "expires_at": "timestamptz",
}  # fmt: skip
_MESSAGE = {
    "id": "uuid", "workspace_id": "uuid", "submission_id": "uuid", "mailer_id": "uuid", "priority": "int2",
    "state": "text", "due_at": "timestamptz", "recipients": "text[]", "recipient_name": "text", "variables": "text",
    "rfc_message_id": "text", "thread_id": "uuid", "created_at": "timestamptz",
}  # fmt: skip
"""Columns with their types on the way in; JSON goes as the text it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A submission after everything that the database has to say about it; nothing is stored yet."""

    sender: Sender
    words: Wording
    earlier: Conversation
    content: Content
    suspicion: Suspicion | None
    """What ``settings.phishing_protection`` found; None where it is off."""


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
        """Of table submission, as `_SUBMISSION` names the columns."""
        submission, prepared = self._submission, self._prepared
        links = {link.kind: link.id for link in submission.links}
        return (
            self.id,
            self._caller.workspace_id,
            self._caller.key_id,
            self._request_id,
            self._traceparent,
            submission.shape.value,
            int(submission.priority),
            self.sender.mailer.id,
            submission.campaign_id,
            prepared.content.encoded(),
            orjson.dumps(prepared.suspicion.to_json()).decode() if prepared.suspicion else None,
            links.get("contact"),
            links.get("deal"),
            links.get("customer"),
            self.sender.user_id,
            None if submission.custom_args is None else orjson.dumps(submission.custom_args).decode(),
            self.total,
            self._awaited,
            submission.send_at,
            submission.expires_at,
        )

    def messages(self) -> Iterator[Row]:
        """Of table message, as `_MESSAGE` names the columns."""
        submission, now = self._submission, datetime.now(UTC)
        mailer_id, priority = self.sender.mailer.id, int(submission.priority)
        for position, (recipients, name, variables) in enumerate(self._envelopes()):
            message_id = uuid7() if position else self.first_id
            yield (
                message_id,
                self._caller.workspace_id,
                self.id,
                mailer_id,
                priority,
                State.QUEUED.value,
                # A microsecond apart, so that a lane goes out in the order in which it came in.
                self._due_at + timedelta(microseconds=position) if position else self._due_at,
                recipients,
                name,
                variables,
                self.rfc_message_id(message_id),
                self.thread_id,
                now,
            )

    def _envelopes(self) -> Iterator[tuple[list[str], str | None, str | None]]:
        submission = self._submission
        if not submission.individual:
            everyone: Sequence[Address] = (*submission.to, *submission.cc, *submission.bcc)
            yield list({address.email: None for address in everyone}), None, None
            return
        given, defaults = submission.substitutions or {}, self._prepared.words.defaults
        for address in submission.to:
            variables = {**defaults, **given.get(address.email.lower(), {})}
            yield [address.email], address.name, orjson.dumps(variables).decode() if variables else None


def store(session: Session, entries: Sequence[Entry]) -> None:
    """Writes the rows of all entries in the session's transaction. Raises what SQLAlchemy raises."""
    raw = session.connection().connection.driver_connection
    if not isinstance(raw, Connection):
        raise TypeError("the session has no database connection")
    try:
        _write(raw, entries)
    except (psycopg.OperationalError, ReadOnlySqlTransaction) as error:
        raise OperationalError("copy", None, error, hide_parameters=True) from error


def _write(raw: Connection[Any], entries: Sequence[Entry]) -> None:
    _copy(raw, "submission", _SUBMISSION, (entry.row() for entry in entries))
    _copy(raw, "message", _MESSAGE, (row for entry in entries for row in entry.messages()))
    _count(raw, entries)


_COUNT = """
    insert into metric_count (name, labels, value)
    select %s, array[lane, shape], mails
    from unnest(%s::text[], %s::text[], %s::float8[]) as counted(lane, shape, mails)
"""


def _count(raw: Connection[Any], entries: Sequence[Entry]) -> None:
    mails: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        mails[entry.counted_as] += entry.total
    lanes, shapes = zip(*mails, strict=True) if mails else ((), ())
    raw.execute(_COUNT, (ACCEPTED.name, list(lanes), list(shapes), list(mails.values())))


def _copy(raw: Connection[Any], table: str, columns: dict[str, str], rows: Iterable[Row]) -> None:
    with raw.cursor() as cursor, cursor.copy(f"copy {table} ({', '.join(columns)}) from stdin") as copy:
        copy.set_types(list(columns.values()))
        for row in rows:
            copy.write_row(row)
