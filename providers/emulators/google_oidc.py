"""OIDC tokens as Google gives a Pub/Sub push subscription, and the certificates that prove them."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from google.auth import crypt, jwt


class OidcIssuer:
    """One service account. ``certs`` is what ``/oauth2/v1/certs`` answers."""

    def __init__(self, *, service_account: str = "push@demo.iam.test", audience: str = "postroad") -> None:
        self.service_account = service_account
        self.audience = audience
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        self._signer = crypt.RSASigner.from_string(pem, key_id="key-1")  # type: ignore[no-untyped-call]
        self.certs = {"key-1": _certificate(key)}

    def token(self, *, age_seconds: float = 0.0, **claims: Any) -> str:
        """A token given out so long ago; it lives for an hour. ``claims`` replace or add."""
        issued = int(time.time() - age_seconds)
        said = {
            "iss": "https://accounts.google.com",
            "aud": self.audience,
            "email": self.service_account,
            "email_verified": True,
            "iat": issued,
            "exp": issued + 3600,
        }
        signed: bytes = jwt.encode(self._signer, said | claims)  # type: ignore[no-untyped-call]
        return signed.decode()


def _certificate(key: rsa.RSAPrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()
