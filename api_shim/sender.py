"""Which mailer sends, and under which address."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from api_shim.auth import Caller
from api_shim.entities import CONFIGS, Known
from api_shim.errors import ApiError, Fault, Missing
from api_shim.submission import Submission
from models.access import User
from models.content import Address
from models.database import fetch
from models.mailer import Mailer
from providers import SPEAK_SMTP

_CONFIG = CONFIGS + "where config.workspace_id = %s and config.id = %s"


@dataclass(frozen=True, slots=True)
class Sender:
    mailer: Mailer
    address: Address
    user_id: UUID | None = None
    """The user whose personal mailbox it is."""


def resolve_sender(known: Known, caller: Caller, submission: Submission) -> Sender:
    """The mailer and From of a submission whose ids are known to exist.

    Raises VALIDATION_ERROR for a From that the mailer may not use, NOT_CONNECTED where the workspace has no mailer, and
    GMAIL_NOT_CONNECTED or ALIAS_NOT_CONNECTED for a personal mailbox.
    """
    if submission.personal:
        return _personal(known.session, caller, submission)
    if submission.mailer_id is not None:
        mailer = known.mailer(caller.workspace_id, submission.mailer_id)
        if mailer is None:  # deleted since its existence was checked
            missing = [Missing("mailer_id", str(submission.mailer_id))]
            raise ApiError("VALIDATION_ERROR", missing=missing, status=404)
        return Sender(mailer, _allowed(mailer, submission), mailer.user_id)
    return _company(known, caller, submission)


def _mailer(session: Session, workspace_id: UUID, *conditions: ColumnElement[bool]) -> Mailer | None:
    """The first such mailer, the default before others. Until the transaction ends it cannot be deleted."""
    query = select(Mailer).where(Mailer.workspace_id == workspace_id, Mailer.deleted_at.is_(None), *conditions)
    first = query.order_by(Mailer.is_default.desc(), Mailer.id).limit(1)
    return session.scalars(first.with_for_update(read=True, key_share=True)).first()


def _personal(session: Session, caller: Caller, submission: Submission) -> Sender:
    """The mailbox of one user; without ``from_email`` the user's own address, if it is an alias there."""
    user = session.get_one(User, submission.sender_user_id)
    mailer = _mailer(session, caller.workspace_id, Mailer.user_id == user.id)
    if mailer is None:
        raise ApiError("GMAIL_NOT_CONNECTED", details={"sender_user_id": str(user.id)})
    aliases = {address.lower(): address for address in mailer.from_addresses}
    if submission.from_alias and submission.from_alias.lower() not in aliases:
        raise ApiError(
            "ALIAS_NOT_CONNECTED",
            details={"from_email": submission.from_alias, "send_as_aliases": mailer.from_addresses},
        )
    wanted = (submission.from_alias or user.email).lower()
    address = aliases.get(wanted) or (mailer.from_addresses[0] if mailer.from_addresses else user.email)
    return Sender(mailer, Address(address, user.name), user.id)


def _company(known: Known, caller: Caller, submission: Submission) -> Sender:
    """The company sender: the config asked for, else the default config, else the default mailer's own address."""
    session = known.session
    config = _config(known, caller.workspace_id, submission.email_config_id)
    if config is not None and config.gmail_user_id is not None:
        return _through_gmail(session, caller, config)
    mailer = None
    if config is not None and config.mailer_id is not None:
        mailer = known.mailer(caller.workspace_id, config.mailer_id)
    mailer = mailer or known.default_mailer(caller.workspace_id)
    if mailer is None:
        raise ApiError("NOT_CONNECTED")
    if config is not None:
        return Sender(mailer, Address(config.email, config.from_name), mailer.user_id)
    return Sender(mailer, _allowed(mailer, submission), mailer.user_id)


def _through_gmail(session: Session, caller: Caller, config: Any) -> Sender:
    """The company sender of a config that names a user's Gmail: its alias there, else the mailbox's own address."""
    mailer = _mailer(session, caller.workspace_id, Mailer.user_id == config.gmail_user_id)
    if mailer is None:
        raise ApiError("GMAIL_NOT_CONNECTED", details={"gmail_user_id": str(config.gmail_user_id)})
    alias = config.gmail_sender_alias
    if alias and alias.lower() not in {address.lower() for address in mailer.from_addresses}:
        details = {"gmail_sender_alias": alias, "send_as_aliases": mailer.from_addresses}
        raise ApiError("ALIAS_NOT_CONNECTED", details=details)
    if not alias and not mailer.from_addresses:
        raise ApiError("GMAIL_NOT_CONNECTED", details={"gmail_user_id": str(config.gmail_user_id)})
    return Sender(mailer, Address(alias or mailer.from_addresses[0], config.from_name), config.gmail_user_id)


def _config(known: Known, workspace_id: UUID, config_id: UUID | None) -> Any | None:
    """The config asked for, else the default one, as a row of `CONFIGS`."""
    if config_id is None:
        return known.default_config(workspace_id)
    found = fetch(known.session, _CONFIG, [workspace_id, config_id])
    if not found:  # deleted since its existence was checked
        raise ApiError("VALIDATION_ERROR", missing=[Missing("email_config_id", str(config_id))])
    return found[0]


def pool_of(mailer: Mailer, name: str) -> str:
    """The IP pool as the mailer's adapter knows it: by the provider's own name, with SMTP by ours; empty for none.

    A mailer without `ip_pools` passes names on as they are. With SMTP there is nowhere to pass them to, and one way
    out: callers name the pools of the API that they come from. Raises VALIDATION_ERROR for a name that the mailer's
    list lacks.
    """
    speaks_smtp = mailer.provider in SPEAK_SMTP
    if not name or not mailer.ip_pools:
        return "" if speaks_smtp else name
    if name not in mailer.ip_pools:
        known = ", ".join(sorted(mailer.ip_pools))
        fault = Fault("settings.ip_pool", f"settings.ip_pool is not a pool of mailer {mailer.id}, which has {known}.")
        raise ApiError("VALIDATION_ERROR", faults=[fault])
    return name if speaks_smtp else str(mailer.ip_pools[name])


def _allowed(mailer: Mailer, submission: Submission) -> Address:
    """The From asked for, if the mailer may use it; the mailer's first address if none was asked for."""
    if submission.sender is None:
        if not mailer.from_addresses:
            fault = Fault(
                "from", f"mailer {mailer.id} has no address of its own; add one to its from list", "from_unknown"
            )
            raise ApiError("VALIDATION_ERROR", faults=[fault])
        return Address(mailer.from_addresses[0])
    address = submission.sender
    listed = address.email.lower() in {known.lower() for known in mailer.from_addresses}
    if listed or address.domain.lower() in {domain.lower() for domain in mailer.domains}:
        return address
    may = ", ".join([*mailer.from_addresses, *(f"anything at {domain}" for domain in mailer.domains)]) or "nothing yet"
    raise ApiError(
        "VALIDATION_ERROR",
        faults=[
            Fault(
                "from.email",
                f"{address.email} is not an address of mailer {mailer.id}, which may use {may}",
                "from_unknown",
            )
        ],
    )
