"""Every exception that a client library defines ends as an outcome: found by walking the classes, not by a list.

What a library does not define but raises, over an answer of another shape, is in `test_contract`.
"""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import google.auth.jwt
import msal
import pytest
import requests
from googleapiclient.http import HttpRequest

import providers.http_connection
from providers.base import BadSignature, Failed, HookRequest, Lookup, Result
from providers.emulators.gmail import GmailEmulator
from providers.emulators.postmark import PostmarkEmulator
from providers.gmail_push import PushGate
from providers.http import Api, NoAnswer, NotSent
from providers.smtp_wire import ConnectionLost, Wire
from providers.tokens import TokenError
from tests.providers.benches import GmailBench, Microsoft365Bench, PostmarkBench
from tests.providers.samples import account, mail

SECRET = "a-secret-nobody-may-see"

UNREACHABLE = {
    "google.auth.transport._mtls_helper._MemfdCreationError": "client certificates are not used",
    "http.cookiejar.LoadError": "cookies are kept nowhere",
    "http.cookies.CookieError": "cookies are not read",
    "httplib2.decode.DecodeLimitError": "of httplib2's own connections, which are not used",
    "httplib2.decode.DecodeRatioError": "of httplib2's own connections, which are not used",
    "requests.cookies.CookieConflictError": "no cookie is looked up by its name",
    "socket._GiveupOnSendfile": "no files are sent",
    "urllib3.exceptions.ProxySchemeUnsupported": "there are no proxies",
    "urllib3.util.ssl_match_hostname.CertificateError": "urllib3 itself makes an SSLError of it",
}
"""Exceptions that no adapter can meet, and why."""


def below(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def exceptions_of(*packages: str) -> list[type[Exception]]:
    """All that the packages define, in whichever of their modules, as far as those are loaded by now."""
    found = {
        f"{kind.__module__}.{kind.__qualname__}": kind
        for kind in below(Exception)
        if f"{kind.__module__}.".startswith(tuple(f"{package}." for package in packages))
        and not issubclass(kind, Warning)
    }
    return [found[name] for name in sorted(found.keys() - UNREACHABLE.keys())]  # type: ignore[misc]


def raising(kind: type[Exception]) -> Callable[..., Any]:
    """A function that fails with an exception of this kind, made without what its class wants to be made of."""

    class Injected(kind):  # type: ignore[valid-type, misc]
        resp = SimpleNamespace(status=500, reason="x") if kind.__name__ != "BatchError" else None
        content = b"x"
        verify_message = "self-signed"

        def __init__(self) -> None:
            Exception.__init__(self, SECRET)

        def __str__(self) -> str:
            return "broken"

    def broken(*_: object, **__: object) -> None:
        raise Injected

    return broken


def test_there_are_exceptions_of_every_library_and_those_left_out_exist() -> None:
    with GmailBench() as gmail, Microsoft365Bench() as microsoft:
        gmail.provider.check()  # what is imported when it is needed is imported then
        microsoft.provider.check()
    for package in (
        "googleapiclient",
        "google.auth",
        "httplib2",
        "msal",
        "postmarker",
        "requests",
        "urllib3",
        "http",
        "ssl",
    ):
        assert exceptions_of(package), package
    there = {f"{kind.__module__}.{kind.__qualname__}" for kind in below(Exception)}
    assert UNREACHABLE.keys() - there == set()


@pytest.mark.parametrize(("written", "expected"), [(True, NoAnswer), (False, NotSent)])
def test_of_requests_urllib3_and_the_standard_library(
    monkeypatch: pytest.MonkeyPatch, written: bool, expected: type[Failed]
) -> None:
    kinds = [
        *exceptions_of("requests", "urllib3", "http", "ssl", "socket"),
        OSError,
        TimeoutError,
        ConnectionResetError,
    ]
    with PostmarkEmulator() as emulator:
        api = Api(account("postmark", emulator), emulator.url)
        for kind in kinds:
            broken = raising(kind)

            def send(*_: object, _broken: Callable[..., None] = broken, **__: object) -> None:
                providers.http_connection.current.get().written = written
                _broken()

            monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
            with pytest.raises(Failed) as caught:
                api.call("POST", "/", data=b"x")
            assert type(caught.value) is expected, kind
            assert SECRET not in str(caught.value)
        api.close()


def test_of_postmarker(monkeypatch: pytest.MonkeyPatch) -> None:
    with PostmarkBench() as bench:
        for kind in exceptions_of("postmarker", "requests"):
            monkeypatch.setattr(bench.provider._client, "call", raising(kind))  # type: ignore[attr-defined]
            [outcome] = bench.provider.send([mail()])
            assert outcome.result is Result.UNCERTAIN, kind
            assert SECRET not in repr(outcome)
            assert bench.provider.lookup(mail()).answer is Lookup.UNANSWERED, kind


def test_of_googles_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    with GmailBench() as bench:
        bench.provider.send([mail()])
        bench.provider._drafting = False  # type: ignore[attr-defined]
        for kind in exceptions_of("googleapiclient", "google.auth", "httplib2"):
            monkeypatch.setattr(HttpRequest, "execute", raising(kind))
            [outcome] = bench.provider.send([mail()])
            assert outcome.result is Result.UNCERTAIN, kind
            assert SECRET not in repr(outcome)
            assert bench.provider.lookup(mail()).answer is Lookup.UNANSWERED, kind


def test_of_googles_check_of_a_push(monkeypatch: pytest.MonkeyPatch) -> None:
    with GmailEmulator() as emulator:
        gate = PushGate(account("gmail", emulator, push_service_account="a@b.test", push_audience="c"))
        monkeypatch.setattr(gate, "_google_certs", dict)
        push = HookRequest(headers={"authorization": "Bearer x"}, query={}, body=b"{}")
        for kind in exceptions_of("google.auth"):
            monkeypatch.setattr(google.auth.jwt, "decode", raising(kind))
            with pytest.raises(BadSignature, match="not Google's"):
                gate.notices(push)
        gate.close()


def test_of_msal(monkeypatch: pytest.MonkeyPatch) -> None:
    with Microsoft365Bench() as bench:
        tokens = bench.provider._graph.tokens  # type: ignore[attr-defined]
        known = tokens.get()
        for kind in [*exceptions_of("msal"), KeyError, TypeError, AttributeError, ValueError]:
            monkeypatch.setattr(msal.ConfidentialClientApplication, "acquire_token_by_refresh_token", raising(kind))
            with pytest.raises(TokenError) as caught:
                tokens.get(instead_of=known)
            assert caught.value.outcome.result in (Result.TRANSIENT, Result.CREDENTIALS), kind
            assert SECRET not in repr(caught.value.outcome)


class BrokenSocket:
    """Fails in all that a connection does once it is open."""

    def __init__(self, kind: type[Exception]) -> None:
        self.send = self.recv = raising(kind)

    def settimeout(self, seconds: float) -> None:
        """Nothing waits."""


def test_of_an_smtp_connection() -> None:
    kinds = [kind for kind in exceptions_of("builtins", "ssl", "socket") if issubclass(kind, OSError)]
    assert len(kinds) > 20
    for kind in [*kinds, OSError]:
        wire = Wire(BrokenSocket(kind), "127.0.0.1", patience=1.0)  # type: ignore[arg-type]
        with pytest.raises(ConnectionLost) as caught:
            wire.reply(1.0)
        assert SECRET not in str(caught.value)
        with pytest.raises(ConnectionLost):
            wire.write(b"MAIL FROM:<>\r\n")
