"""What every adapter owes the worker. A provider's test subclasses `AdapterContract` and gives it a `Bench`."""

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import pytest

from providers import adapter
from providers.base import BadSignature, HookRequest, OutboundEmail, Provider, Result


class Failure(enum.StrEnum):
    """What happens to the request that sends a mail."""

    CLOSE = "close"
    """The connection ends without an answer, after the whole request was read."""
    RESET = "reset"
    HANG = "hang"
    CLIENT_ERROR = "4xx"
    SERVER_ERROR = "5xx"
    THROTTLED = "throttled"
    LOGGED_OUT = "logged out"


class Bench(ABC):
    """An adapter and the emulated provider that it talks to."""

    provider: Provider
    secrets: Sequence[str] = ()
    """What must never be shown."""

    @abstractmethod
    def fail(self, failure: Failure) -> None:
        """The next request that sends a mail meets it."""

    @abstractmethod
    def sends(self) -> int:
        """How many requests that send a mail have reached the provider."""

    @abstractmethod
    def delivered(self, email: OutboundEmail) -> int:
        """How often the provider has taken this mail."""

    @abstractmethod
    def good(self) -> OutboundEmail:
        """A mail that the provider takes."""

    @abstractmethod
    def bad(self) -> OutboundEmail:
        """A mail that the provider refuses for good."""


class AdapterContract(ABC):
    """Inherit as ``TestContract``, with a ``bench`` fixture and ``expected``."""

    expected: ClassVar[Mapping[Failure, Result]]
    """What the adapter must make of each failure."""

    @pytest.fixture
    def bench(self) -> Iterator[Bench]:
        raise NotImplementedError

    @pytest.fixture(params=list(Failure))
    def failure(self, request: pytest.FixtureRequest) -> Failure:
        found: Failure = request.param
        return found

    def test_it_is_found_under_its_name(self, bench: Bench) -> None:
        assert adapter(bench.provider.name) is type(bench.provider)

    def test_no_mail_is_no_outcome(self, bench: Bench) -> None:
        assert list(bench.provider.send([])) == []

    def test_each_mail_has_its_own_outcome_in_order(self, bench: Bench) -> None:
        emails = [bench.good(), bench.bad(), bench.good(), bench.bad(), bench.good()]
        outcomes = bench.provider.send(emails)
        yes, no = Result.ACCEPTED, Result.PERMANENT
        assert [outcome.result for outcome in outcomes] == [yes, no, yes, no, yes]
        assert [bench.delivered(email) for email in emails] == [1, 0, 1, 0, 1]

    def test_a_failure_costs_one_request_and_is_told_as_what_it_is(self, bench: Bench, failure: Failure) -> None:
        bench.fail(failure)
        email = bench.good()
        (outcome,) = bench.provider.send([email])
        assert outcome.result is self.expected[failure]
        assert bench.sends() == 1
        assert bench.delivered(email) <= 1

    def test_what_is_surely_not_accepted_was_not_delivered(self, bench: Bench, failure: Failure) -> None:
        bench.fail(failure)
        email = bench.good()
        (outcome,) = bench.provider.send([email])
        if outcome.result is not Result.UNCERTAIN:
            assert bench.delivered(email) == 0

    def test_the_next_mail_passes_after_a_failure(self, bench: Bench, failure: Failure) -> None:
        bench.fail(failure)
        bench.provider.send([bench.good()])
        email = bench.good()
        (outcome,) = bench.provider.send([email])
        assert outcome.result is Result.ACCEPTED
        assert bench.delivered(email) == 1

    def test_every_result_is_reached(self) -> None:
        assert set(self.expected) == set(Failure)
        assert {*self.expected.values(), Result.ACCEPTED, Result.PERMANENT} == set(Result)

    def test_a_hook_with_a_wrong_signature_is_refused(self, bench: Bench) -> None:
        with pytest.raises(BadSignature):
            bench.provider.parse_events(HookRequest(headers={"x-signature": "00"}, query={}, body=b'{"event": "x"}'))

    def test_nothing_secret_is_shown(self, bench: Bench, failure: Failure) -> None:
        bench.fail(failure)
        shown = repr(bench.provider.account) + repr(bench.provider) + repr(bench.provider.send([bench.good()]))
        assert bench.secrets
        assert not [secret for secret in bench.secrets if secret in shown]
