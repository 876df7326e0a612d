"""Who is measured beside us."""

from dataclasses import dataclass
from importlib.metadata import version


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A way to send mail: a module of `programs`, and the library's own workers that run it."""

    name: str
    """For programs: ``celery``."""
    title: str
    program: str
    """Has ``submit``, which puts mails into the queue, and ``prepare`` where something is to be made first."""
    workers: tuple[str, ...] = ()
    """The command of each, after ``python -m``. None where submitting also sends."""
    requirements: tuple[str, ...] = ()
    """What pip installs; nothing if our own environment has it."""
    keep: bool = False
    """Whether a worker sends all of its mails over one SMTP connection."""


_CELERY = ("celery -A programs.with_celery worker --concurrency 2 --loglevel WARNING",)
_REDIS = "redis==8.1.0"
_PSYCOPG = "psycopg[binary,pool]==3.3.9"

PEERS = (
    Peer(
        name="celery",
        title=f"Celery {version('celery')}, a task per mail, new connections",
        program="with_celery",
        workers=_CELERY,
    ),
    Peer(
        name="celery_kept",
        title=f"Celery {version('celery')}, a task per mail, kept connections",
        program="with_celery",
        workers=_CELERY,
        keep=True,
    ),
    Peer(
        name="post_office",
        title="django-post_office 3.12.0, send_many, two processes",
        program="with_post_office",
        requirements=("django-post_office==3.12.0", "Django==5.2.19", _PSYCOPG),
    ),
    Peer(
        name="dramatiq",
        title="dramatiq 2.2.1, an actor per mail, kept connections",
        program="with_dramatiq",
        workers=("dramatiq programs.with_dramatiq --processes 2",),
        requirements=("dramatiq==2.2.1", _REDIS),
        keep=True,
    ),
    Peer(
        name="procrastinate",
        title="procrastinate 3.10.0, a job per mail, kept connections",
        program="with_procrastinate",
        workers=("procrastinate --app programs.with_procrastinate.app worker",) * 2,
        requirements=("procrastinate==3.10.0", _PSYCOPG),
        keep=True,
    ),
    Peer(
        name="rq",
        title="RQ 3.0.0, a job per mail, new connections",
        program="with_rq",
        workers=("rq.cli worker mails --quiet",) * 2,
        requirements=("rq==3.0.0", _REDIS),
    ),
)
"""Two processes each that send; all else as the library comes."""
