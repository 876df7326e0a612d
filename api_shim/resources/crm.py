"""Contacts, deals (= opportunities) and customers (= companies): what mail is linked to, and the timelines."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Boolean, ColumnElement, delete, func, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from api_shim.auth import Caller
from api_shim.errors import ApiError, Missing
from api_shim.http import SessionDep, caller_with
from api_shim.pages import DEFAULT_LIMIT, Cursor, Limit, after, after_id, page
from api_shim.text import Email, Line
from models.crm import Activity, Contact, Customer, Deal

router = APIRouter(tags=["crm"])
Reader = Annotated[Caller, caller_with("crm:read")]
Writer = Annotated[Caller, caller_with("crm:write")]
Search = Annotated[Line | None, Query(description="Part of a name, an address or a domain, in either case.")]


class ContactBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"email": "grace@example.com", "name": "Grace"}}
    )

    email: Email | None = None
    name: Line | None = None


class DealBody(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "First order"}})

    name: Line | None = None
    contact_id: UUID | None = None
    customer_id: UUID | None = None


class CustomerBody(BaseModel):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"name": "Example Ltd", "domain": "example.com"}}
    )

    name: Line | None = None
    domain: Line | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entity. ``paths``: the name of the collection and its alias, which answer the same."""

    name: str
    paths: tuple[str, ...]
    table: type[Contact] | type[Deal] | type[Customer]
    fields: tuple[str, ...]
    searched: tuple[InstrumentedAttribute[str | None], ...]
    unlinks: tuple[InstrumentedAttribute[UUID | None], ...] = ()
    """Columns of deals that name such an entity, emptied when it is deleted."""


CONTACT = Kind(
    "contact", ("/contacts",), Contact, ("email", "name"), (Contact.email, Contact.name), unlinks=(Deal.contact_id,)
)
DEAL = Kind("deal", ("/deals", "/opportunities"), Deal, ("name", "contact_id", "customer_id"), (Deal.name,))
CUSTOMER = Kind(
    "customer", ("/customers", "/companies"), Customer, ("name", "domain"), (Customer.name, Customer.domain),
    unlinks=(Deal.customer_id,),
)  # fmt: skip


def _show(kind: Kind, row: Any) -> dict[str, Any]:
    return {"id": row.id, **{field: getattr(row, field) for field in kind.fields}, "created_at": row.created_at}


def _not_found(id_: UUID) -> ApiError:
    return ApiError("NOT_FOUND", details={"id": str(id_)})


def _is(caller: Caller, kind: Kind, id_: UUID) -> tuple[ColumnElement[bool], ...]:
    return (kind.table.id == id_, kind.table.workspace_id == caller.workspace_id)


def _find(session: Session, caller: Caller, kind: Kind, id_: UUID) -> Any:
    return session.scalars(select(kind.table).where(*_is(caller, kind, id_))).one_or_none()


def _list(
    session: Session,
    caller: Caller,
    kind: Kind,
    conditions: Sequence[ColumnElement[bool]],
    *,
    search: str | None,
    limit: int,
    cursor: str | None,
) -> dict[str, Any]:
    table = kind.table
    query = select(table).where(table.workspace_id == caller.workspace_id, *after_id(table.id, cursor), *conditions)
    if search:
        query = query.where(or_(*(column.icontains(search, autoescape=True) for column in kind.searched)))
    rows: Sequence[Any] = session.scalars(query.order_by(table.id.desc()).limit(limit + 1)).all()
    return page(rows, limit, lambda row: _show(kind, row), lambda row: [row.id])


def _put(
    session: Session, caller: Caller, kind: Kind, id_: UUID, *, body: BaseModel, response: Response
) -> dict[str, Any]:
    """Makes or replaces the entity. An id that another workspace uses is answered like one that does not exist."""
    values = body.model_dump()
    statement = insert(kind.table).values(id=id_, workspace_id=caller.workspace_id, **values)
    statement = statement.on_conflict_do_update(
        index_elements=["id"], set_=values, where=kind.table.workspace_id == caller.workspace_id
    )
    is_new = literal_column("(xmax = 0)", Boolean).label("is_new")
    row: Any = session.execute(statement.returning(kind.table.created_at, is_new)).one_or_none()
    if row is None:
        raise _not_found(id_)
    session.commit()
    response.status_code = 201 if row.is_new else 200
    return {"id": id_, **values, "created_at": row.created_at}


def _delete(session: Session, caller: Caller, kind: Kind, id_: UUID) -> None:
    gone = delete(kind.table).where(*_is(caller, kind, id_)).returning(kind.table.id)
    if session.scalar(gone) is None:
        raise _not_found(id_)
    for column in kind.unlinks:
        unlink = update(Deal).where(Deal.workspace_id == caller.workspace_id, column == id_)
        session.execute(unlink.values({column: None}))
    session.commit()


def _activities(
    session: Session, caller: Caller, kind: Kind, id_: UUID, *, limit: int, cursor: str | None
) -> dict[str, Any]:
    query = select(Activity).where(
        Activity.workspace_id == caller.workspace_id,
        Activity.entity_type == kind.name,
        Activity.entity_id == id_,
        *after([Activity.created_at, Activity.id], cursor, [datetime.fromisoformat, UUID]),
    )
    newest_first = query.order_by(Activity.created_at.desc(), Activity.id.desc())
    rows = session.scalars(newest_first.limit(limit + 1)).all()
    if not rows and _find(session, caller, kind, id_) is None:
        raise _not_found(id_)
    return page(rows, limit, _show_activity, lambda row: [row.created_at, row.id])


def _show_activity(row: Activity) -> dict[str, Any]:
    return {
        "id": row.id,
        "entity_type": row.entity_type,
        "entity_id": row.entity_id,
        "message_id": row.message_id,
        "kind": row.kind,
        "direction": row.direction,
        "subject": row.subject,
        "detail": row.detail,
        "created_at": row.created_at,
    }


def list_contacts(
    *,
    session: SessionDep,
    caller: Reader,
    email: Annotated[Line | None, Query(description="The whole address, in either case.")] = None,
    search: Search = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Contacts; those with an address, or with a text in their name or address."""
    conditions = [] if email is None else [func.lower(Contact.email) == email.lower()]
    return _list(session, caller, CONTACT, conditions, search=search, limit=limit, cursor=cursor)


def list_deals(
    *,
    session: SessionDep,
    caller: Reader,
    contact_id: UUID | None = None,
    customer_id: UUID | None = None,
    search: Search = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Deals; those of a contact or a customer, or with a text in their name."""
    asked = ((Deal.contact_id, contact_id), (Deal.customer_id, customer_id))
    conditions = [column == value for column, value in asked if value is not None]
    return _list(session, caller, DEAL, conditions, search=search, limit=limit, cursor=cursor)


def list_customers(
    session: SessionDep, caller: Reader, search: Search = None, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> dict[str, Any]:
    """Customers; those with a text in their name or domain."""
    return _list(session, caller, CUSTOMER, [], search=search, limit=limit, cursor=cursor)


def put_contact(
    id: UUID,  # noqa: A002 -- the name in the path
    body: ContactBody,
    session: SessionDep,
    caller: Writer,
    response: Response,
) -> dict[str, Any]:
    """Makes the contact with this id, or replaces what is known of it."""
    return _put(session, caller, CONTACT, id, body=body, response=response)


def put_deal(
    id: UUID,  # noqa: A002
    body: DealBody,
    session: SessionDep,
    caller: Writer,
    response: Response,
) -> dict[str, Any]:
    """Makes the deal with this id, or replaces what is known of it. The contact and the customer must exist."""
    linked = (("contact_id", Contact, body.contact_id), ("customer_id", Customer, body.customer_id))
    missing = [
        Missing(field, str(linked_id))
        for field, table, linked_id in linked
        if linked_id is not None and not _held(session, caller, table, linked_id)
    ]
    if missing:
        raise ApiError("VALIDATION_ERROR", missing=missing)
    return _put(session, caller, DEAL, id, body=body, response=response)


def _held(session: Session, caller: Caller, table: type[Contact] | type[Customer], id_: UUID) -> bool:
    """Whether the entity exists; if so, it cannot be deleted before this transaction ends."""
    query = select(table.id).where(table.id == id_, table.workspace_id == caller.workspace_id)
    return session.scalar(query.with_for_update(read=True, key_share=True)) is not None


def put_customer(
    id: UUID,  # noqa: A002
    body: CustomerBody,
    session: SessionDep,
    caller: Writer,
    response: Response,
) -> dict[str, Any]:
    """Makes the customer with this id, or replaces what is known of it."""
    return _put(session, caller, CUSTOMER, id, body=body, response=response)


def _add_routes(kind: Kind, list_all: Any, put: Any) -> None:
    def get_one(id: UUID, session: SessionDep, caller: Reader) -> dict[str, Any]:  # noqa: A002
        row = _find(session, caller, kind, id)
        if row is None:
            raise _not_found(id)
        return _show(kind, row)

    def delete_one(id: UUID, session: SessionDep, caller: Writer) -> None:  # noqa: A002
        _delete(session, caller, kind, id)

    def timeline(
        id: UUID,  # noqa: A002
        session: SessionDep,
        caller: Reader,
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
    ) -> dict[str, Any]:
        return _activities(session, caller, kind, id, limit=limit, cursor=cursor)

    for path in kind.paths:
        one = path + "/{id}"
        router.add_api_route(path, list_all, methods=["GET"])
        router.add_api_route(one, get_one, methods=["GET"], summary=f"One {kind.name}")
        router.add_api_route(one, put, methods=["PUT"], responses={201: {"description": "Made"}})
        router.add_api_route(
            one, delete_one, methods=["DELETE"], status_code=204, summary=f"Delete a {kind.name}",
            description="Log rows and activities stay; deals that named it no longer do.",
        )  # fmt: skip
        router.add_api_route(
            f"{one}/activities", timeline, methods=["GET"], summary=f"The timeline of a {kind.name}, newest first",
            description="Still there when the entity was deleted.",
        )  # fmt: skip


_add_routes(CONTACT, list_contacts, put_contact)
_add_routes(DEAL, list_deals, put_deal)
_add_routes(CUSTOMER, list_customers, put_customer)
