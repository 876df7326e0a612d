"""No URL of a tenant leads a webhook into the inside: at registration, at connect, by name, address or redirect."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from providers.guard import Guard, parse_hosts
from tests.worker.receiver import Receiver, raw, receiving, status
from worker.postman import Answer, Postman
from worker.target import UrlRefused, check_url, parse_url

PUBLIC = "93.184.215.14"
SETTING = "POSTROAD_WEBHOOK_ALLOWED_HOSTS"
CLOSED = Guard(frozenset(), SETTING)
LOOPBACK = Guard(parse_hosts("127.0.0.1"), SETTING)

REFUSED = [
    "http://127.0.0.1:8080/", "http://localhost/", "http://localhost.:8080/", "http://LOCALHOST/", "http://0/", "http://0.0.0.0/",
    "http://127.1/", "http://127.0.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/",
    "http://017700000001/", "http://127.0.0.1./", "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/", "http://[::ffff:169.254.169.254]/", "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/", "http://[64:ff9b:1::1]/", "http://[2002:7f00:1::]/", "http://[2001:db8::1]/",
    "http://[2001::1]/", "http://[3fff::1]/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fe80::1%lo]/",
    "http://[fc00::1]/", "http://[fd12:3456::1]/", "http://[fec0::1]/", "http://[ff02::1]/", "http://[5f00::1]/",
    "http://10.0.0.1/", "http://10.255.255.255/", "http://100.64.0.1/", "http://172.16.0.1/", "http://172.31.255.254/",
    "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data/", "http://192.0.0.1/", "http://192.0.2.1/",
    "http://192.88.99.1/", "http://198.18.0.1/", "http://198.51.100.1/", "http://203.0.113.1/", "http://224.0.0.1/",
    "http://239.255.255.250/", "http://240.0.0.1/", "http://255.255.255.255/",
    "http://①②⑦.⓪.⓪.①/", "http://⑯⑨.②⑤④.⑯⑨.②⑤④/", "http://１２７.０.０.１/", "http://127。0。0。1/", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    f"http://user@{PUBLIC}/", f"http://user:pass@{PUBLIC}/", f"http://@{PUBLIC}/", f"http://{PUBLIC}@127.0.0.1/",
    f"http://{PUBLIC}\\@127.0.0.1/", f"http://127.0.0.1\\.{PUBLIC}/", f"http://{PUBLIC}:6379/", f"http://{PUBLIC}:25/",
    f"http://{PUBLIC}:22/", f"http://{PUBLIC}:0/", f"http://{PUBLIC}:65536/", f"http://{PUBLIC}:x/", f"http://{PUBLIC}:5432/",
    f"http://{PUBLIC}:11211/", f"http://{PUBLIC}/#fragment", f"http://{PUBLIC}/#", f"http://{PUBLIC}/a b",
    f"http://{PUBLIC}/\r\nX-Injected:%201", f"http://{PUBLIC}/\tx", f" http://{PUBLIC}/", f"http://{PUBLIC}/\0",
    "unix:///var/run/docker.sock", "file:///etc/passwd", "gopher://127.0.0.1:6379/_INFO", "ftp://a.test/", "javascript:alert(1)",
    "data:text/plain,x", "//a.test/hook", "/hook", "a.test/hook", "", "http://", "http:///path", "https://:443/", "http://[::1/",
    "http://[1.2.3.4]/", "http://300.1.1.1/", "http://1.2.3.4.5/", "http://0x/", "http://%31%32%37.0.0.1/", "http://a..\u2024/",
]  # fmt: skip


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to connect a socket anywhere; none gets through."""
    seen: list[Any] = []

    def connect(_: socket.socket, address: Any) -> None:
        seen.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(
        socket, "socket", type("Watched", (socket.socket,), {"connect": connect, "connect_ex": connect})
    )
    return seen


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def self_signed(name: str, directory: Path) -> tuple[Path, ssl.SSLContext]:
    """The file of a certificate for ``name``, and a server's context that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(
            subject, subject, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown, hidden = directory / "certificate.pem", directory / "key.pem"
    shown.write_bytes(certificate.public_bytes(Encoding.PEM))
    hidden.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown, hidden)
    return shown, context


def post(url: str, guard: Guard, timeout: float = 2.0) -> Answer:
    postman = Postman(guard, timeout)
    try:
        return postman.post(url, [("webhook-id", "1")], b"{}")
    finally:
        postman.close()


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """getaddrinfo gives these answers, one after the other; returns the names it was asked for."""
    asked: list[str] = []
    waiting = list(answers)

    def fake(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        found = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", fake)
    return asked


@pytest.mark.parametrize("url", REFUSED)
def test_a_url_that_leads_inside_is_refused_and_never_connected_to(url: str, connections: list[Any]) -> None:
    assert check_url(url, CLOSED) is not None
    answer = post(url, CLOSED)
    assert answer.status is None
    assert answer.error
    assert connections == []


@pytest.mark.parametrize(
    "url",
    [
        f"https://{PUBLIC}/hook", f"http://{PUBLIC}", f"http://{PUBLIC}:8080/", f"https://{PUBLIC}:8443/a?b=c",
        f"http://{PUBLIC}:3000/", "https://[2606:4700::1111]/hook", "http://8.8.8.8:65535/", "https://9.9.9.9/ü?ä=ö",
    ],
)  # fmt: skip
def test_a_public_url_is_let_through(url: str, connections: list[Any]) -> None:
    assert check_url(url, CLOSED) is None
    assert connections == []
    post(url, CLOSED)
    assert len(connections) == 1, "the table's URLs are refused for what they are, not because nothing ever connects"


def test_a_name_that_does_not_resolve_yet_may_be_registered_but_not_posted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert check_url("https://soon.example.com/hook", CLOSED) is None
    assert post("https://soon.example.com/hook", CLOSED).error == "soon.example.com does not resolve"


def test_a_refusal_names_the_setting_and_not_the_address_behind_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["10.1.2.3"])
    complaint = check_url("https://intranet.example.com/", CLOSED)
    assert complaint is not None
    assert SETTING in complaint
    assert "10.1.2.3" not in complaint
    assert "10.1.2.3" not in (post("https://intranet.example.com/", CLOSED).error or "")


def test_one_bad_address_among_good_ones_is_refused(monkeypatch: pytest.MonkeyPatch, connections: list[Any]) -> None:
    resolving(monkeypatch, [PUBLIC, "127.0.0.1"])
    assert check_url("http://mixed.example.com/", CLOSED) is not None
    assert post("http://mixed.example.com/", CLOSED).status is None
    assert connections == []


def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, connections: list[Any]
) -> None:
    asked = resolving(monkeypatch, [PUBLIC], ["127.0.0.1"])
    post("http://rebind.example.com/", CLOSED)
    assert asked == ["rebind.example.com"]
    assert connections == [(PUBLIC, 80)]


def test_a_name_that_turned_inside_after_registration_is_refused_at_connect(
    monkeypatch: pytest.MonkeyPatch, connections: list[Any]
) -> None:
    resolving(monkeypatch, [PUBLIC], ["127.0.0.1"])
    assert check_url("http://rebind.example.com/", CLOSED) is None
    assert post("http://rebind.example.com/", CLOSED).status is None
    assert connections == []


def test_the_host_header_stays_the_name(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    resolving(monkeypatch, ["127.0.0.1"])
    url = f"http://hooks.example.com:{receiver.port}/a?b=c"
    assert post(url, Guard(parse_hosts("hooks.example.com"), SETTING)).status == 200
    assert receiver.calls[0].headers["host"] == f"hooks.example.com:{receiver.port}"
    assert receiver.calls[0].path == "/a?b=c"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_to_the_inside_is_not_followed(receiver: Receiver, code: int) -> None:
    with receiving() as inside:
        receiver.default = status(code, Location=inside.url)
        answer = post(receiver.url, LOOPBACK)
        assert (answer.status, answer.accepted, inside.connections) == (code, False, 0)


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert post(receiver.url, LOOPBACK).status == 200


def test_a_name_server_that_never_answers_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(*_: Any, **__: Any) -> Any:
        over.wait(60)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    started = time.monotonic()
    answer = post("https://slow.example.com/", CLOSED, timeout=0.2)
    assert time.monotonic() - started < 30
    assert answer.timed_out
    over.set()


@pytest.mark.parametrize(
    ("name", "trusted", "delivered"),
    [("hooks.example.com", True, True), ("hooks.example.com", False, False), ("other.example.com", True, False)],
)
def test_the_certificate_must_be_trusted_and_name_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, trusted: bool, delivered: bool
) -> None:
    certificate, context = self_signed("hooks.example.com", tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    resolving(monkeypatch, ["127.0.0.1"])
    with receiving(tls=context) as receiver:
        answer = post(f"https://{name}:{receiver.port}/", Guard(parse_hosts(name), SETTING))
    assert answer.accepted is delivered
    assert delivered or (answer.error or "").startswith("the TLS certificate is not valid")


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"+PONG\r\n" * 10,
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 9000,
    ],
    ids=["nothing", "ssh", "redis", "bad status", "endless headers"],
)
def test_what_is_no_http_answer_is_a_failure(garbage: bytes, receiver: Receiver) -> None:
    receiver.default = raw(lambda: iter([garbage]))
    answer = post(receiver.url, LOOPBACK)
    assert answer.status is None
    assert answer.error
    assert not answer.timed_out


def test_an_announcement_is_not_the_answer(receiver: Receiver) -> None:
    receiver.default = raw(
        lambda: iter([b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"])
    )
    assert post(receiver.url, LOOPBACK).status == 503


def test_a_chunked_answer_is_read(receiver: Receiver) -> None:
    receiver.default = raw(
        lambda: iter([b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n"])
    )
    answer = post(receiver.url, LOOPBACK)
    assert (answer.status, answer.body) == (202, b"abc")


def test_a_dead_kept_connection_is_replaced_once_and_a_new_one_is_not(receiver: Receiver) -> None:
    hang_up = raw(lambda: iter([]))
    postman = Postman(LOOPBACK, 2.0)
    receiver.answers += [status(200), hang_up, status(200)]
    assert postman.post(receiver.url, [], b"{}").status == 200
    assert postman.post(receiver.url, [], b"{}").status == 200, "its kept connection was closed without a word"
    assert (receiver.connections, len(receiver.calls)) == (2, 3)
    postman.close()
    receiver.answers += [hang_up]
    assert post(receiver.url, LOOPBACK).error == "the connection was closed before an answer came"


def test_a_url_is_sent_percent_encoded() -> None:
    target = parse_url("https://Bücher.example:8443/ü/a%20b?q=ä&x=%26")
    assert target.authority == "xn--bcher-kva.example:8443"
    assert target.path == "/%C3%BC/a%20b?q=%C3%A4&x=%26"
    assert parse_url("https://[2606:4700::1111]/").authority == "[2606:4700::1111]"
    with pytest.raises(UrlRefused, match="port"):
        parse_url("https://a.test:23/")
