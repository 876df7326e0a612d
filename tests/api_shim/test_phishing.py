"""``settings.phishing_protection``: refused with the reasons, or accepted with them on the submission."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.errors import ApiError
from api_shim.services import Services
from api_shim.shapes import SHAPES
from api_shim.submission import Shape
from tests.api_shim.conftest import Tenant
from tests.api_shim.test_send import add_mailer, body, send, stored

PHISHING = '<p>Verify your account immediately: <a href="https://evil.org/x">https://www.paypal.com</a></p>'
HONEST = '<p>Look <a href="https://bit.ly/x">here</a></p>'


@pytest.fixture
def mailer_id(app_services: Services, tenant: Tenant) -> UUID:
    return add_mailer(app_services, tenant)


def mail(mailer_id: UUID, html: str, *, on: bool = True, **changes: Any) -> dict[str, Any]:
    content = [{"type": "text/html", "value": html}]
    return body(mailer_id, content=content, settings={"phishing_protection": {"enable": on}}, **changes)


def submission(client: TestClient, answer: Any) -> Any:
    assert answer.status_code == 202, answer.text
    return client.get(f"/v1/submissions/{answer.json()['ref_id']}").json()


@pytest.mark.parametrize("dry_run", [False, True])
def test_c19_what_looks_like_phishing_is_refused_with_the_reasons_and_nothing_is_stored(
    client: TestClient, tenant: Tenant, mailer_id: UUID, session: Session, dry_run: bool
) -> None:
    answer = send(client, mail(mailer_id, PHISHING, dry_run=dry_run))
    assert answer.status_code == 400
    refusal = answer.json()
    assert refusal["success"] is False
    assert refusal["error"].startswith("The content looks like phishing.")
    assert refusal["details"]["score"] == 60
    assert [reason["rule"] for reason in refusal["details"]["reasons"]] == ["link_mismatch", "urgent_wording"]
    assert stored(session, tenant) == 0


def test_c19_reasons_below_the_threshold_stand_on_the_submission(client: TestClient, mailer_id: UUID) -> None:
    found = submission(client, send(client, mail(mailer_id, HONEST)))
    assert found["phishing"]["score"] == 10
    [reason] = found["phishing"]["reasons"]
    assert (reason["rule"], reason["examples"]) == ("shortened_link", ["bit.ly"])


def test_clean_content_that_was_read_says_so(client: TestClient, mailer_id: UUID) -> None:
    found = submission(client, send(client, mail(mailer_id, "<p>Hi</p>")))
    assert found["phishing"] == {"score": 0, "reasons": []}


def test_c19_without_the_switch_nothing_is_read_or_refused(client: TestClient, mailer_id: UUID) -> None:
    assert submission(client, send(client, mail(mailer_id, PHISHING, on=False)))["phishing"] is None


def test_the_values_of_the_first_recipient_are_read_in_their_place(client: TestClient, mailer_id: UUID) -> None:
    html = '<p>Verify your account immediately: <a href="{{url}}">https://www.paypal.com</a></p>'
    values = {"ann@example.com": {"url": "https://evil.org/x"}}
    assert send(client, mail(mailer_id, html, substitutions=values)).json()["details"]["score"] == 60


def test_a_dry_run_shows_what_was_found(client: TestClient, mailer_id: UUID) -> None:
    answer = send(client, mail(mailer_id, HONEST, dry_run=True)).json()
    assert answer["phishing"]["score"] == 10


@pytest.mark.parametrize("shape", Shape)
def test_every_shape_says_why_it_refused(shape: Shape) -> None:
    details = {"score": 60, "reasons": [{"rule": "form"}]}
    status, answer = SHAPES[shape].render_error(ApiError("PHISHING_SUSPECTED", details=details))
    assert status == 400
    held = answer["error"] if shape is Shape.MAILBOX else answer
    assert held["details"] == details
