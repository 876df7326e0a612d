"""What the bench asks of a peer, in a file that both sides read."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = "POSTROAD_PEER_JOB"
"""Of the environment: the path of the file."""

Variables = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The mails, and where everything is."""

    port: int
    """Of the SMTP server on this machine."""
    sender: str
    subject: str
    text: str
    html: str
    people: list[tuple[str, Variables]]
    """Address and variables of each mail."""
    keep: bool
    """Whether a worker keeps its SMTP connection."""
    redis_url: str = field(repr=False)
    database_url: str = field(repr=False)
    folder: str
    """Where files may be left."""


def load() -> Job:
    return Job(**json.loads(Path(os.environ[VARIABLE]).read_text()))
