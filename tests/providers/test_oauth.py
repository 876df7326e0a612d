"""Tokens: kept, renewed, refused; and the connect flow with PKCE."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

import providers.oauth
from providers.base import Account, Result
from providers.emulators.gmail import GmailEmulator
from providers.emulators.http import Call, Fault, Reply
from providers.guard import Guard
from providers.oauth import AccessTokens
from providers.oauth_consent import authorization_url, code_challenge, code_verifier, exchange_code, revoke
from providers.tokens import ClientRefused, TokenError, TokenRevoked, TokenUnavailable
from tests.providers.samples import QUICK, account

GOOD = {"client_id": "client", "client_secret": "client-secret", "refresh_token": "refresh-token"}


@pytest.fixture
def google() -> Iterator[GmailEmulator]:
    providers.oauth._cache.clear()
    with GmailEmulator() as emulator:
        yield emulator


def tokens(google: GmailEmulator, service: str = "google", **credentials: str) -> AccessTokens:
    return AccessTokens(account("gmail", google, **{**GOOD, **credentials}), service, timeout=QUICK)


def refused(google: GmailEmulator, monkeypatch: pytest.MonkeyPatch, reply: Reply) -> TokenError:
    def same(_: Call) -> Reply:
        return reply

    monkeypatch.setattr(google, "answer", same)
    with pytest.raises(TokenError) as caught:
        tokens(google).get()
    return caught.value


def test_a_token_is_kept_until_shortly_before_it_expires(google: GmailEmulator) -> None:
    asked = tokens(google)
    first = asked.get()
    assert asked.get() == first
    assert tokens(google).get() == first
    assert google.oauth.granted == 1
    assert first.scopes == frozenset(google.oauth.scopes.split())


def test_a_token_about_to_expire_is_not_given_out_again(google: GmailEmulator) -> None:
    google.oauth.lifetime = 60
    asked = tokens(google)
    assert asked.get().access_token != asked.get().access_token


def test_a_token_that_was_refused_is_renewed_and_its_successor_kept(google: GmailEmulator) -> None:
    asked = tokens(google)
    stale = asked.get().access_token
    fresh = asked.get(stale=stale).access_token
    assert fresh != stale
    assert asked.get(stale=stale).access_token == fresh
    assert google.oauth.granted == 2


def test_threads_share_one_renewal(google: GmailEmulator) -> None:
    asked, found = tokens(google), []
    threads = [threading.Thread(target=lambda: found.append(asked.get().access_token)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert google.oauth.granted == 1


def test_changed_credentials_share_no_token(google: GmailEmulator) -> None:
    tokens(google).get()
    google.oauth.refresh_token = "another"
    tokens(google, refresh_token="another").get()
    assert google.oauth.granted == 2


@pytest.mark.parametrize("fault", [Fault.CLOSE, Fault.RESET, Fault.HANG, Fault.ERROR_500, Fault.ACCEPT_THEN_504])
def test_a_lost_answer_is_asked_for_once_more(google: GmailEmulator, fault: Fault) -> None:
    google.fail(fault)
    assert tokens(google).get().access_token
    google.fail(fault, fault)
    with pytest.raises(TokenUnavailable) as caught:
        tokens(google, scope_="x", client_id="client").get(stale=tokens(google).get().access_token)
    assert caught.value.outcome.result is Result.TRANSIENT


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(400, {"error": "invalid_grant", "error_description": "revoked"}), TokenRevoked),
        (Reply(400, {"error": "interaction_required"}), TokenRevoked),
        (Reply(401, {"error": "invalid_client"}), ClientRefused),
        (Reply(400, {"error": "unauthorized_client"}), ClientRefused),
        (Reply(403, {"error": "org_internal"}), ClientRefused),
        (Reply(400, {"error": {"code": 400}}), ClientRefused),
        (Reply(404, b"<html>"), ClientRefused),
        (Reply(400, {"error": "temporarily_unavailable"}), TokenUnavailable),
        (Reply(429, {"error": "slow_down"}), TokenUnavailable),
        (Reply(503, b""), TokenUnavailable),
        (Reply(200, b"<html>"), TokenUnavailable),
        (Reply(200, {"token_type": "Bearer"}), TokenUnavailable),
    ],
)
def test_each_refusal_has_one_meaning(
    google: GmailEmulator, monkeypatch: pytest.MonkeyPatch, reply: Reply, kind: type[TokenError]
) -> None:
    assert type(refused(google, monkeypatch, reply)) is kind


def test_a_refusal_says_what_google_said(google: GmailEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused(google, monkeypatch, Reply(400, {"error": "invalid_grant", "error_description": "Token revoked."}))
    assert error.outcome.detail == "invalid_grant: Token revoked."
    assert error.outcome.code == "invalid_grant"
    assert error.outcome.result is Result.CREDENTIALS


@pytest.mark.parametrize("expires_in", ["soon", None, [], "nan", 1e999])
def test_a_token_without_a_lifetime_is_good_for_one_use(
    google: GmailEmulator, monkeypatch: pytest.MonkeyPatch, expires_in: object
) -> None:
    body = {"access_token": "t", "expires_in": expires_in, "scope": "a"}
    monkeypatch.setattr(google, "answer", lambda _: Reply(200, body))
    assert tokens(google).get().access_token == "t"
    assert tokens(google).get().access_token == "t"
    assert len(google.calls_to("/token")) == 2


def test_a_busy_endpoint_says_for_how_long(google: GmailEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(google, monkeypatch, Reply(429, {}, {"Retry-After": "30"})).outcome.retry_after == 30


def test_a_token_endpoint_that_may_not_be_reached_needs_correcting() -> None:
    given = Account(
        mailer_id="m", provider="gmail", credentials=GOOD, auth_url="http://127.0.0.1:9", guard=Guard(frozenset())
    )
    with pytest.raises(ClientRefused, match="not a public address"):
        AccessTokens(given, "google").get()


def test_secrets_are_in_no_repr(google: GmailEmulator) -> None:
    asked = tokens(google)
    grant = asked.get()
    assert grant.access_token not in repr(grant)
    assert "refresh-token" not in repr([asked, asked.__dict__])


def consent(google: GmailEmulator, service: str, challenge: str) -> Mapping[str, Any]:
    """What the user's browser brings to the callback."""
    url = authorization_url(
        service,
        client_id="client",
        redirect_uri="https://app.test/callback",
        state="s-1",
        code_challenge=challenge,
        scopes=["a", "b"],
        root=google.url,
    )
    answer = requests.get(url, allow_redirects=False, timeout=5)
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}


def test_the_connect_flow_ends_with_a_refresh_token(google: GmailEmulator) -> None:
    verifier = code_verifier()
    callback = consent(google, "google", code_challenge(verifier))
    assert callback["state"] == "s-1"
    given = account("gmail", google, client_id="client", client_secret="client-secret")
    redirect = "https://app.test/callback"
    grant = exchange_code(given, "google", code=callback["code"], verifier=verifier, redirect_uri=redirect)
    assert grant.refresh_token == "refresh-token"
    assert google.oauth.scopes_of(grant.access_token) == grant.scopes
    with pytest.raises(TokenRevoked):
        exchange_code(given, "google", code=callback["code"], verifier=verifier, redirect_uri=redirect)


def test_a_stolen_code_is_worth_nothing_without_the_verifier(google: GmailEmulator) -> None:
    callback = consent(google, "google", code_challenge(code_verifier()))
    given = account("gmail", google, client_id="client", client_secret="client-secret")
    with pytest.raises(TokenRevoked):
        exchange_code(
            given, "google", code=callback["code"], verifier=code_verifier(), redirect_uri="https://app.test/callback"
        )


def test_a_code_is_offered_only_once(google: GmailEmulator) -> None:
    google.fail(Fault.CLOSE, path="/token")
    given = account("gmail", google, client_id="client", client_secret="client-secret")
    with pytest.raises(TokenUnavailable):
        exchange_code(given, "google", code="c", verifier="v", redirect_uri="https://app.test/callback")
    assert len(google.calls_to("/token")) == 1


def test_the_challenge_is_the_one_of_rfc_7636() -> None:
    # Appendix B of the RFC.
    assert (
        code_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    )


def test_a_revoked_grant_gives_no_more_tokens(google: GmailEmulator) -> None:
    asked = tokens(google)
    asked.get()
    given = account("gmail", google, **GOOD)
    assert revoke(given, "google")
    assert revoke(given, "google")
    with pytest.raises(TokenRevoked):
        asked.get()


def test_a_revocation_without_an_answer_is_told(google: GmailEmulator) -> None:
    google.fail(Fault.ERROR_503, path="/revoke")
    with pytest.raises(TokenUnavailable):
        revoke(account("gmail", google, **GOOD), "google")


def test_microsoft_has_its_own_paths_per_tenant_and_no_revocation(google: GmailEmulator) -> None:
    url = authorization_url(
        "microsoft",
        client_id="client",
        redirect_uri="https://app.test/callback",
        state="s",
        code_challenge="c",
        scopes=["offline_access", "Mail.Send"],
        tenant="acme.test/../x",
        login_hint="ann@demo.test",
    )
    parts = urlsplit(url)
    assert parts.netloc == "login.microsoftonline.com"
    assert parts.path == "/acme.test%2F..%2Fx/oauth2/v2.0/authorize"
    assert parse_qs(parts.query)["login_hint"] == ["ann@demo.test"]
    assert not revoke(account("microsoft365", google, **GOOD), "microsoft")
    with pytest.raises(ClientRefused):
        tokens(google, "microsoft", tenant="acme.test").get()
    assert google.calls[-1].path == "/acme.test/oauth2/v2.0/token"
