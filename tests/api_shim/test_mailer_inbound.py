"""Where mail for a mailer comes in: its addresses, and the mailbox that is read for it."""

import re
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api_shim.services import Services
from models.imap import ImapMailbox
from worker.imap_mailbox import mailbox_purpose
from worker.return_path import Found, Kind, ReturnPaths

RELAY = {"host": "127.0.0.1", "port": 9, "security": "none"}
IMAP = {"host": "127.0.0.1", "security": "none", "username": "replies", "password": "sesame"}


def _mailer(client: TestClient, **fields: object) -> str:
    body = {"provider": "smtp", "name": "relay", "domains": ["demo.test"], "credentials": RELAY, **fields}
    answer = client.post("/v1/mailers", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _mark(session: Session, row: ImapMailbox) -> tuple[int | None, int]:
    session.refresh(row)
    return row.uid_validity, row.last_uid


def test_a_mailbox_is_kept_sealed_and_its_login_never_comes_back(
    client: TestClient, session: Session, app_services: Services
) -> None:
    id_ = _mailer(client)
    answer = client.put(f"/v1/mailers/{id_}/inbound/imap", json=IMAP)
    assert answer.status_code == 200, answer.text
    assert answer.json()["imap"]["status"] == "starting"
    assert "sesame" not in answer.text + client.get(f"/v1/mailers/{id_}/inbound").text
    row = session.scalars(select(ImapMailbox).where(ImapMailbox.mailer_id == id_)).one()
    held = app_services.vault.open(mailbox_purpose(row.mailer_id), bytes(row.sealed_access))
    assert (held["username"], held["password"], held["folder"]) == ("replies", "sesame", "INBOX")
    assert client.delete(f"/v1/mailers/{id_}/inbound/imap").status_code == 204
    assert client.get(f"/v1/mailers/{id_}/inbound").json()["imap"] is None
    assert client.delete(f"/v1/mailers/{id_}/inbound/imap").status_code == 404


def test_a_deleted_mailer_leaves_no_login_behind(client: TestClient, session: Session) -> None:
    id_ = _mailer(client)
    client.put(f"/v1/mailers/{id_}/inbound/imap", json=IMAP)
    assert client.delete(f"/v1/mailers/{id_}").status_code == 204
    assert session.scalars(select(ImapMailbox).where(ImapMailbox.mailer_id == id_)).all() == []


def test_another_folder_is_read_from_its_own_beginning_and_a_new_password_goes_on(
    client: TestClient, session: Session
) -> None:
    id_ = _mailer(client)
    client.put(f"/v1/mailers/{id_}/inbound/imap", json=IMAP)
    row = session.scalars(select(ImapMailbox).where(ImapMailbox.mailer_id == id_)).one()
    row.uid_validity, row.last_uid = 5, 70
    session.commit()
    client.put(f"/v1/mailers/{id_}/inbound/imap", json={**IMAP, "password": "new"})
    assert _mark(session, row) == (5, 70)
    client.put(f"/v1/mailers/{id_}/inbound/imap", json={**IMAP, "folder": "Bounces"})
    assert _mark(session, row) == (None, 0)


def test_a_login_that_does_not_open_any_more_can_be_set_anew(client: TestClient, session: Session) -> None:
    id_ = _mailer(client)
    client.put(f"/v1/mailers/{id_}/inbound/imap", json=IMAP)
    row = session.scalars(select(ImapMailbox).where(ImapMailbox.mailer_id == id_)).one()
    row.sealed_access, row.uid_validity, row.last_uid = b"sealed with a key that is lost", 5, 70
    session.commit()
    assert client.put(f"/v1/mailers/{id_}/inbound/imap", json=IMAP).status_code == 200
    assert _mark(session, row) == (None, 0)


def test_hosts_are_guarded_and_a_way_to_log_in_is_asked_for(client: TestClient) -> None:
    id_ = _mailer(client)
    body = {"host": "10.1.2.3", "username": "me"}
    answer = client.put(f"/v1/mailers/{id_}/inbound/imap", json=body)
    fields = {fault["field"] for fault in answer.json()["details"]["fields"]}
    assert (answer.status_code, fields) == (400, {"host", "password"})
    assert "POSTROAD_MAILER_ALLOWED_HOSTS" in answer.text
    for bad in ({"folder": "a\r\nb"}, {"username": "a\r\nb"}, {"password": "a\nb"}, {"folder": "Entwürfe"}):
        assert client.put(f"/v1/mailers/{id_}/inbound/imap", json={**IMAP, **bad}).status_code == 400


def test_a_mailer_has_an_address_to_forward_to(client: TestClient, app_services: Services) -> None:
    id_ = _mailer(client, return_path_domain="Bounce.Demo.test")
    shown = client.get(f"/v1/mailers/{id_}/inbound").json()
    assert shown["return_path_domain"] == "bounce.demo.test"
    found = ReturnPaths(app_services.settings.keys).read(shown["inbox_address"])
    assert isinstance(found, Found)
    assert (found.kind, str(found.id)) == (Kind.INBOX, id_)


def test_the_source_of_a_mail_shows_the_address_that_its_answers_go_to(
    client: TestClient, app_services: Services
) -> None:
    id_ = _mailer(client, reply_domain="Reply.Demo.test")
    sent = {"mailer_id": id_, "from": {"email": "hello@demo.test", "name": "Ada"}, "to": [{"email": "ann@example.com"}]}
    content = {"subject": "Hello", "content": [{"type": "text/plain", "value": "Hello"}], "settings": {}}
    answer = client.post("/v1/email/send", json={**sent, **content})
    assert answer.status_code == 202, answer.text
    [message] = client.get("/v1/messages", params={"ref_id": answer.json()["ref_id"]}).json()["data"]
    address = app_services.paths.reply("reply.demo.test", UUID(message["id"]))
    raw = client.get(f"/v1/messages/{message['id']}/raw").text
    unfolded = re.sub(r"\r?\n(?=[ \t])", "", raw)
    assert [line for line in unfolded.splitlines() if line.startswith("Reply-To")] == [f"Reply-To: Ada <{address}>"]


def test_only_a_server_that_takes_any_sender_can_have_return_paths(client: TestClient) -> None:
    body = {"provider": "postmark", "credentials": {"server_token": "t"}, "return_path_domain": "bounce.demo.test"}
    answer = client.post("/v1/mailers", json=body)
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == "return_path_domain"
