"""Submissions as the worker uses them: content compiled once, kept as long as there is room."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from models.arrays import Ids
from models.content import Address, Content
from models.database import fetch
from providers.base import OutboundEmail
from worker.compose import Compiled, Letter
from worker.dkim import Signer
from worker.lease import Held
from worker.mailers import OpenMailer
from worker.signers import Signers
from worker.tracking import Tracker

KEPT_BYTES = 48 * 1024 * 1024
"""Room for compiled content per worker process."""
EACH_BYTES = 16 * 1024
TIMES_ITS_SIZE = 2.5
"""What one takes: so much, and its mail's size so often. As given, as checked and as compiled, it is there thrice in
part; measured.
"""

_LOAD = """
    select id, workspace_id, awaited, expires_at, send_at, traceparent,
           case when not id = any(%s::uuid[]) then content end as content
    from submission where id = any(%s)
"""
_FILES = text("select sha256, data from blob where workspace_id = :workspace_id and sha256 = any(:hashes)")


@dataclass(frozen=True, slots=True)
class LoadedSubmission:
    content: Content
    compiled: Compiled
    awaited: bool
    expires_at: datetime | None
    send_at: datetime | None
    signer: Signer | None = None
    """Who signs its mails; None where they go out unsigned."""
    traceparent: str | None = None
    """Of the request that brought it; None where nobody traces."""
    return_path: Callable[[UUID], str] | None = None
    """Makes the envelope sender of each message; None leaves it the sender's."""
    reply_path: Callable[[UUID], str] | None = None
    """Makes the address that answers to each message go to; None leaves them to Reply-To and From of the content."""

    def email(self, message: Held, *, tracked: bool = True) -> OutboundEmail:
        """The mail of one message, the same on every attempt. Raises worker.compose.CompositionError."""
        letter = Letter(
            message_id=message.id,
            rfc_message_id=message.rfc_message_id,
            recipients=message.pending,
            to=Address(message.recipients[0], message.recipient_name) if self.content.individual else None,
            variables=message.variables,
            date=self.send_at or message.created_at,
            tracked=tracked,
            reply_to=None
            if self.reply_path is None
            else Address(self.reply_path(message.id), self.content.sender.name),
        )
        email = self.compiled.email(letter, self.signer)
        if self.return_path is not None:
            email = replace(email, envelope_from=self.return_path(message.id))
        return replace(email, draft_id=message.provider_message_id) if message.provider_message_id else email

    def subject(self, message: Held) -> str | None:
        """The rendered subject where it is this message's alone."""
        own = self.content.personalised and message.variables and "{{" in self.content.subject
        return self.compiled.subject(message.variables) if own else None


class Submissions:
    """A cache of compiled content, the least recently used given up first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[UUID, UUID], tuple[Content, Compiled]] = OrderedDict()
        """By submission and mailer: another mailer may want another form."""
        self._bytes = 0

    def load(
        self, connection: Connection, ids: Iterable[UUID], mailer: OpenMailer, tracker: Tracker, signers: Signers
    ) -> dict[UUID, LoadedSubmission]:
        """The submissions with these ids, compiled for the mailer's provider.

        The first ones of the order given, if all together, attachments included, would take more than `KEPT_BYTES`.
        """
        wanted = list(dict.fromkeys(ids))
        known = {id_: kept for id_ in wanted if (kept := self._kept.get((id_, mailer.id)))}
        rows = {row.id: row for row in fetch(connection, _LOAD, [Ids(known), Ids(wanted)])}
        loaded: dict[UUID, LoadedSubmission] = {}
        size = 0
        for id_ in wanted:
            loaded[id_] = self._loaded(connection, rows[id_], known.get(id_), mailer, tracker, signers)
            size += loaded[id_].compiled.size_estimate
            if size > KEPT_BYTES:
                break
        return loaded

    def _loaded(
        self,
        connection: Connection,
        row: Any,
        known: tuple[Content, Compiled] | None,
        mailer: OpenMailer,
        tracker: Tracker,
        signers: Signers,
    ) -> LoadedSubmission:
        """``known`` is held by the caller: what is kept for one submission may push out another of the same batch."""
        key = (row.id, mailer.id)
        if known is None:
            content = Content.from_json(row.content)
            known = content, self._compile(connection, row, content, mailer, tracker)
            self._keep(key, *known)
        elif key in self._kept:
            self._kept.move_to_end(key)
        signs = mailer.provider.wants_signature
        signer = signers.signer(connection, row.workspace_id, known[0].sender.domain) if signs else None
        reply_path = None if known[0].reply_to else mailer.reply_path
        return LoadedSubmission(
            *known, row.awaited, row.expires_at, row.send_at, signer, row.traceparent, mailer.return_path, reply_path
        )

    @staticmethod
    def _compile(connection: Connection, row: Any, content: Content, mailer: OpenMailer, tracker: Tracker) -> Compiled:
        hashes = [attachment.sha256 for attachment in content.attachments]
        found = connection.execute(_FILES, {"workspace_id": row.workspace_id, "hashes": hashes}) if hashes else ()
        return Compiled(
            content,
            seed=row.id,
            form=mailer.provider.form,
            files={file.sha256: file.data for file in found},
            tracker=tracker.at(mailer.tracking_domain) if mailer.tracking_domain else tracker,
            workspace=row.workspace_id,
        )

    def _keep(self, key: tuple[UUID, UUID], content: Content, compiled: Compiled) -> None:
        self._kept[key] = (content, compiled)
        self._bytes += _room(compiled)
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._bytes -= _room(dropped)


def _room(compiled: Compiled) -> int:
    """Bytes of memory, its content included."""
    return EACH_BYTES + int(TIMES_ITS_SIZE * compiled.size_estimate)
