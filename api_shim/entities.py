"""What the ids in submissions lead to in the callers' workspaces: each looked up once in a transaction, all of a kind
in one query, before anything is stored.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from api_shim.errors import ApiError, Missing
from api_shim.submission import Submission
from models.arrays import Ids
from models.database import fetch
from models.mailer import Mailer

Key = tuple[UUID, UUID]
"""Workspace and id."""


_ROWS = """
    select '{0}' as kind, workspace_id, id, null as version from "{0}" where workspace_id = any(%s) and id = any(%s)
"""
# The lock is the one that storing a submission takes anyway.
_MAILERS = """
    select 'mailer' as kind, workspace_id, id, version from (
        select workspace_id, id, xmin::text as version from mailer
        where workspace_id = any(%s) and id = any(%s) and deleted_at is null order by id for key share
    ) held
"""

CONFIGS = """
    select config.id as config_id, config.mailer_id, config.gmail_user_id, config.gmail_sender_alias, config.from_name,
           config.from_email_handle || '@' || workspace.mail_domain as email
    from email_config config join workspace on workspace.id = config.workspace_id
"""
"""Senders of a company."""

# One row, of nulls where there is none.
_DEFAULTS = f"""
    select held.id, held.version, config.*, own.version as own_version
    from (values (%(workspace)s, %(user)s::uuid)) asked (workspace_id, user_id)
    left join lateral (
        select id, xmin::text as version from mailer
        where workspace_id = asked.workspace_id and deleted_at is null and user_id is not distinct from asked.user_id
        order by is_default desc, id limit 1 for key share
    ) held on true
    left join lateral (
        {CONFIGS} where config.workspace_id = asked.workspace_id and config.is_default limit 1
    ) config on true
    left join lateral (
        select xmin::text as version from mailer
        where workspace_id = asked.workspace_id and id = config.mailer_id and deleted_at is null for key share
    ) own on true
"""  # noqa: S608 -- of constants

KEPT_MAILERS = 1_000

_loaded: OrderedDict[UUID, tuple[str, Mailer]] = OrderedDict()
"""Mailers by id, with the version of the row: most requests name one that the last request named, too."""


class Known:
    """What one transaction has found out. The mailers it knows cannot be deleted before the transaction ends."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._found: set[tuple[str, UUID, UUID]] = set()
        self._asked: set[tuple[str, UUID, UUID]] = set()
        self._mailers: dict[Key, Mailer] = {}
        self._defaults: dict[tuple[UUID, UUID | None], Any] = {}

    def look_up(self, named: Iterable[tuple[UUID, Submission]]) -> None:
        """Finds everything that some submissions of some workspaces name."""
        wanted: defaultdict[str, set[Key]] = defaultdict(set)
        for workspace_id, submission in named:
            for _, table, id_ in _named(submission):
                if (table, workspace_id, id_) not in self._asked:
                    wanted[table].add((workspace_id, id_))
        if wanted:
            self._find(wanted)

    def mailer(self, workspace_id: UUID, id_: UUID) -> Mailer | None:
        """A mailer by its id, unless it was deleted."""
        if ("mailer", workspace_id, id_) not in self._asked:
            self._find({"mailer": {(workspace_id, id_)}})
        return self._mailers.get((workspace_id, id_))

    def default_mailer(self, workspace_id: UUID, user_id: UUID | None = None) -> Mailer | None:
        """The default mailer of a user, or of the workspace; where none is marked, the oldest."""
        row = self._default(workspace_id, user_id)
        return self._loaded(row.id, row.version) if row.id else None

    def default_config(self, workspace_id: UUID) -> Any | None:
        """The default sender of a company, as a row of `CONFIGS`."""
        row = self._default(workspace_id, None)
        return row if row.config_id else None

    def require(self, workspace_id: UUID, submission: Submission) -> None:
        """Raises VALIDATION_ERROR listing every id that is not in the workspace, each under the caller's own field
        name.
        """
        named = _named(submission)
        if all((table, workspace_id, id_) in self._found for _, table, id_ in named):
            return
        self.look_up([(workspace_id, submission)])
        missing = [
            Missing(field, str(id_)) for field, table, id_ in named if (table, workspace_id, id_) not in self._found
        ]
        if missing:
            only_mailer = all(entry.field in ("mailer_id", "template_id") for entry in missing)
            raise ApiError("VALIDATION_ERROR", missing=missing, status=404 if only_mailer else None)

    def _default(self, workspace_id: UUID, user_id: UUID | None) -> Any:
        """A row of `_DEFAULTS`, asked for once; the mailer that its config names is known then, too."""
        key = (workspace_id, user_id)
        if key not in self._defaults:
            (row,) = fetch(self.session, _DEFAULTS, {"workspace": workspace_id, "user": user_id})
            self._defaults[key] = row
            if row.own_version:
                self._mailers[workspace_id, row.mailer_id] = self._loaded(row.mailer_id, row.own_version)
                for known in (self._asked, self._found):
                    known.add(("mailer", workspace_id, row.mailer_id))
        return self._defaults[key]

    def _loaded(self, id_: UUID, version: str) -> Mailer:
        """The mailer as it is in this version; loaded once, and no part of any session."""
        kept = _loaded.get(id_)
        if kept is None or kept[0] != version:
            mailer = self.session.scalars(select(Mailer).where(Mailer.id == id_)).one()
            self.session.expunge(mailer)
            kept = _loaded[id_] = (version, mailer)
            if len(_loaded) > KEPT_MAILERS:
                _loaded.popitem(last=False)  # unlike a look for the first, safe beside other threads
        return kept[1]

    def _find(self, wanted: Mapping[str, Set[Key]]) -> None:
        tables = tuple(sorted(wanted))
        workspaces = Ids({workspace_id for keys in wanted.values() for workspace_id, _ in keys})
        parameters = [ids for table in tables for ids in (workspaces, Ids(id_ for _, id_ in wanted[table]))]
        for row in fetch(self.session, _existing(tables), parameters):
            self._found.add((row.kind, row.workspace_id, row.id))
            if row.kind == "mailer":
                self._mailers[row.workspace_id, row.id] = self._loaded(row.id, row.version)
        self._asked |= {(table, *key) for table, keys in wanted.items() for key in keys}


@lru_cache(maxsize=64)
def _existing(tables: tuple[str, ...]) -> str:
    """One query for ids of several tables; their names are those of `_named`."""
    return " union all ".join(_MAILERS if table == "mailer" else _ROWS.format(table) for table in tables)


def require_entities(session: Session, workspace_id: UUID, submission: Submission) -> None:
    """`Known.require` for a single look."""
    Known(session).require(workspace_id, submission)


def _named(submission: Submission) -> list[tuple[str, str, UUID]]:
    """The field, the table and the id of everything that a submission refers to."""
    optional: Sequence[tuple[str, str, UUID | None]] = (
        ("mailer_id", "mailer", submission.mailer_id),
        ("email_config_id", "email_config", submission.email_config_id),
        ("sender_user_id", "app_user", submission.sender_user_id),
        ("thread_id", "thread", submission.thread_id),
        ("template_id", "template", submission.template_id),
    )
    linked = [(link.field, link.kind, link.id) for link in submission.links]
    return linked + [(field, table, id_) for field, table, id_ in optional if id_ is not None]
