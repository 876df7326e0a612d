"""`postroad reseal`: a key rotation, from the new key put first to the old one taken away."""

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.orm import Session

from api_shim.auth import authenticate
from api_shim.errors import ApiError
from deploy.commands.reseal import sealed_columns
from models.base import uuid7
from models.mailer import Mailer
from models.webhook import WebhookEndpoint
from tests.deploy.shell import run
from worker.settings import Settings
from worker.vault import SecretUnreadable, Vault


@pytest.fixture(scope="module")
def env(database_url: str) -> dict[str, str]:
    return {"POSTROAD_DATABASE_URL": database_url, "POSTROAD_SECRET_KEYS": Fernet.generate_key().decode()}


def session_of(env: dict[str, str]) -> Session:
    settings = Settings(database_url=env["POSTROAD_DATABASE_URL"], secret_keys=env["POSTROAD_SECRET_KEYS"])
    return Session(create_engine(settings.sqlalchemy_url, poolclass=NullPool))


def test_after_resealing_the_old_key_is_needed_for_nothing(env: dict[str, str]) -> None:
    old, new = env["POSTROAD_SECRET_KEYS"], Fernet.generate_key().decode()
    workspace = run(["workspace", "create", "acme"], env).json
    mailer_id, endpoint_id = uuid7(), uuid7()
    with session_of(env) as session:
        session.add(
            Mailer(
                id=mailer_id,
                workspace_id=workspace["id"],
                provider="smtp",
                name="relay",
                from_addresses=[],
                domains=[],
                sealed_credentials=Vault(old).seal("mailer", {"password": "x"}),
                hook_token="t",
            )
        )
        secret = Vault(old).seal("endpoint", {"secret": "whsec_x"})
        session.add(
            WebhookEndpoint(id=endpoint_id, workspace_id=workspace["id"], url="x", events=["*"], sealed_secret=secret)
        )
        session.commit()
    rotated = env | {"POSTROAD_SECRET_KEYS": f"{new},{old}"}
    assert run(["reseal"], rotated).json == {"resealed": 2, "unreadable": 0}
    with session_of(env) as session:
        sealed = session.get_one(Mailer, mailer_id).sealed_credentials
        assert Vault(new).open("mailer", sealed) == {"password": "x"}
        with pytest.raises(SecretUnreadable):
            Vault(old).open("mailer", sealed)
        assert Vault(new).open("endpoint", session.get_one(WebhookEndpoint, endpoint_id).sealed_secret)
        # An API key is hashed with the newest key as soon as it is used.
        authenticate(session, f"Bearer {workspace['key']}", [new, old])
        assert authenticate(session, f"Bearer {workspace['key']}", [new]).key_id
        with pytest.raises(ApiError, match="UNAUTHORIZED"):
            authenticate(session, f"Bearer {workspace['key']}", [old])


def test_a_secret_that_no_key_opens_is_counted_and_left_as_it_is(env: dict[str, str]) -> None:
    stranger = Vault(Fernet.generate_key().decode()).seal("mailer", {"password": "x"})
    with session_of(env) as session:
        session.execute(text("update mailer set sealed_credentials = :sealed"), {"sealed": stranger})
        session.commit()
    ended = run(["reseal"], env)
    assert ended.code == 1
    with session_of(env) as session:
        assert session.execute(text("select sealed_credentials from mailer")).scalars().all() == [stranger]


def test_every_sealed_column_is_resealed() -> None:
    names = {f"{table.name}.{column.name}" for table, column in sealed_columns()}
    assert names == {
        "mailer.sealed_credentials", "provider_report.sealed_head", "webhook_endpoint.sealed_secret",
        "webhook_endpoint.sealed_old_secret", "erasure.sealed_address", "imap_mailbox.sealed_access",
        "dkim_key.sealed_private_key",
    }  # fmt: skip
