"""`postroad workspace`: the first step on a fresh database."""

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import NullPool, create_engine, select
from sqlalchemy.orm import Session

from api_shim.auth import SCOPES, authenticate
from models.access import Workspace
from tests.deploy.shell import run, run_on_terminal
from worker.settings import Settings


@pytest.fixture(scope="module")
def env(database_url: str) -> dict[str, str]:
    return {"POSTROAD_DATABASE_URL": database_url, "POSTROAD_SECRET_KEYS": Fernet.generate_key().decode()}


def _session(env: dict[str, str]) -> Session:
    settings = Settings(database_url=env["POSTROAD_DATABASE_URL"], secret_keys=env["POSTROAD_SECRET_KEYS"])
    return Session(create_engine(settings.sqlalchemy_url, poolclass=NullPool))


def test_the_printed_key_opens_the_workspace_with_every_scope(env: dict[str, str]) -> None:
    made = run(["workspace", "create", "acme", "--mail-domain", "Mail.Acme.test"], env).json
    assert (made["name"], made["mail_domain"]) == ("acme", "mail.acme.test")
    with _session(env) as session:
        caller = authenticate(session, f"Bearer {made['key']}", [env["POSTROAD_SECRET_KEYS"]])
        assert str(caller.workspace_id) == made["id"]
        assert caller.scopes == frozenset(SCOPES)
        row = session.scalars(select(Workspace).where(Workspace.id == caller.workspace_id)).one()
        assert (row.name, row.mail_domain) == ("acme", "mail.acme.test")


def test_the_settings_name_the_mail_domain_where_it_is_not_given(env: dict[str, str]) -> None:
    made = run(["workspace", "create", "other"], env | {"POSTROAD_MAIL_DOMAIN": "post.example.com"}).json
    assert made["mail_domain"] == "post.example.com"


def test_on_a_terminal_people_see_no_json(env: dict[str, str]) -> None:
    code, seen = run_on_terminal(["workspace", "create", "people"], env)
    assert code == 0
    assert "postroad_live_" in seen
    assert "{" not in seen


@pytest.mark.parametrize("arguments", [["a\x1b[2J"], [" "], ["fine", "--mail-domain", "no domain"]])
def test_what_is_no_name_or_domain_is_a_usage_error(env: dict[str, str], arguments: list[str]) -> None:
    assert run(["workspace", "create", *arguments], env).code == 2


def test_a_missing_setting_is_named(env: dict[str, str]) -> None:
    ended = run(["workspace", "create", "acme"], env | {"POSTROAD_SECRET_KEYS": None})
    assert ended.code == 1
    assert "POSTROAD_SECRET_KEYS" in ended.err


def test_a_database_that_is_away_is_no_traceback_and_tells_no_password(env: dict[str, str]) -> None:
    ended = run(["workspace", "create", "acme"], env | {"POSTROAD_DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/x"})
    assert ended.code == 1
    assert "postroad doctor" in ended.err
    assert "hush" not in ended.err
