"""Signatures, as dkimpy sees them: on the mail as composed, and after its way through an SMTP server."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from models.base import uuid7
from models.content import Address, Content, SendSettings
from models.domain import DkimKey, KeyStatus, SendingDomain
from providers.emulators.smtp import SmtpEmulator
from tests.worker.dkim_oracle import install, signed_names, verdicts
from tests.worker.house import House, settings_for
from tests.worker.samples import OUTLOOK_ID, assert_wire_format, attached, compiled, content, letter, read, stored
from worker.dkim import Algorithm, KeyPair, Signer, SigningKey, body_hash, new_key, record
from worker.signers import key_purpose

PAIRS = {algorithm: new_key(algorithm) for algorithm in Algorithm}
ZONE = {f"{name.value}._domainkey.demo.test": record(name, pair.public) for name, pair in PAIRS.items()}
SIGNER = Signer("demo.test", [SigningKey(name.value, pair.private) for name, pair in PAIRS.items()])


@pytest.fixture(autouse=True)
def _oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def signed(mail: Content, files: dict[str, bytes] | None = None, **changes: Any) -> bytes:
    made = compiled(mail, files=files).email(letter(**changes), SIGNER).mime
    assert made is not None
    return made


FILE = bytes(range(256)) * 40
MAILS = {
    "plain": content(html=None),
    "shared body": content(html="<p>Hello</p>", text="Hello", personalised=False),
    "dots and spaces": content(html=None, text=".\n..\n.hidden\n  a  b\t c \n \n\n.\n\n", personalised=False),
    "long lines": content(text="word " * 900, html=f"<p>{'x' * 3000}</p>"),
    "8 bit": content(subject="Grüße {{name}} 山田", text="Grüße — 山田\n", html="<p>Grüße 山田</p>"),
    "empty": content(html=None, text="", personalised=False),
    "thread": content(in_reply_to=OUTLOOK_ID, references=(OUTLOOK_ID, "<b@demo.test>"), reply_to=(Address("r@x.test"),)),
    "many": content(
        individual=False, personalised=False, subject="Hello",
        to=tuple(Address(f"person{n}@example.test", f"Persön {n}") for n in range(40)), cc=(Address("c@x.test"),),
    ),
    "attached": content(attachments=(attached(FILE, "ä.bin", "application/octet-stream"),)),
    "unsubscribe": content(settings=SendSettings(open_tracking=True, click_tracking=True, unsubscribe=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", MAILS)
def test_both_signatures_of_a_mail_hold(name: str) -> None:
    shared = {"to": None, "recipients": ("a@example.test",), "variables": None} if name == "many" else {}
    mail = signed(MAILS[name], stored(FILE), **shared)
    assert_wire_format(mail)
    assert verdicts(mail, ZONE) == [True, True]


def test_the_header_fields_that_matter_are_covered_and_from_twice() -> None:
    mail = signed(
        content(
            in_reply_to=OUTLOOK_ID, references=(OUTLOOK_ID,), reply_to=(Address("r@x.test"),), html=None,
            headers={"X-Own": "1", "List-Id": "<news.demo.test>"}, settings=SendSettings(unsubscribe=True),
        )
    )  # fmt: skip
    names = signed_names(mail)
    assert names.count("from") == 2
    assert set(names) == {
        "from", "to", "subject", "date", "message-id", "mime-version", "content-type", "content-transfer-encoding",
        "reply-to", "in-reply-to", "references", "list-id", "list-unsubscribe", "list-unsubscribe-post",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Subject: Hello", b"Subject: Jello"),
        (b"From: Demo", b"From: Evil <evil@x.test>\r\nFrom: Demo"),
        (b"Hello Ann", b"Hello Eve"),
        (b"Date: ", b"Date: Mon, "),
    ],
)
def test_what_is_changed_on_the_way_breaks_them(before: bytes, after: bytes) -> None:
    mail = signed(content(html=None))
    assert before in mail
    assert verdicts(mail.replace(before, after, 1), ZONE) == [False, False]


def test_another_key_in_the_dns_breaks_only_its_own_signature() -> None:
    other = {f"{Algorithm.RSA.value}._domainkey.demo.test": record(Algorithm.RSA, new_key(Algorithm.RSA).public)}
    assert verdicts(signed(content()), ZONE | other) == [False, True]


def test_every_attempt_is_the_same_mail() -> None:
    assert signed(content()) == signed(content())


def test_a_body_that_all_share_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []

    def counted(body: bytes) -> str:
        hashed.append(body)
        return body_hash(body)

    monkeypatch.setattr("worker.compose.body_hash", counted)
    same = compiled(content(html="<p>Hi</p>", text="Hi", personalised=False))
    mails = [same.email(letter(), SIGNER).mime or b"" for _ in range(3)]
    assert len(hashed) == 1
    assert verdicts(mails[2], ZONE) == [True, True]


def test_the_body_hashes_of_rfc_6376_section_3_4_5() -> None:
    # The example of relaxed canonicalisation there: " C \r\nD \t E\r\n\r\n\r\n" is signed as " C\r\nD E\r\n".
    assert (
        body_hash(b" C \r\nD \t E\r\n\r\n\r\n") == base64.b64encode(hashlib.sha256(b" C\r\nD E\r\n").digest()).decode()
    )
    assert body_hash(b"") == body_hash(b"\r\n\r\n") == base64.b64encode(hashlib.sha256(b"").digest()).decode()


def test_the_ed25519_key_of_rfc_8463_has_the_public_half_it_says() -> None:
    seed = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    key = Ed25519PrivateKey.from_private_bytes(seed)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    zone = {"brisbane._domainkey.demo.test": record(Algorithm.ED25519, "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")}
    mail = Signer("demo.test", [SigningKey("brisbane", pem)]).signed(b"From: a@demo.test\r\n\r\nHi\r\n")
    assert verdicts(mail, zone) == [True]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=" \t.ab=\n", max_size=60))
def test_any_white_space_in_a_body_is_read_as_dkimpy_reads_it(words: str) -> None:
    body = words.replace("\n", "\r\n").encode() + b"\r\n"  # as every server ends it
    mail = Signer("demo.test", SIGNER.keys[:1]).signed(b"From: a@demo.test\r\nSubject:  x \r\n\ty\r\n\r\n" + body)
    assert verdicts(mail, ZONE) == [True]


def test_keys_show_nothing_of_themselves() -> None:
    assert "PRIVATE" not in repr(PAIRS[Algorithm.RSA])
    with pytest.raises(ValueError, match="RSA or Ed25519"):
        SigningKey("s", _p256())


def _p256() -> str:
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture(scope="module")
def house(database_url: str, redis_url: str) -> Iterator[House]:
    with SmtpEmulator() as server:
        opened = House(settings_for(database_url, redis_url), server)
        yield opened
        opened.close()


def sign_for(house: House, domain: str, status: KeyStatus = KeyStatus.ACTIVE) -> dict[str, str]:
    """Gives the workspace these keys for a domain; the TXT records."""
    domain_id = uuid7()
    with house.session() as session:
        session.add(SendingDomain(id=domain_id, workspace_id=house.workspace_id, name=domain))
        session.flush()
        for pair in PAIRS.values():
            session.add(_row(house, domain_id, pair, status))
        session.commit()
    house.runtime.signers._known.clear()
    return {f"{name.value}._domainkey.{domain}": record(name, pair.public) for name, pair in PAIRS.items()}


def _row(house: House, domain_id: Any, pair: KeyPair, status: KeyStatus) -> DkimKey:
    key_id = uuid7()
    return DkimKey(
        id=key_id,
        workspace_id=house.workspace_id,
        domain_id=domain_id,
        selector=pair.algorithm.value,
        algorithm=pair.algorithm.value,
        public_key=pair.public,
        sealed_private_key=house.runtime.vault.seal(key_purpose(key_id), {"private": pair.private}),
        status=status,
    )


@pytest.fixture
def unsigned(house: House) -> Iterator[None]:
    yield
    with house.runtime.engine.begin() as connection:
        connection.execute(text("delete from sending_domain"))
    house.runtime.signers._known.clear()
    house.server.received.clear()


@pytest.mark.usefixtures("unsigned")
class TestOverTheWire:
    def test_c14_signatures_hold_at_the_server_however_the_mail_looks(self, house: House) -> None:
        zone = sign_for(house, "demo.test")
        house.submit("ann@example.com", text="..\n.\n. \n  x\t y \n" + "long " * 400, html=None)
        house.submit(
            "bob@example.com", subject="Grüße 山田", text="Grüße\n.", html="<p>.</p>\n.\n<p>山田</p>" + "x" * 2000
        )
        house.submit("c@example.com", "d@example.com", settings=SendSettings(unsubscribe=True, open_tracking=True))
        house.deliver_all()
        assert len(house.server.received) == 4
        assert [verdicts(mail.data, zone) for mail in house.server.received] == [[True, True]] * 4

    def test_a_subdomain_is_signed_by_the_domain_above_it(self, house: House) -> None:
        zone = sign_for(house, "test")
        house.submit("ann@example.com")
        house.deliver_all()
        assert verdicts(house.server.received[0].data, zone) == [True, True]

    @pytest.mark.parametrize("status", [KeyStatus.PENDING, KeyStatus.RETIRED])
    def test_keys_that_are_not_active_sign_nothing(self, house: House, status: KeyStatus) -> None:
        sign_for(house, "demo.test", status)
        house.submit("ann@example.com")
        house.deliver_all()
        assert read(house.server.received[0].data)["DKIM-Signature"] is None

    def test_keys_of_other_domains_sign_nothing(self, house: House) -> None:
        sign_for(house, "xdemo.test")
        sign_for(house, "mail.demo.test")
        house.submit("ann@example.com")
        house.deliver_all()
        assert read(house.server.received[0].data)["DKIM-Signature"] is None

    def test_a_key_that_does_not_open_leaves_the_mail_to_the_others(self, house: House) -> None:
        zone = sign_for(house, "demo.test")
        with house.runtime.engine.begin() as connection:
            connection.execute(text("update dkim_key set sealed_private_key = 'x' where algorithm = 'rsa-sha256'"))
        house.submit("ann@example.com")
        house.deliver_all()
        assert verdicts(house.server.received[0].data, zone) == [True]

    def test_a_domain_none_of_whose_keys_opens_parks_the_mailer_and_nothing_goes_unsigned(self, house: House) -> None:
        zone = sign_for(house, "demo.test")
        kept = house.rows("select id, sealed_private_key from dkim_key")
        with house.runtime.engine.begin() as connection:
            connection.execute(text("update dkim_key set sealed_private_key = 'x'"))
        accepted = house.submit("ann@example.com")
        house.deliver()
        [row] = house.rows("select status, status_reason from mailer where id = :m")
        assert row["status"] == "reconnect_required"
        assert "the DKIM keys of demo.test do not open" in row["status_reason"]
        assert (house.message(accepted).state, house.server.received) == ("queued", [])
        assert house.scalar("select count(*) from event where type = 'mailer_reconnect_required'") == 1
        with house.runtime.engine.begin() as connection:
            connection.execute(
                text("update dkim_key set sealed_private_key = :sealed_private_key where id = :id"), kept
            )
            connection.execute(text("update mailer set status = 'active', status_reason = null"))
        house.runtime.signers._known.clear()
        house.deliver_all()
        assert verdicts(house.server.received[0].data, zone) == [True, True]

    def test_credentials_that_do_not_open_park_the_mailer_and_say_so(self, house: House) -> None:
        kept = house.scalar("select sealed_credentials from mailer where id = :m")
        with house.runtime.engine.begin() as connection:
            connection.execute(text("update mailer set sealed_credentials = 'x'"))
        accepted = house.submit("ann@example.com")
        assert house.deliver() == 0
        [row] = house.rows("select status, status_reason from mailer where id = :m")
        assert row["status"] == "reconnect_required"
        assert "POSTROAD_SECRET_KEYS" in row["status_reason"]
        with house.runtime.engine.begin() as connection:
            connection.execute(text("update mailer set sealed_credentials = :c, status = 'active'"), {"c": kept})
        house.deliver_all()
        assert house.message(accepted).state == "sent"
