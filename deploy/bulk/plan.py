"""A file cut into requests. The same file, content and campaign always make the same requests under the same keys."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson

from api_shim.errors import ApiError, Fault
from api_shim.shapes import mailer
from deploy.bulk.recipients import MAX_NAMED, BulkError, Recipient
from worker.template import variables_in

CHUNK = 5_000
"""Recipients of one request. Part of what the keys mean: a change of it makes all keys new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What everybody gets, before the variables are filled in."""

    mailer_id: str
    sender: str
    subject: str
    html: str | None = field(repr=False)
    text: str | None = field(repr=False)

    @property
    def digest(self) -> str:
        parts = [self.mailer_id, self.sender, self.subject, self.html, self.text]
        return hashlib.sha256(orjson.dumps(parts)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One request."""

    number: int
    key: str
    """Its Idempotency-Key."""
    size: int
    body: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is to be sent."""

    file_digest: str
    recipients: Sequence[Recipient] = field(repr=False)
    content: Content
    campaign_id: str

    @property
    def id(self) -> str:
        """Names this file in this campaign."""
        return hashlib.sha256(orjson.dumps([self.file_digest, self.campaign_id, CHUNK])).hexdigest()[:32]

    def chunks(self) -> Iterator[Chunk]:
        for number, start in enumerate(range(0, len(self.recipients), CHUNK)):
            rows = self.recipients[start : start + CHUNK]
            yield Chunk(number=number, key=f"bulk-{self.id}-{number}", size=len(rows), body=self.body(rows))

    def body(self, rows: Sequence[Recipient]) -> dict[str, Any]:
        """The request in the mailer shape."""
        parts = (("text/plain", self.content.text), ("text/html", self.content.html))
        return {
            "mailer_id": self.content.mailer_id,
            "from": {"email": self.content.sender},
            "to": [_mailbox(row) for row in rows],
            "subject": self.content.subject,
            "content": [{"type": kind, "value": value} for kind, value in parts if value is not None],
            "substitutions": {row.email: row.variables for row in rows},
            "settings": {},
            "campaign_id": self.campaign_id,
        }

    def check(self) -> None:
        """Reads every request as the server will, so that none is refused when others are sent already.

        Raises BulkError naming lines of the file.
        """
        self._check_columns()
        faults: list[str] = []
        for start in range(0, len(self.recipients), CHUNK):
            rows = self.recipients[start : start + CHUNK]
            try:
                mailer.parse(self.body(rows))
            except ApiError as error:
                faults += [_told(fault, rows) for fault in error.faults]
        if faults:
            more = [f"and {len(faults) - MAX_NAMED} more"] if len(faults) > MAX_NAMED else []
            raise BulkError(
                "\n".join(["Nothing was sent, because the server would refuse this:", *faults[:MAX_NAMED], *more])
            )

    def _check_columns(self) -> None:
        wanted = variables_in(self.content.subject, self.content.html, self.content.text)
        known = self.recipients[0].variables
        if missing := sorted(wanted - known.keys()):
            raise BulkError(f"No column for {', '.join(missing)}. The columns are {', '.join(known)}.")


def _mailbox(row: Recipient) -> dict[str, str]:
    name = row.variables.get("name", "").strip()
    return {"email": row.email} | ({"name": name} if name else {})


def _told(fault: Fault, rows: Sequence[Recipient]) -> str:
    """A fault with the line in place of the position in the request."""
    if found := re.match(r"to\[(\d+)\]", fault.field):
        return f"  line {rows[int(found[1])].line}: {fault.message}"
    named = next(islice((row for row in rows if row.email in fault.message), 1), None)
    return f"  line {named.line}: {fault.message}" if named else f"  {fault.field}: {fault.message}"
