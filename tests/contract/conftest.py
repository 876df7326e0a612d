"""The API in this process with a worker beside it, as the tests of single features use them."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from api_shim.services import Services
from providers.emulators.smtp import SmtpEmulator
from tests.api_shim.conftest import api, app_services, client, other_tenant, session, settings, tenant
from tests.api_shim.office import Office, open_office
from tests.worker.house import House
from worker.settings import Settings

__all__ = ["api", "app_services", "client", "other_tenant", "session", "settings", "tenant"]


@pytest.fixture
def office(api: TestClient, settings: Settings, app_services: Services) -> Iterator[Office]:
    """Its mail goes to an SMTP server, ``office.house.server``."""
    with SmtpEmulator() as server, open_office(api, app_services, House(settings, server)) as opened:
        yield opened
