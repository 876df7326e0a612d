"""What has become of mail, as an exit code; and waiting for it."""

import time
from typing import Any

from deploy.commands.remote import FAILED, PARTLY, Remote, path_of
from models.message import OPEN

ARRIVED = ("sent", "delivered", "complained")
"""States of mail that the recipient's server took."""
POLL_SECONDS = 0.2


def exit_code(counts: dict[str, int]) -> int:
    """0 as long as nothing has failed, 5 if some has, 1 if everything has."""
    lost = sum(counts.values()) - sum(counts[state] for state in ARRIVED) - unfinished(counts)
    if not lost:
        return 0
    return FAILED if lost == sum(counts.values()) else PARTLY


def unfinished(counts: dict[str, int]) -> int:
    return sum(counts[state] for state in OPEN)


def wait_for(remote: Remote, ref_id: str, seconds: float) -> dict[str, Any]:
    """The submission when it is finished, or as it is after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found: dict[str, Any] = remote.get(path_of("submissions", ref_id))
        if found["finished_at"] is not None or time.monotonic() >= deadline:
            return found
        time.sleep(POLL_SECONDS)
