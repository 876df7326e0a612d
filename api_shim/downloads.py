"""A file of a mail as an answer: to be saved, never to be shown."""

import re
from urllib.parse import quote
from uuid import UUID

from fastapi import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.blob import Blob

_PLAIN_TYPE = re.compile(
    r"(?:image/(?:png|jpeg|gif|webp)|audio/[\w.+-]+|video/[\w.+-]+|application/(?!x?html|xml)[\w.+-]+)"
)
"""What no browser runs. Everything else is handed out as bytes of no type."""


def download(session: Session, workspace_id: UUID, sha256: str, *, name: str, content_type: str) -> Response | None:
    """The bytes with this hash under a name that a stranger may have chosen; None if the workspace has none such."""
    kept = (Blob.workspace_id == workspace_id, Blob.sha256 == sha256)
    data = session.scalar(select(Blob.data).where(*kept))
    if data is None:
        return None
    type_ = content_type.lower()
    return Response(
        bytes(data),
        media_type=type_ if _PLAIN_TYPE.fullmatch(type_) else "application/octet-stream",
        headers={
            "Content-Disposition": f"attachment; filename*=utf-8''{quote(name, safe='')}",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cache-Control": "private, no-store",
        },
    )
