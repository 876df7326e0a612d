"""What became of promised mail: the rows on one side, what the provider took on the other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from models.message import UNTIL_SOMEBODY_ACTS

REACHED = ("sent", "delivered", "bounced", "complained")
OPEN = ("queued", "claimed", "sending", "uncertain")

_MESSAGES: LiteralString = """
    select m.id, m.state::text, m.rfc_message_id, m.due_at, m.reason,
           (select count(*) from email_log l where l.message_id = m.id) as logs,
           (select count(*) from activity a where a.message_id = m.id and a.kind = 'email_sent') as activities,
           (select count(*) from event e where e.message_id = m.id and e.type = 'delivered') as events
    from message m join submission s on s.id = m.submission_id where s.campaign_id = %s
"""
_OUTBOX: LiteralString = "select message_ids from followup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """Counts of mails. Everything but ``promised``, ``sent``, ``failed`` and ``uncertain`` should be 0."""

    promised: int
    """Mails that were answered 202 or 200."""
    sent: int
    failed: int
    """Finished without being sent, and not at the provider."""
    uncertain: int
    """Held for a person, because the provider cannot be asked; there at most once."""
    lost: int
    """Promised and without a row; or finished in a state that the provider's books contradict."""
    ghosts: int
    """Sent, if one believes the row, but never taken by the provider."""
    doubled: int
    """Copies that the provider took beyond the first."""
    stuck: int
    """Neither finished nor waiting for a person."""
    unrecorded: int
    """Sent without exactly one log row, activity and event."""


def judge(promised: int, rows: Sequence[Mapping[str, Any]], ledger: Mapping[str, int], open_ids: set[Any]) -> Fate:
    """The fate of one scenario's mail. ledger: Message-ID -> copies that the provider took."""
    states = Counter(row["state"] for row in rows)
    sent = [row for row in rows if row["state"] in REACHED]
    finished = [row for row in rows if row["state"] not in (*REACHED, *OPEN)]
    held = [row for row in rows if row["state"] == "uncertain" and row["due_at"] == UNTIL_SOMEBODY_ACTS]
    contradicted = [row for row in finished if ledger.get(row["rfc_message_id"], 0)]
    ghosts = [row for row in sent if not ledger.get(row["rfc_message_id"], 0)]
    once = ((row["logs"], row["activities"], row["events"]) == (1, 1, 1) for row in sent)
    return Fate(
        promised=promised,
        sent=len(sent),
        failed=len(finished) - len(contradicted),
        uncertain=len(held),
        lost=max(0, promised - len(rows)) + len(contradicted) + len(ghosts),
        ghosts=len(ghosts),
        doubled=sum(max(0, ledger.get(row["rfc_message_id"], 0) - 1) for row in rows),
        stuck=sum(states[state] for state in OPEN) - len(held) + sum(row["id"] in open_ids for row in rows),
        unrecorded=sum(not fine for fine in once),
    )


def look(connection: psycopg.Connection[Any], campaign: str, promised: int, ledger: Mapping[str, int]) -> Fate:
    """Reads the rows of a campaign and judges. The ledger is read first: what it holds by then has a row."""
    known = dict(ledger)
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
    rows = cursor.execute(_MESSAGES, (campaign,)).fetchall()
    outbox = {message_id for row in cursor.execute(_OUTBOX).fetchall() for message_id in row["message_ids"]}
    return judge(promised, rows, known, outbox)
