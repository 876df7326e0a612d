"""``/v1/email/capabilities``: who calls, through what the company sends, and whose mailboxes are connected."""

from typing import Annotated, Any

from fastapi import APIRouter
from sqlalchemy import select

from api_shim.auth import Caller
from api_shim.http import SessionDep, caller_with
from models.access import ApiKey, User
from models.mailer import Mailer, MailerStatus

router = APIRouter(prefix="/email/capabilities", tags=["capabilities"])
Reader = Annotated[Caller, caller_with("email:read")]

DISPLAY_NAMES = {
    "gmail": "Gmail",
    "gmail_smtp": "Gmail",
    "microsoft365": "Microsoft 365",
    "outlook_smtp": "Outlook",
}
"""What people call the company's provider; through any other, the mail is postroad's own."""


@router.get("")
def capabilities(session: SessionDep, caller: Reader) -> dict[str, Any]:
    """Who the caller is, the company's provider, and the users with a personal mailbox and their send-as aliases."""
    key = caller.key_id and session.get(ApiKey, caller.key_id)
    user = caller.user_id and session.get(User, caller.user_id)
    mailers = session.execute(
        select(Mailer, User)
        .outerjoin(User, User.id == Mailer.user_id)
        .where(Mailer.workspace_id == caller.workspace_id, Mailer.deleted_at.is_(None))
        .order_by(Mailer.is_default.desc(), Mailer.id)
    ).all()
    company = next((mailer for mailer, owner in mailers if owner is None), None)
    personal = [_personal(mailer, owner) for mailer, owner in mailers if owner is not None]
    return {
        "authenticated_user": user and {"id": user.id, "email": user.email, "name": user.name},
        "api_key": key and {"id": key.id, "name": key.name, "scopes": key.scopes},
        "company_mail": _company(company),
        "personal": personal,
        "send_as_aliases": {str(entry["user_id"]): entry["send_as_aliases"] for entry in reversed(personal)},
    }


def _connected(mailer: Mailer) -> bool:
    return mailer.status != MailerStatus.RECONNECT_REQUIRED


def _company(mailer: Mailer | None) -> dict[str, Any]:
    if mailer is None:
        return {
            "provider": None,
            "display_name": None,
            "mailer_id": None,
            "from_addresses": [],
            "domains": [],
            "connected": False,
        }
    return {
        "provider": mailer.provider,
        "display_name": DISPLAY_NAMES.get(mailer.provider, "postroad Mail"),
        "mailer_id": mailer.id,
        "from_addresses": mailer.from_addresses,
        "domains": mailer.domains,
        "connected": _connected(mailer),
    }


def _personal(mailer: Mailer, owner: User) -> dict[str, Any]:
    return {
        "user_id": owner.id,
        "email": owner.email,
        "name": owner.name,
        "provider": mailer.provider,
        "mailer_id": mailer.id,
        "connected": _connected(mailer),
        "send_as_aliases": mailer.from_addresses,
    }
