"""Whether the ids in a submission exist in the caller's workspace: all of them, in one query, before anything is
stored.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, Select, literal, select, union_all
from sqlalchemy.orm import Session

from api_shim.errors import ApiError, Missing
from api_shim.submission import Submission
from models.access import User
from models.crm import Contact, Customer, Deal
from models.mailer import EmailConfig, Mailer
from models.record import Thread
from models.template import Template

Named = (
    type[Contact]
    | type[Deal]
    | type[Customer]
    | type[User]
    | type[EmailConfig]
    | type[Mailer]
    | type[Thread]
    | type[Template]
)

LINKED: dict[str, Named] = {"contact": Contact, "deal": Deal, "customer": Customer}


def require_entities(session: Session, workspace_id: UUID, submission: Submission) -> None:
    """Raises VALIDATION_ERROR listing every id that is not in the workspace, each under the caller's own field name."""
    named = _named(submission)
    if not named:
        return
    found = {row.position for row in session.execute(union_all(*_lookups(workspace_id, named)))}
    missing = [Missing(field, str(id_)) for position, (field, _, id_) in enumerate(named) if position not in found]
    if missing:
        only_mailer = all(entry.field in ("mailer_id", "template_id") for entry in missing)
        raise ApiError("VALIDATION_ERROR", missing=missing, status=404 if only_mailer else None)


def _named(submission: Submission) -> list[tuple[str, Named, UUID]]:
    optional: Sequence[tuple[str, Named, UUID | None]] = (
        ("mailer_id", Mailer, submission.mailer_id),
        ("email_config_id", EmailConfig, submission.email_config_id),
        ("sender_user_id", User, submission.sender_user_id),
        ("thread_id", Thread, submission.thread_id),
        ("template_id", Template, submission.template_id),
    )
    linked = [(link.field, LINKED[link.kind], link.id) for link in submission.links]
    return linked + [(field, table, id_) for field, table, id_ in optional if id_ is not None]


def _lookups(workspace_id: UUID, named: Sequence[tuple[str, Named, UUID]]) -> list[Select[int]]:
    return [
        select(literal(position).label("position")).where(*_is(table, workspace_id, id_))
        for position, (_, table, id_) in enumerate(named)
    ]


def _is(table: Named, workspace_id: UUID, id_: UUID) -> tuple[ColumnElement[bool], ...]:
    mine = (table.id == id_, table.workspace_id == workspace_id)
    return (*mine, Mailer.deleted_at.is_(None)) if table is Mailer else mine
