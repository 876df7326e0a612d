"""``/v1/email/messages/{id}/attachments/{number}``: a file that came with a mail."""

import re
from typing import Annotated
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Path, Response
from sqlalchemy import select

from api_shim.auth import Caller
from api_shim.errors import ApiError
from api_shim.http import SessionDep, caller_with
from models.blob import Blob
from models.record import InboundMessage

router = APIRouter(prefix="/email/messages", tags=["threads"])
Reader = Annotated[Caller, caller_with("email:read")]

_PLAIN_TYPE = re.compile(
    r"(?:image/(?:png|jpeg|gif|webp)|audio/[\w.+-]+|video/[\w.+-]+|application/(?!x?html|xml)[\w.+-]+)"
)
"""What no browser runs. Everything else is handed out as bytes of no type."""


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
    file = listed[number] if listed is not None and number < len(listed) else {}
    kept = (Blob.workspace_id == caller.workspace_id, Blob.sha256 == file.get("sha256"))
    data = session.scalar(select(Blob.data).where(*kept)) if file.get("sha256") else None
    if data is None:
        raise ApiError("NOT_FOUND", details={"id": str(inbound_id), "attachment": number})
    type_ = str(file["mimeType"]).lower()
    return Response(
        bytes(data),
        media_type=type_ if _PLAIN_TYPE.fullmatch(type_) else "application/octet-stream",
        headers={
            "Content-Disposition": f"attachment; filename*=utf-8''{quote(str(file['name']), safe='')}",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cache-Control": "private, no-store",
        },
    )
