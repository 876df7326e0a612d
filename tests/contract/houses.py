"""Houses whose mail goes to the emulator of a provider's API."""

from typing import Any, cast

from models.mailer import Mailer
from providers.emulators.gmail import GmailEmulator
from providers.emulators.http import Emulator
from providers.emulators.microsoft365 import Microsoft365Emulator
from providers.emulators.smtp import SmtpEmulator
from providers.emulators.sparkpost import SparkPostEmulator
from tests.worker.house import House
from worker.mailers import mailer_purpose
from worker.settings import Settings


class ApiHouse(House):
    def __init__(self, settings: Settings, emulator: Emulator, **columns: Any) -> None:
        """columns: of the mailer, beside what follows from the emulator."""
        self.emulator = emulator
        self.columns = columns
        super().__init__(settings, cast(SmtpEmulator, None))  # nothing goes by SMTP here

    def _mailer(self) -> Mailer:
        provider, credentials = access(self.emulator)
        values: dict[str, Any] = {
            "id": self.mailer_id,
            "workspace_id": self.workspace_id,
            "provider": provider,
            "name": provider,
            "from_addresses": ["ann@demo.test"],
            "domains": ["demo.test"],
            "sealed_credentials": self.runtime.vault.seal(mailer_purpose(self.mailer_id), credentials),
            "base_url": self.emulator.url,
            "auth_url": self.emulator.url,
            "hook_token": str(self.mailer_id),
            "is_default": True,
        }
        return Mailer(**(values | self.columns))


def access(emulator: Emulator) -> tuple[str, dict[str, Any]]:
    """The provider that it emulates, and credentials that it knows."""
    if isinstance(emulator, GmailEmulator):
        oauth = emulator.oauth
        return "gmail", {
            "client_id": oauth.client_id,
            "client_secret": oauth.client_secret,
            "refresh_token": oauth.refresh_token,
        }
    if isinstance(emulator, Microsoft365Emulator):
        return "microsoft365", emulator.credentials()
    assert isinstance(emulator, SparkPostEmulator)
    return "sparkpost", {"api_key": emulator.api_key}
