"""``/v1/email/messages/{id}/attachments/{number}``: a file that came with a mail."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Response
from sqlalchemy import select

from api_shim.auth import Caller
from api_shim.downloads import download
from api_shim.errors import ApiError
from api_shim.http import SessionDep, caller_with
from models.record import InboundMessage

router = APIRouter(prefix="/email/messages", tags=["threads"])
Reader = Annotated[Caller, caller_with("email:read")]


@router.get(
    "/{inbound_id}/attachments/{number}",
    response_class=Response,
    responses={200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}},
)
def inbound_attachment(
    inbound_id: UUID,
    number: Annotated[int, Path(ge=0, lt=1000)],
    session: SessionDep,
    caller: Reader,
) -> Response:
    """A file of a received mail, by its place in ``attachments``, counted from 0. To be saved, never to be shown."""
    mine = (InboundMessage.id == inbound_id, InboundMessage.workspace_id == caller.workspace_id)
    listed = session.scalar(select(InboundMessage.attachments).where(*mine))
    file: dict[str, Any] = listed[number] if listed is not None and number < len(listed) else {}
    answer = file.get("sha256") and download(
        session, caller.workspace_id, file["sha256"], name=str(file["name"]), content_type=str(file["mimeType"])
    )
    if not answer:
        raise ApiError("NOT_FOUND", details={"id": str(inbound_id), "attachment": number})
    return answer
