"""Another party's emulators (npm ``emulate``): the connect flows of Google and Microsoft, and mail through Gmail.

The package is fetched once into the user's cache. Without npm, or without its registry, these tests are skipped.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

import providers.oauth
from deploy.program import Program, start
from deploy.services import free_port
from providers import open_provider
from providers.base import Account, Lookup, Result
from providers.gmail import Gmail
from providers.oauth import AccessTokens
from providers.oauth_consent import authorization_url, code_challenge, code_verifier, exchange_code, revoke
from providers.oauth_endpoint import SERVICES
from providers.tokens import Grant, TokenRevoked
from tests.conftest import wait_until
from tests.providers.arrivals import composed
from tests.providers.samples import fields, mail
from tests.providers.smtp_samples import LOOPBACK

PACKAGE = "emulate@0.11.2"  # `latest` is another program of that name
CALLBACK = "https://app.test/callback"
LOOPBACK_ONLY = """
const net = require("net"), listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const options = { ...(typeof port === "object" ? port : { port }), host: "127.0.0.1" };
  return listen.call(this, options, ...rest.filter((one) => typeof one === "function"));
};
"""
"""It listens on every address otherwise."""


@pytest.fixture(scope="module")
def program() -> Path:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "postroad-tests" / PACKAGE
    found = cache / "node_modules" / ".bin" / "emulate"
    if not found.exists():
        command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(cache), PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        except (subprocess.SubprocessError, OSError):
            pytest.skip(f"{PACKAGE} cannot be fetched from npm's registry")
    return found


@pytest.fixture(scope="module")
def roots(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Service -> where it is emulated."""
    folder = tmp_path_factory.mktemp("emulate")
    shim = folder / "loopback.cjs"
    shim.write_text(LOOPBACK_ONLY)
    port = free_port()
    argv = (str(program), "start", "--port", str(port), "--service", "google,microsoft")
    env = {**os.environ, "NODE_OPTIONS": f"--require {shim}"}
    process = start(Program(name="emulate", argv=argv, log=folder / "log", env=env))
    found = {"google": f"http://127.0.0.1:{port}", "microsoft": f"http://127.0.0.1:{port + 1}"}
    wait_until(lambda: all(map(_answers, found.values())), "emulate answers")
    yield found
    process.send_signal(15)
    process.wait(60)


def _answers(root: str) -> bool:
    try:
        return requests.get(f"{root}/.well-known/openid-configuration", timeout=5).ok
    except requests.RequestException:
        return False


@pytest.fixture(autouse=True)
def _its_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves Google's older token path, and Microsoft's endpoints without the tenant."""
    google = replace(SERVICES["google"], grant_path="/oauth2/token", revoke_path="/oauth2/revoke")
    microsoft = replace(SERVICES["microsoft"], authorize_path="/oauth2/v2.0/authorize", grant_path="/oauth2/v2.0/token")
    monkeypatch.setitem(SERVICES, "google", google)
    monkeypatch.setitem(SERVICES, "microsoft", microsoft)
    providers.oauth._cache.clear()


def _account(root: str, **credentials: str) -> Account:
    given = {"client_id": "client", "client_secret": "secret", **credentials}
    return Account(mailer_id="m1", provider="gmail", credentials=given, base_url=root, auth_url=root, guard=LOOPBACK)


def _consent(service: str, root: str, verifier: str, scopes: list[str]) -> str:
    """The code that the callback gets once the first user on the consent page has been clicked."""
    url = authorization_url(
        service,
        client_id="client",
        redirect_uri=CALLBACK,
        state="s-1",
        code_challenge=code_challenge(verifier),
        scopes=scopes,
        root=root,
    )
    page = requests.get(url, timeout=60).text
    form = re.search(r'<form[^>]*action="([^"]+)"[^>]*>(.*?)</form>', page, re.DOTALL)
    assert form is not None
    hidden = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', form[2]))
    answer = requests.post(f"{root}{form[1]}", data=hidden, allow_redirects=False, timeout=60)
    callback = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert callback["state"] == ["s-1"]
    return callback["code"][0]


def _connect(service: str, root: str, scopes: list[str]) -> Grant:
    verifier = code_verifier()
    code = _consent(service, root, verifier, scopes)
    return exchange_code(_account(root), service, code=code, verifier=verifier, redirect_uri=CALLBACK)


SCOPES = {
    "google": ["openid", "email", "https://www.googleapis.com/auth/gmail.modify"],
    "microsoft": ["openid", "offline_access", "Mail.Send", "Mail.ReadWrite"],
}


@pytest.mark.parametrize("service", SERVICES)
def test_the_connect_flow_ends_with_tokens_that_can_be_renewed(roots: dict[str, str], service: str) -> None:
    grant = _connect(service, roots[service], SCOPES[service])
    assert grant.refresh_token
    assert grant.expires_in > 0
    tokens = AccessTokens(_account(roots[service], refresh_token=grant.refresh_token), service)
    assert tokens.get().access_token != grant.access_token
    tokens.close()


@pytest.mark.parametrize("service", SERVICES)
def test_a_code_is_worth_nothing_without_its_verifier(roots: dict[str, str], service: str) -> None:
    code = _consent(service, roots[service], code_verifier(), SCOPES[service])
    account = _account(roots[service])
    with pytest.raises(TokenRevoked):
        exchange_code(account, service, code=code, verifier=code_verifier(), redirect_uri=CALLBACK)


def test_a_grant_that_was_given_back_asks_for_a_reconnect(roots: dict[str, str]) -> None:
    grant = _connect("google", roots["google"], SCOPES["google"])
    account = _account(roots["google"], refresh_token=str(grant.refresh_token))
    assert revoke(account, "google")
    adapter = open_provider(account)
    [outcome] = adapter.send([mail()])
    adapter.close()
    assert (outcome.result, outcome.code) == (Result.CREDENTIALS, "invalid_grant")


@pytest.fixture
def gmail(roots: dict[str, str]) -> Iterator[Gmail]:
    grant = _connect("google", roots["google"], SCOPES["google"])
    adapter = Gmail(_account(roots["google"], refresh_token=str(grant.refresh_token)))
    yield adapter
    adapter.close()


def test_mail_goes_out_as_a_draft_that_is_sent_and_leaves_no_draft(gmail: Gmail) -> None:
    given = fields(headers={"X-Campaign": "spring"}, text="Hello")
    email = mail(fields=given)
    email = replace(email, mime=composed(given, email.rfc_message_id))
    [outcome] = gmail.send([email])
    assert (outcome.result, outcome.detail) == (Result.ACCEPTED, "")
    sent = gmail._service.users.messages()
    found = gmail._service.call(sent.get(userId="me", id=outcome.provider_message_id, format="full"))
    headers = {one["name"].lower(): one["value"] for one in found["payload"]["headers"]}
    assert "SENT" in found["labelIds"]
    assert headers["subject"] == "Offer"
    assert headers["to"] == "Bob <bob@client.test>"
    drafts = gmail._service.call(gmail._service.users.drafts().list(userId="me"))["drafts"]
    assert outcome.provider_thread_id not in [draft["message"]["threadId"] for draft in drafts]
    # Unlike Gmail it shows no X- headers among the metadata, so the mail cannot be told from others.
    assert gmail.lookup(replace(email, draft_id="r-gone")).answer is Lookup.CANNOT_TELL


def test_a_reply_joins_its_thread_and_aliases_are_read(gmail: Gmail) -> None:
    [first] = gmail.send([mail()])
    [answer] = gmail.send([mail(provider_thread_id=first.provider_thread_id)])
    assert answer.provider_thread_id == first.provider_thread_id
    assert [alias for alias in gmail.aliases() if alias.is_primary and alias.usable]
