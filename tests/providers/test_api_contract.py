"""The contract of every adapter, kept by Mailgun, SparkPost and Microsoft 365."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import ClassVar

import pytest

from providers import open_provider
from providers.base import OutboundEmail, Provider, Result
from providers.emulators.http import Call, Emulator, Fault, Reply
from providers.emulators.mailgun import MailgunEmulator
from providers.emulators.microsoft365 import Microsoft365Emulator
from providers.emulators.sparkpost import SparkPostEmulator
from tests.providers.contract import AdapterContract, Bench, Failure
from tests.providers.samples import QUICK, account, fields, mail

FAULTS = {
    Failure.CLOSE: Fault.CLOSE,
    Failure.RESET: Fault.RESET,
    Failure.HANG: Fault.HANG,
    Failure.SERVER_ERROR: Fault.ERROR_503,
    Failure.THROTTLED: Fault.THROTTLED,
    Failure.LOGGED_OUT: Fault.UNAUTHORIZED,
}


class ApiBench(Bench):
    """An adapter over HTTP. ``path`` ends the one call that sends; ``client_error`` is a 4xx answer to it."""

    def __init__(
        self, emulator: Emulator, provider: Provider, *, path: str, client_error: int, bad: Callable[[], OutboundEmail]
    ) -> None:
        self.emulator = emulator
        self.provider = provider
        self.secrets = [str(value) for value in provider.account.credentials.values() if len(str(value)) > 20]
        self._path = path
        self._client_error = client_error
        self._bad = bad

    def fail(self, failure: Failure) -> None:
        if failure is Failure.CLIENT_ERROR:
            self._answer_once(Reply(self._client_error, {"message": "no", "error": {"code": "No", "message": "no"}}))
        else:
            self.emulator.fail(FAULTS[failure], path=self._path)

    def _answer_once(self, reply: Reply) -> None:
        usual = self.emulator.answer

        def answer(call: Call) -> Reply:
            if not call.path.endswith(self._path):
                return usual(call)
            self.emulator.answer = usual  # type: ignore[method-assign]
            return reply

        self.emulator.answer = answer  # type: ignore[method-assign]

    def sends(self) -> int:
        return len(self.emulator.calls_to(self._path))

    def delivered(self, email: OutboundEmail) -> int:
        return self.emulator.ledger[email.ref]

    def good(self) -> OutboundEmail:
        return mail()

    def bad(self) -> OutboundEmail:
        return self._bad()


class GraphBench(ApiBench):
    def fail(self, failure: Failure) -> None:
        super().fail(failure)
        if failure is Failure.LOGGED_OUT:  # and the refresh token no longer helps
            self.provider.check()
            self.emulator.fail(Fault.UNAUTHORIZED, path="/token")


def opened(provider: str, emulator: Emulator, **credentials: str) -> Provider:
    adapter = open_provider(account(provider, emulator, **credentials))
    apis = [adapter._api, *([adapter._tokens._api] if provider == "microsoft365" else [])]  # type: ignore[attr-defined]
    for api in apis:
        api.timeout = QUICK
    return adapter


class TestMailgun(AdapterContract):
    expected: ClassVar[Mapping[Failure, Result]] = {
        Failure.CLOSE: Result.UNCERTAIN,
        Failure.RESET: Result.UNCERTAIN,
        Failure.HANG: Result.UNCERTAIN,
        Failure.CLIENT_ERROR: Result.PERMANENT,
        Failure.SERVER_ERROR: Result.TRANSIENT,
        Failure.THROTTLED: Result.THROTTLED,
        Failure.LOGGED_OUT: Result.CREDENTIALS,
    }

    @pytest.fixture
    def bench(self) -> Iterator[Bench]:
        with MailgunEmulator() as mailgun:
            keys = {"api_key": mailgun.api_key, "signing_key": mailgun.signing_key}
            adapter = opened("mailgun", mailgun, domain=mailgun.domain, **keys)
            bad = partial(mail, rfc_message_id="<no-at-sign>")
            yield ApiBench(mailgun, adapter, path="/messages.mime", client_error=400, bad=bad)
            adapter.close()


class TestSparkPost(AdapterContract):
    expected: ClassVar[Mapping[Failure, Result]] = TestMailgun.expected

    @pytest.fixture
    def bench(self) -> Iterator[Bench]:
        with SparkPostEmulator() as sparkpost:
            sparkpost.suppressed = {"gone@client.test"}
            adapter = opened("sparkpost", sparkpost, api_key=sparkpost.api_key, hook_secret=sparkpost.hook_secret)
            bad = partial(mail, "gone@client.test")
            yield ApiBench(sparkpost, adapter, path="/transmissions", client_error=400, bad=bad)
            adapter.close()


class TestMicrosoft365(AdapterContract):
    expected: ClassVar[Mapping[Failure, Result]] = {
        **TestMailgun.expected,
        Failure.CLIENT_ERROR: Result.TRANSIENT,
        Failure.SERVER_ERROR: Result.THROTTLED,
    }

    @pytest.fixture
    def bench(self) -> Iterator[Bench]:
        with Microsoft365Emulator() as microsoft:
            adapter = opened("microsoft365", microsoft, **microsoft.credentials())
            bad = partial(mail, fields=fields(headers={"Auto-Submitted": "auto-replied"}))
            yield GraphBench(microsoft, adapter, path="/send", client_error=409, bad=bad)
            adapter.close()
