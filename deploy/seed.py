"""The demo workspace: made once, mended when it is found wanting. Everything has its id before it has its row."""

from typing import Any
from uuid import UUID

from sqlalchemy import Engine, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from api_shim.auth import PUBLIC_CHARACTERS, SCOPES, issue_key
from deploy.identity import Identity
from models.access import ApiKey, User, Workspace
from models.base import Base
from models.crm import Contact, Customer, Deal
from models.mailer import EmailConfig, Mailer
from models.webhook import WebhookEndpoint
from worker.mailers import mailer_purpose
from worker.notify import SECRET_PURPOSE
from worker.vault import Vault

KEY_CAPS = {"per_second": 1_000_000, "per_day": 1_000_000_000}
"""So high that no test of the stack meets them."""


def seed(engine: Engine, identity: Identity, *, domain: str, smtp_port: int, receiver_url: str | None) -> None:
    """Makes what is missing, and points mailer and endpoint at this run's ports.

    Without ``receiver_url`` nothing listens for webhooks, and the demo's endpoint is removed.
    """
    vault = Vault(identity.secret_keys)
    with Session(engine) as session, session.begin():
        for table, columns in _rows(identity, domain):
            session.execute(insert(table).values(**columns).on_conflict_do_nothing())
        _put_mailer(session, identity, vault, domain, smtp_port)
        _put_email_config(session, identity)
        _put_endpoint(session, identity, vault, receiver_url)
        _put_key(session, identity)


def _rows(identity: Identity, domain: str) -> list[tuple[type[Base], dict[str, Any]]]:
    workspace = {"workspace_id": identity.workspace_id}
    return [
        (Workspace, {"id": identity.workspace_id, "name": "demo", "mail_domain": domain}),
        (User, {"id": identity.user_id, "email": f"ada@{domain}", "name": "Ada", **workspace}),
        (Contact, {"id": identity.contact_id, "email": "grace@example.com", "name": "Grace", **workspace}),
        (Customer, {"id": identity.customer_id, "name": "Example Ltd", "domain": "example.com", **workspace}),
        (Deal, {"id": identity.deal_id, "name": "First order", "contact_id": identity.contact_id,
                "customer_id": identity.customer_id, **workspace}),
    ]  # fmt: skip


def _put_mailer(session: Session, identity: Identity, vault: Vault, domain: str, smtp_port: int) -> None:
    """Sealed anew each time: the inbox may listen on another port."""
    credentials = {"host": "127.0.0.1", "port": smtp_port, "security": "none", "username": None, "password": None}
    sealed = vault.seal(mailer_purpose(UUID(identity.mailer_id)), credentials)
    statement = insert(Mailer).values(
        id=identity.mailer_id,
        workspace_id=identity.workspace_id,
        provider="smtp",
        name="local inbox",
        from_addresses=[f"hello@{domain}"],
        domains=[domain],
        sealed_credentials=sealed,
        caps={"connections": 4},
        is_default=True,
        hook_token=identity.mailer_id.replace("-", ""),
    )
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"sealed_credentials": sealed}))


def _put_email_config(session: Session, identity: Identity) -> None:
    statement = insert(EmailConfig).values(
        id=identity.email_config_id,
        workspace_id=identity.workspace_id,
        from_email_handle="hello",
        from_name="Demo",
        staff_email="ada@demo.test",
        mailer_id=identity.mailer_id,
        is_default=True,
    )
    session.execute(statement.on_conflict_do_nothing())


def _put_endpoint(session: Session, identity: Identity, vault: Vault, url: str | None) -> None:
    if url is None:
        session.execute(delete(WebhookEndpoint).where(WebhookEndpoint.id == identity.endpoint_id))
        return
    purpose = SECRET_PURPOSE.format(id=identity.endpoint_id)
    statement = insert(WebhookEndpoint).values(
        id=identity.endpoint_id,
        workspace_id=identity.workspace_id,
        url=url,
        events=["*"],
        max_batch=100,
        sealed_secret=vault.seal(purpose, {"secret": identity.webhook_secret}),
    )
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"url": url, "status": "active"}))


def _put_key(session: Session, identity: Identity) -> None:
    public_id = identity.api_secret[:PUBLIC_CHARACTERS]
    if session.scalar(select(ApiKey.id).where(ApiKey.public_id == public_id)) is None:
        issue_key(
            session,
            workspace_id=UUID(identity.workspace_id),
            name="postroad up",
            scopes=SCOPES,
            pepper=identity.secret_keys,
            caps=KEY_CAPS,
            secret=identity.api_secret,
        )
