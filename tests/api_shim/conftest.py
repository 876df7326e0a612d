"""The API in this process, on a real database, as seen by two workspaces that must not see each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest
from cryptography.fernet import Fernet
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.app import create_app
from api_shim.auth import SCOPES, issue_key
from api_shim.services import Services
from models.access import User, Workspace
from tests.dns_server import DnsServer
from worker.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """A workspace, one user of it and its key with every scope."""

    workspace_id: UUID
    user_id: UUID
    key: str
    key_id: UUID


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    """What the application asks about domains; none exists until a test says so."""
    with DnsServer({}) as running:
        yield running


@pytest.fixture(scope="module")
def settings(database_url: str, redis_url: str, dns: DnsServer) -> Settings:
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        secret_keys=Fernet.generate_key().decode(),
        mailer_allowed_hosts="127.0.0.1",
        webhook_allowed_hosts="127.0.0.1",
        dns_servers=dns.address,
    )


@pytest.fixture(scope="module")
def api(settings: Settings) -> Iterator[TestClient]:
    """The running application; its requests carry no key."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as running:
        yield running


@pytest.fixture(scope="module")
def app_services(api: TestClient) -> Services:
    found: Services = api.app.state.services  # type: ignore[attr-defined]
    return found


@pytest.fixture
def session(app_services: Services) -> Iterator[Session]:
    """The rows as they lie in the database; commit what you add."""
    with app_services.sessions() as opened:
        yield opened


def new_tenant(services: Services, scopes: tuple[str, ...] = SCOPES) -> Tenant:
    with services.sessions() as session:
        workspace = Workspace(name="test", mail_domain="mail.test")
        session.add(workspace)
        session.flush()
        user = User(workspace_id=workspace.id, email="ada@mail.test", name="Ada")
        session.add(user)
        session.flush()
        key, secret = issue_key(
            session, workspace_id=workspace.id, name="test", scopes=scopes, pepper=services.peppers[0]
        )
        session.commit()
        return Tenant(workspace_id=workspace.id, user_id=user.id, key=secret, key_id=key.id)


@pytest.fixture
def tenant(app_services: Services) -> Tenant:
    """A fresh workspace."""
    return new_tenant(app_services)


@pytest.fixture
def other_tenant(app_services: Services) -> Tenant:
    return new_tenant(app_services)


def as_caller(api: TestClient, key: str) -> TestClient:
    """A client of the running application whose requests carry ``key``."""
    return TestClient(api.app, raise_server_exceptions=False, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture
def client(api: TestClient, tenant: Tenant) -> TestClient:
    """Calls as the fresh workspace, with every scope."""
    return as_caller(api, tenant.key)


@pytest.fixture
def other(api: TestClient, other_tenant: Tenant) -> TestClient:
    """Calls as a second workspace, which must see nothing of the first."""
    return as_caller(api, other_tenant.key)
