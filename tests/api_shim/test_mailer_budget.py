"""What a mailer may still send, as its owner sees it."""

from typing import Any
from uuid import UUID

import pytest
import redis
from starlette.testclient import TestClient

from api_shim.services import Services
from models.message import Priority
from providers.smtp import Smtp
from worker.mailers import OpenMailer

SMTP: dict[str, Any] = {"provider": "smtp", "credentials": {"host": "127.0.0.1"}}


def made(client: TestClient, **changes: Any) -> str:
    answer = client.post("/v1/mailers", json=SMTP | changes)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def opened(services: Services, mailer_id: str) -> OpenMailer:
    mailer = services.providers.mailer(UUID(mailer_id))
    assert mailer is not None
    return mailer


def test_a_mailer_without_limits_has_none_to_show(client: TestClient) -> None:
    body = client.get(f"/v1/mailers/{made(client)}/budget").json()
    assert body == {"limits": [], "learned_per_second": None, "throttled_until": None}


def test_what_was_sent_is_gone_from_every_limit(client: TestClient, app_services: Services) -> None:
    id_ = made(client, caps={"per_minute": 100, "per_day": 1000})
    assert app_services.pace.take(opened(app_services, id_), Priority.NORMAL, 30) == 30
    limits = client.get(f"/v1/mailers/{id_}/budget").json()["limits"]
    assert [(one["name"], one["limit"], one["remaining"]) for one in limits] == [
        ("per_minute", 100, 70),
        ("per_day", 1000, 970),
    ]
    assert 59 < limits[0]["resets_in_seconds"] <= 63
    assert client.get(f"/v1/mailers/{id_}/budget").json()["limits"][0]["remaining"] == 70


def test_what_was_learned_is_shown(client: TestClient, app_services: Services) -> None:
    id_ = made(client)
    mailer = opened(app_services, id_)
    assert type(mailer.provider) is Smtp
    app_services.pace.observe(mailer, 60, 2.0)
    app_services.pace.slow_down(mailer)
    assert client.get(f"/v1/mailers/{id_}/budget").json()["learned_per_second"] == 15


def test_the_limits_of_a_known_provider_are_those_it_publishes(client: TestClient) -> None:
    credentials = {"username": "a@x.com", "password": "x"}
    id_ = made(client, provider="outlook_smtp", credentials=credentials)
    limits = client.get(f"/v1/mailers/{id_}/budget").json()["limits"]
    assert {one["name"]: one["remaining"] for one in limits} == {"per_minute": 30, "per_day": 10_000}


def test_a_redis_that_is_away_is_a_503(
    client: TestClient, app_services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = made(client)

    def away(*_: Any) -> None:
        raise redis.ConnectionError

    monkeypatch.setattr(app_services.pace, "learned", away)
    assert client.get(f"/v1/mailers/{id_}/budget").status_code == 503
