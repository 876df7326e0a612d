"""What can be sent, as whom."""

from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from models.access import ApiKey
from models.mailer import Mailer
from tests.api_shim.conftest import Tenant, as_caller, new_tenant
from tests.api_shim.record_rows import add_mailer

PATH = "/v1/email/capabilities"


def test_a_workspace_without_mailers_can_send_nothing_yet(client: TestClient, tenant: Tenant) -> None:
    shown = client.get(PATH).json()
    assert shown["api_key"]["id"] == str(tenant.key_id)
    assert "email:send" in shown["api_key"]["scopes"]
    assert shown["authenticated_user"] is None
    assert shown["company_mail"]["connected"] is False
    assert (shown["personal"], shown["send_as_aliases"]) == ([], {})


def test_a43_a_key_of_a_user_says_who_i_is(client: TestClient, session: Session, tenant: Tenant) -> None:
    session.get_one(ApiKey, tenant.key_id).user_id = tenant.user_id
    session.commit()
    user = {"id": str(tenant.user_id), "email": "ada@mail.test", "name": "Ada"}
    assert client.get(PATH).json()["authenticated_user"] == user


def test_a43_company_mail_goes_through_the_default_mailer(client: TestClient, session: Session, tenant: Tenant) -> None:
    add_mailer(session, tenant)
    default = add_mailer(session, tenant, provider="gmail", is_default=True)
    shown = client.get(PATH).json()["company_mail"]
    assert shown == {
        "provider": "gmail",
        "display_name": "Gmail",
        "mailer_id": str(default),
        "from_addresses": ["hello@mail.test"],
        "domains": ["mail.test"],
        "connected": True,
    }


def test_company_mail_through_a_relay_is_postroads_own(client: TestClient, session: Session, tenant: Tenant) -> None:
    add_mailer(session, tenant, provider="postmark", status="reconnect_required")
    shown = client.get(PATH).json()["company_mail"]
    assert (shown["display_name"], shown["connected"]) == ("postroad Mail", False)


def test_a43_users_with_a_mailbox_are_listed_with_their_aliases(
    client: TestClient, session: Session, tenant: Tenant
) -> None:
    aliases = ["ada@mail.test", "sales@mail.test"]
    mailbox = add_mailer(session, tenant, provider="gmail", user_id=tenant.user_id, from_addresses=aliases)
    shown = client.get(PATH).json()
    assert shown["company_mail"]["mailer_id"] is None
    assert shown["personal"] == [
        {
            "user_id": str(tenant.user_id),
            "email": "ada@mail.test",
            "name": "Ada",
            "provider": "gmail",
            "mailer_id": str(mailbox),
            "connected": True,
            "send_as_aliases": aliases,
        }
    ]
    assert shown["send_as_aliases"] == {str(tenant.user_id): aliases}


def test_nothing_of_another_workspace_is_a_capability(
    other: TestClient, session: Session, tenant: Tenant, other_tenant: Tenant
) -> None:
    add_mailer(session, tenant)
    add_mailer(session, tenant, provider="gmail", user_id=tenant.user_id)
    shown = other.get(PATH).json()
    assert (shown["company_mail"]["mailer_id"], shown["personal"]) == (None, [])
    assert session.query(Mailer).filter_by(workspace_id=other_tenant.workspace_id).count() == 0


def test_a3_capabilities_need_email_read(api: TestClient, app_services: Services) -> None:
    sender = as_caller(api, new_tenant(app_services, ("email:send",)).key)
    assert sender.get(PATH).status_code == 403
