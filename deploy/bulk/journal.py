"""What this machine knows of a run: the requests that were taken. Kept, because the server forgets keys after a day."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deploy.bulk.plan import Chunk, Plan
from deploy.bulk.recipients import BulkError
from deploy.identity import write_private

REMEMBERED = timedelta(hours=23)
"""So long, less a margin, the server knows an Idempotency-Key again."""


def state_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "postroad" / "bulk"


class Journal:
    """One file for each plan and server."""

    def __init__(self, plan: Plan, url: str) -> None:
        self._path = state_folder() / f"{plan.id}.json"
        self._plan = plan
        kept = self._load()
        self.is_new = kept is None
        self._content: dict[str, Any] = kept or {
            "url": url,
            "campaign_id": plan.campaign_id,
            "content": plan.content.digest,
            "taken": {},
            "begun": {},
        }
        if self._content["url"] != url:
            raise BulkError(f"This file went to campaign {plan.campaign_id} at {self._content['url']}, not at {url}.")
        if self._content["content"] != plan.content.digest:
            raise BulkError(
                f"Campaign {plan.campaign_id} was begun with another template, subject, mailer or address to send "
                "from. Use those, or another --campaign to send to everybody again."
            )

    def _load(self) -> dict[str, Any] | None:
        try:
            kept: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            raise BulkError(f"{self._path}, the record of this run, is damaged.") from None
        return kept

    @property
    def ref_ids(self) -> list[str]:
        """Submissions that were taken, in order."""
        return list(self._content["taken"].values())

    def has(self, chunk: Chunk) -> bool:
        return str(chunk.number) in self._content["taken"]

    def begin(self, chunk: Chunk) -> None:
        """Notes that the request goes out now. Raises BulkError if it did so long ago, and nobody knows its answer."""
        begun = self._content["begun"].setdefault(str(chunk.number), datetime.now(UTC).isoformat())
        if datetime.now(UTC) - datetime.fromisoformat(begun) > REMEMBERED:
            raise BulkError(
                f"Request {chunk.number + 1} of campaign {self._plan.campaign_id} was begun on {begun}, its answer "
                "never came, and the server has forgotten its key since: whether it was taken is not known. Compare "
                "`postroad campaign export` with the file, and send what is missing under another --campaign."
            )
        self._save()

    def take(self, chunk: Chunk, ref_id: str) -> None:
        """Notes that the request was taken."""
        self._content["taken"][str(chunk.number)] = ref_id
        self._save()

    def withdraw(self, chunk: Chunk) -> None:
        """Notes that the request was refused: nothing of it was taken."""
        del self._content["begun"][str(chunk.number)]
        self._save()

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._path, self._content)
