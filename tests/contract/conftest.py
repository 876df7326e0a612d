"""The API in this process with a worker beside it, as the tests of single features use them."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from api_shim.services import Services
from providers.emulators.smtp import SmtpEmulator
from tests.api_shim.conftest import api, app_services, client, other_tenant, session, tenant
from tests.api_shim.office import Office, open_office
from tests.worker.house import House, settings_for
from worker.settings import Settings

__all__ = ["api", "app_services", "client", "other_tenant", "session", "tenant"]


@pytest.fixture(scope="module")
def settings(database_url: str, redis_url: str) -> Settings:
    return settings_for(database_url, redis_url, webhook_allowed_hosts="127.0.0.1")


@pytest.fixture
def office(api: TestClient, settings: Settings, app_services: Services) -> Iterator[Office]:
    """Its mail goes to an SMTP server, ``office.house.server``."""
    with SmtpEmulator() as server, open_office(api, app_services, House(settings, server)) as opened:
        yield opened
