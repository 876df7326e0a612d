"""What most tests of the worker begin with."""

from collections.abc import Iterator

import pytest

from providers.emulators.smtp import SmtpEmulator
from tests.worker.house import House, settings_for


@pytest.fixture
def house(database_url: str, redis_url: str) -> Iterator[House]:
    """A workspace with one SMTP mailer, on a server of its own."""
    with SmtpEmulator() as server:
        opened = House(settings_for(database_url, redis_url), server)
        yield opened
        opened.close()
