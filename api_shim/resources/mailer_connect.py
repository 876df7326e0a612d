"""``/v1/mailers/{id}/connect`` and its callback: a mailbox of Google or Microsoft, connected by its user's consent."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import Response

from api_shim.audit import audit
from api_shim.auth import Caller
from api_shim.connect_page import connect_page
from api_shim.connecting import CONSENTS, Started, StateUnusable, read_state, start
from api_shim.credentials import HTTP_PORTS, awaits_connection, url_problem
from api_shim.errors import ApiError, Fault
from api_shim.http import SessionDep, caller_with, services
from api_shim.mailbox_reading import look_again, may_read, read
from api_shim.mailer_body import Url
from api_shim.resources.mailers import NOT_CONNECTED, find, show
from api_shim.services import Services
from models.mailer import Mailer, MailerStatus
from providers.base import Account
from providers.oauth_consent import exchange_code, revoke
from providers.tokens import TOKEN, Grant, TokenError
from worker.mailers import mailer_purpose
from worker.vault import SecretUnreadable

router = APIRouter(prefix="/mailers", tags=["mailers"])
Writer = Annotated[Caller, caller_with("mailers:write")]

CALLBACK = "/v1/mailers/oauth/callback"
FAILED = "The mailbox was not connected"
AGAIN = "Start again from where you came from."


class Connect(BaseModel):
    model_config = ConfigDict(extra="forbid")

    redirect_uri: Url | None = None
    """Where the provider sends the user back, as registered with it. It must hand code and state on to our callback."""


class Refused(Exception):
    """The mailbox cannot be connected; the text says why to its user."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """What a consent brought."""

    credentials: dict[str, Any]
    aliases: list[str] | None
    """Addresses that may send; None where the provider does not say."""
    reads: bool
    """The mailbox is to be read from now on: it is connected for the first time, and the consent allows it."""


@router.post("/{id}/connect")
def connect_mailer(
    id: UUID,  # noqa: A002
    request: Request,
    session: SessionDep,
    caller: Writer,
    body: Connect | None = None,
) -> dict[str, Any]:
    """Where to send the user's browser so that they consent. The address is good for ten minutes."""
    row = find(session, caller, id)
    credentials = _oauth_credentials(services(request), row)
    redirect_uri = body.redirect_uri if body is not None and body.redirect_uri else _callback(request)
    if problem := url_problem(redirect_uri, HTTP_PORTS):
        raise ApiError("VALIDATION_ERROR", faults=[Fault("redirect_uri", problem)])
    started = Started(
        workspace_id=caller.workspace_id,
        mailer_id=id,
        key_id=caller.key_id,
        client_id=credentials["client_id"],
        redirect_uri=redirect_uri,
    )
    url = start(
        services(request).vault,
        started,
        provider=row.provider,
        credentials=credentials,
        base_url=row.base_url,
        auth_url=row.auth_url,
    )
    return {"authorization_url": url}


@router.get("/oauth/callback", include_in_schema=False)
def finish_connecting(
    request: Request,
    session: SessionDep,
    state: str = "",
    code: str = "",
    error: str = "",
    error_description: str = "",
) -> Response:
    """Where the provider sends the user back to. Public: the state proves that we asked."""
    try:
        started = read_state(services(request).vault, state)
        if error or not code:
            raise Refused(f"The provider answered: {error_description or error or 'no code'}.")
        name, connected = _finish(services(request), session, started, code)
    except StateUnusable as unusable:
        return connect_page(FAILED, f"{str(unusable).capitalize()}.", AGAIN, status=400)
    except Refused as refusal:
        return connect_page(FAILED, str(refusal), AGAIN, status=refusal.status)
    except SecretUnreadable:
        return connect_page(
            FAILED, "The mailer's credentials cannot be read; its operator must set them again.", status=409
        )
    except TokenError as refusal:
        return connect_page(FAILED, f"The provider answered: {refusal}.", AGAIN, status=502)
    words = "It may send as:" if connected.aliases else "You can close this page."
    return connect_page(f"{name} is connected", words, items=connected.aliases or ())


@router.post("/{id}/disconnect")
def disconnect_mailer(id: UUID, request: Request, session: SessionDep, caller: Writer) -> dict[str, Any]:  # noqa: A002
    """Gives the consent back and forgets its tokens; the mail of the mailer waits. ``revoked``: the provider knows."""
    row = find(session, caller, id)
    if not _oauth_credentials(services(request), row).get("refresh_token"):
        raise ApiError("CONFLICT", faults=[Fault("id", f"mailer {id} is not connected")])
    account = services(request).providers.account(row)
    session.commit()  # no connection is kept from others while the provider is asked
    revoked = _revoked(account)
    row = find(session, caller, id, lock=True)
    kept = {
        name: value
        for name, value in _oauth_credentials(services(request), row).items()
        if name not in ("refresh_token", "scope", TOKEN)
    }
    row.sealed_credentials = services(request).vault.seal(mailer_purpose(id), kept)
    if awaits_connection(row.provider, kept):
        row.status, row.status_reason = MailerStatus.RECONNECT_REQUIRED, NOT_CONNECTED
    audit(session, caller, "mailer.disconnected", str(id), revoked=revoked)
    session.commit()
    return show(row) | {"revoked": revoked}


def _revoked(account: Account) -> bool:
    try:
        return revoke(account, CONSENTS[account.provider].service)
    except TokenError:
        return False


def _callback(request: Request) -> str:
    return services(request).settings.public_url.rstrip("/") + CALLBACK


def _oauth_credentials(held: Services, row: Mailer) -> Mapping[str, Any]:
    """The mailer's credentials. Raises CONFLICT unless there is a client to ask for consent as."""
    if row.provider not in CONSENTS:
        raise ApiError("CONFLICT", faults=[Fault("id", f"{row.provider} is not connected by OAuth; set credentials")])
    try:
        credentials = held.vault.open(mailer_purpose(row.id), row.sealed_credentials)
    except SecretUnreadable:
        credentials = {}
    if not credentials.get("client_id") or not credentials.get("client_secret"):
        fault = Fault("credentials", "set client_id and client_secret with PATCH /v1/mailers/{id} first")
        raise ApiError("CONFLICT", faults=[fault])
    return credentials


def _finish(held: Services, session: Session, started: Started, code: str) -> tuple[str, Connected]:
    """The mailer's name and what it got. Raises Refused, TokenError."""
    row = _mailer(session, started)
    account = held.providers.account(row)
    if account.credentials.get("client_id") != started.client_id:
        raise Refused("The mailer's client was changed meanwhile.")
    session.commit()  # no connection is kept from others while the provider is asked
    consent = CONSENTS[row.provider]
    grant = exchange_code(
        account, consent.service, code=code, verifier=started.verifier, redirect_uri=started.redirect_uri
    )
    connected = _connected(account, grant)
    row = _mailer(session, started, lock=True)
    _store(held, row, connected)
    if connected.reads:
        read(session, row)
    look_again(session, row.workspace_id, row.id)
    caller = Caller(workspace_id=started.workspace_id, key_id=started.key_id)
    audit(session, caller, "mailer.connected", str(row.id), aliases=len(connected.aliases or ()))
    session.commit()
    return row.name, connected


def _connected(account: Account, grant: Grant) -> Connected:
    if grant.refresh_token is None:
        raise Refused("The provider gave no lasting access. Remove this application from your account's settings.")
    if not CONSENTS[account.provider].suffices(grant.scopes):
        raise Refused("The permission to send mail was not given. Leave its box ticked.")
    known = {name: value for name, value in account.credentials.items() if name not in ("password", TOKEN)}
    credentials = known | {"refresh_token": grant.refresh_token}
    # Who ended the reading of a connected mailbox does not want it back with the next consent.
    reads = "refresh_token" not in known and may_read(account.provider, grant.scopes)
    if account.provider != "gmail":
        return Connected(credentials=credentials, aliases=None, reads=reads)
    credentials["scope"] = " ".join(sorted(grant.scopes))
    aliases = _aliases(replace(account, credentials=credentials))
    return Connected(credentials=credentials, aliases=aliases, reads=reads)


def _aliases(account: Account) -> list[str] | None:
    """The addresses that Gmail lets this mailbox send as, or None where it will not say."""
    # Google's client is large, and few processes ever need it.
    from providers.gmail import Gmail
    from providers.gmail_service import CallFailed

    mailbox = Gmail(account)
    try:
        return [alias.email for alias in mailbox.aliases() if alias.usable]
    except CallFailed:
        return None
    finally:
        mailbox.close()


def _mailer(session: Session, started: Started, *, lock: bool = False) -> Mailer:
    mine = (Mailer.id == started.mailer_id, Mailer.workspace_id == started.workspace_id, Mailer.deleted_at.is_(None))
    query = select(Mailer).where(*mine).execution_options(populate_existing=True)
    row = session.scalars(query.with_for_update() if lock else query).first()
    if row is None:
        raise Refused("The mailer was deleted meanwhile.", 404)
    return row


def _store(held: Services, row: Mailer, connected: Connected) -> None:
    now = held.vault.open(mailer_purpose(row.id), row.sealed_credentials)
    if now.get("client_id") != connected.credentials["client_id"]:
        raise Refused("The mailer's client was changed meanwhile.")
    row.sealed_credentials = held.vault.seal(mailer_purpose(row.id), connected.credentials)
    if connected.aliases:
        row.from_addresses = connected.aliases
    if row.status == MailerStatus.RECONNECT_REQUIRED:
        row.status, row.status_reason = MailerStatus.ACTIVE, None
