"""The one place that makes requests: what is surely not sent, what is uncertain, and every bound."""

import email.utils
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

import providers.http
import providers.http_connection
from providers.base import Account, Result
from providers.emulators.http import Call, Emulator, Fault, Reply
from providers.guard import Guard, HostNotFound
from providers.http import Answer, Api, NoAnswer, NotSent, Timeout, retry_after
from tests.providers.conftest import Certificate
from tests.providers.samples import QUICK, account


class Echo(Emulator):
    """Answers what it was asked."""

    reply: Reply | None = None

    def error(self, status: int) -> Reply:
        return Reply(status, {})

    def answer(self, call: Call) -> Reply:
        return self.reply or Reply(200, {"path": call.path, "host": call.headers["host"], "body": call.body.decode()})


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as emulator:
        yield emulator


@pytest.fixture
def api(echo: Echo) -> Iterator[Api]:
    api = Api(account("x", echo), echo.url, timeout=QUICK)
    yield api
    api.close()


def to(root: str, guard: Guard | None = None, timeout: Timeout = QUICK) -> Api:
    return Api(Account(mailer_id="m", provider="x", credentials={}, guard=guard or Guard()), root, timeout=timeout)


class Raw:
    """A peer that speaks its own mind: ``talk`` gets each connection after the first bytes came."""

    def __init__(self, talk: Callable[[socket.socket], None], wrap: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.accepted = 0
        self._talk = talk
        self._wrap = wrap
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._one, args=(peer,), daemon=True).start()

    def _one(self, peer: socket.socket) -> None:
        try:
            with self._wrap.wrap_socket(peer, server_side=True) if self._wrap else peer as peer:
                peer.recv(65536)
                self._talk(peer)
        except OSError:
            return

    def close(self) -> None:
        self.listener.close()


@pytest.fixture
def raw() -> Iterator[Callable[..., Raw]]:
    peers: list[Raw] = []

    def listen(talk: Callable[[socket.socket], None], wrap: ssl.SSLContext | None = None) -> Raw:
        peers.append(Raw(talk, wrap))
        return peers[-1]

    yield listen
    for peer in peers:
        peer.close()


LOCAL = Guard(frozenset({"127.0.0.1"}))


def test_a_call_brings_status_headers_and_body(echo: Echo, api: Api) -> None:
    answer = api.call("POST", "/v1/x", json={"a": 1}, params={"q": "1"}, headers={"X-Own": "y"})
    assert answer.status == 200
    assert answer.headers["content-TYPE"].startswith("application/json")
    assert answer.json() == {"path": "/v1/x", "host": echo.url.removeprefix("http://"), "body": '{"a": 1}'}
    assert echo.calls[0].headers["x-own"] == "y"
    assert echo.calls[0].query == {"q": ["1"]}


def test_a_body_that_is_no_json_is_none() -> None:
    assert Answer(200, {}, b"<html>").json() is None
    assert Answer(200, {}, b"\xff\xfe").json() is None
    assert Answer(200, {}, b"").json() is None


@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.RESET, Fault.HANG, Fault.ACCEPT_THEN_CUT, Fault.ACCEPT_THEN_DRIP])
def test_a_written_request_without_a_whole_answer_is_uncertain_and_not_repeated(
    echo: Echo, api: Api, fault: Fault
) -> None:
    api.call("GET", "/")
    echo.fail(fault)
    with pytest.raises(NoAnswer) as caught:
        api.call("POST", "/", data=b"x")
    assert len(echo.calls) == 2
    assert caught.value.outcome.result is Result.UNCERTAIN


def test_the_end_of_the_whole_call_is_kept_whoever_drips(raw: Callable[..., Raw]) -> None:
    def drip(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(200):
            peer.sendall(b"X-%d: y\r\n" % number)
            time.sleep(0.05)

    started = time.monotonic()
    with pytest.raises(NoAnswer, match=r"within 1.2 s"):
        to(raw(drip).url, LOCAL).call("GET", "/")
    assert time.monotonic() - started < 8


def test_a_body_without_a_length_cut_at_the_deadline_is_not_taken_for_whole(raw: Callable[..., Raw]) -> None:
    def drip(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(200):
            peer.sendall(b"{}")
            time.sleep(0.05)

    with pytest.raises(NoAnswer):
        to(raw(drip).url, LOCAL).call("GET", "/")


def test_a_head_cut_short_shows_no_url_in_the_logs(raw: Callable[..., Raw], caplog: pytest.LogCaptureFixture) -> None:
    peer = raw(lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDa"))
    to(peer.url, LOCAL).call("GET", "/events", params={"recipient": "bob@client.test"})
    assert "bob" not in caplog.text


def test_an_answer_too_large_is_given_up(echo: Echo, api: Api) -> None:
    echo.reply = Reply(200, b"x" * (providers.http.MAX_ANSWER_BYTES + 1))
    with pytest.raises(NoAnswer, match="larger than"):
        api.call("GET", "/")
    echo.reply = Reply(200, b"x" * providers.http.MAX_ANSWER_BYTES)
    assert len(api.call("GET", "/").body) == providers.http.MAX_ANSWER_BYTES


def test_a_compressed_answer_is_measured_unpacked(echo: Echo, api: Api) -> None:
    import gzip

    echo.reply = Reply(200, gzip.compress(b"x" * 50_000_000), {"Content-Encoding": "gzip"})
    with pytest.raises(NoAnswer, match="larger than"):
        api.call("GET", "/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(echo: Echo, api: Api, status: int) -> None:
    echo.reply = Reply(status, b"x" * 100, {"Location": "/elsewhere"})
    assert api.call("POST", "/", data=b"x").status == status
    assert len(echo.calls) == 1


def test_the_body_of_a_redirect_has_the_same_bound(echo: Echo, api: Api) -> None:
    echo.reply = Reply(302, b"x" * (providers.http.MAX_ANSWER_BYTES + 1), {"Location": "/elsewhere"})
    with pytest.raises(NoAnswer, match="larger than"):
        api.call("GET", "/")


def test_cookies_are_not_kept(echo: Echo, api: Api) -> None:
    echo.reply = Reply(200, {}, {"Set-Cookie": "session=1; Path=/"})
    api.call("GET", "/")
    api.call("GET", "/")
    assert "cookie" not in echo.calls[1].headers


def test_proxies_of_the_environment_are_not_used(echo: Echo, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert api.call("GET", "/").status == 200


def test_connections_are_kept_and_each_thread_has_its_own(raw: Callable[..., Raw]) -> None:
    def twice(peer: socket.socket) -> None:
        for _ in range(3):
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            peer.recv(65536)

    peer = raw(twice)
    api = to(peer.url, LOCAL)
    api.call("GET", "/")
    api.call("GET", "/")
    assert peer.accepted == 1
    thread = threading.Thread(target=api.call, args=("GET", "/"))
    thread.start()
    thread.join()
    assert peer.accepted == 2
    api.close()


def test_a_connection_that_idled_long_is_not_written_to(
    raw: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    def often(peer: socket.socket) -> None:
        while True:
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            if not peer.recv(65536):
                return

    peer = raw(often)
    api = to(peer.url, LOCAL)
    api.call("GET", "/")
    monkeypatch.setattr(providers.http_connection, "IDLE_SECONDS", 0.0)
    api.call("GET", "/")
    assert peer.accepted == 2
    api.close()


@pytest.mark.parametrize(
    ("root", "result"),
    [
        ("http://127.0.0.1:1", Result.CREDENTIALS),
        ("http://[::1]:1", Result.CREDENTIALS),
        ("http://169.254.169.254", Result.CREDENTIALS),
        ("http://192.0.2.1", Result.CREDENTIALS),
        ("http://8.8.8.8", Result.CREDENTIALS),
        ("ftp://api.test", Result.CREDENTIALS),
        ("api.test", Result.CREDENTIALS),
        ("https://", Result.CREDENTIALS),
        ("https://user:word@api.test", Result.CREDENTIALS),
        ("https://api.test/?x=1", Result.CREDENTIALS),
        ("http://a b.test", Result.CREDENTIALS),
        ("https://nowhere.invalid", Result.TRANSIENT),
    ],
)
def test_a_root_that_must_not_or_cannot_be_called_is_surely_not_sent(root: str, result: Result) -> None:
    with pytest.raises(NotSent) as caught:
        to(root).call("POST", "/", data=b"x")
    assert caught.value.outcome.result is result
    assert "word" not in str(caught.value)


def test_a_refused_connection_is_surely_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotSent, match="refused") as caught:
        to(f"http://127.0.0.1:{port}", LOCAL).call("POST", "/", data=b"x")
    assert caught.value.outcome.result is Result.TRANSIENT


def test_a_request_that_cannot_be_written_will_never_pass(api: Api) -> None:
    for wrong in ({"headers": {"X-A": "a\r\nb: c"}}, {"json": float("nan")}):
        with pytest.raises(NotSent) as caught:
            api.call("POST", "/", **wrong)
        assert caught.value.outcome.result is Result.PERMANENT


def test_plain_http_to_a_public_address_needs_the_host_in_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))]

    def connect(*_: object, **__: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(NotSent, match="must be reached by https"):
        to("http://api.test", Guard(frozenset({"*"}))).call("GET", "/")
    with pytest.raises(NotSent, match="refused"):
        to("http://api.test", Guard(frozenset({"api.test"}))).call("GET", "/")
    with pytest.raises(NotSent, match="refused"):
        to("https://api.test").call("GET", "/")


class Elsewhere(Guard):
    """Resolves every name to loopback: as a name server of the tenant's could, but allowed."""

    def addresses(self, host: str, port: int) -> list[str]:
        if host == "gone.test":
            raise HostNotFound("gone.test does not resolve")
        return ["127.0.0.2", "127.0.0.1"]


def test_only_addresses_of_the_guard_are_connected_to_and_the_host_header_stays(echo: Echo) -> None:
    port = echo.url.rpartition(":")[2]
    answer = to(f"http://api.test:{port}", Elsewhere()).call("GET", "/x")
    assert answer.json()["host"] == f"api.test:{port}"  # type: ignore[index]
    with pytest.raises(NotSent, match="does not resolve"):
        to("http://gone.test", Elsewhere()).call("GET", "/x")


def whole(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")


def test_the_certificate_must_be_for_the_name_in_the_url(raw: Callable[..., Raw], certificate: Certificate) -> None:
    peer = raw(whole, certificate.server)
    good = to(f"https://localhost:{peer.port}", Elsewhere())
    good.session.verify = str(certificate.path)
    assert good.call("GET", "/").status == 200
    other = to(f"https://api.test:{peer.port}", Elsewhere())
    other.session.verify = str(certificate.path)
    with pytest.raises(NotSent, match="certificate") as caught:
        other.call("GET", "/")
    assert caught.value.outcome.result is Result.TRANSIENT
    with pytest.raises(NotSent, match="certificate"):
        to(f"https://localhost:{peer.port}", Elsewhere()).call("GET", "/")


def test_a_drip_inside_tls_ends_at_the_deadline_too(raw: Callable[..., Raw], certificate: Certificate) -> None:
    def drip(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            peer.sendall(b"x")
            time.sleep(0.05)

    api = to(f"https://localhost:{raw(drip, certificate.server).port}", Elsewhere())
    api.session.verify = str(certificate.path)
    with pytest.raises(NoAnswer, match="within"):
        api.call("GET", "/")


def test_a_peer_that_never_shakes_hands_is_surely_not_sent(raw: Callable[..., Raw]) -> None:
    def mute(peer: socket.socket) -> None:
        time.sleep(1.5)

    with pytest.raises(NotSent):
        to(f"https://127.0.0.1:{raw(mute).port}", LOCAL, Timeout(0.3, 0.3, 0.6)).call("GET", "/")


def test_a_bug_of_ours_is_not_taken_for_a_fault(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", broken)
    with pytest.raises(ZeroDivisionError):
        api.call("GET", "/")


def moment(**ahead: float) -> str:
    return email.utils.format_datetime(datetime.now(UTC) + timedelta(**ahead), usegmt=True)


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("17", 17), ("99999999", 3600)])
def test_retry_after_in_seconds_is_read_and_clamped(value: str, seconds: float) -> None:
    assert retry_after({"Retry-After": value}) == seconds


def test_retry_after_as_a_date_is_read_and_clamped() -> None:
    soon = retry_after({"Retry-After": moment(seconds=90)})
    assert soon is not None
    assert 80 < soon <= 90
    assert retry_after({"Retry-After": moment(days=2)}) == 3600
    assert retry_after({"Retry-After": moment(days=-2)}) == 0


@pytest.mark.parametrize(
    "headers", [{}, {"retry-after": ""}, {"retry-after": "soon"}, {"retry-after": "-5"}, {"retry-after": "١"}]
)
def test_a_retry_after_that_says_nothing_is_none(headers: dict[str, str]) -> None:
    assert retry_after(headers) is None
