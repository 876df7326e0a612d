"""Attachments by ``storage_path``: read from the attachment store, inside the workspace's own folder, never outside
it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from uuid import UUID

import obstore
from obstore.exceptions import BaseError as StoreError
from obstore.store import LocalStore, ObjectStore, from_url

from api_shim.errors import ApiError, Fault
from api_shim.submission import NewAttachment
from models.content import AttachmentRef
from worker.settings import Settings

MAX_BYTES = 25 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Attachment:
    """An attachment with its bytes in hand."""

    ref: AttachmentRef
    data: bytes = field(repr=False)


def read_attachments(settings: Settings, workspace_id: UUID, given: Sequence[NewAttachment]) -> list[Attachment]:
    """The attachments of a submission with their bytes. May ask an object store: call it outside a transaction.

    Raises VALIDATION_ERROR for what cannot be read and where all together are too large.
    """
    read = [_attachment(new, _bytes(settings, workspace_id, new)) for new in given]
    if sum(attachment.ref.size for attachment in read) > MAX_BYTES:
        raise ApiError("VALIDATION_ERROR", faults=[Fault("attachments", "attachments may total 25 MB; send less")])
    return read


def _bytes(settings: Settings, workspace_id: UUID, new: NewAttachment) -> bytes:
    return new.data if new.data is not None else _read_stored(settings, workspace_id, new)


def _attachment(new: NewAttachment, data: bytes) -> Attachment:
    ref = AttachmentRef(
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        filename=new.filename,
        content_type=new.content_type,
        inline=new.inline,
        content_id=new.content_id,
        content_location=new.content_location,
    )
    return Attachment(ref, data)


def _read_stored(settings: Settings, workspace_id: UUID, attachment: NewAttachment) -> bytes:
    """The bytes behind ``storage_path``, which is relative to the workspace's folder in the store.

    Raises VALIDATION_ERROR for a path that leaves the folder, a file that is missing or too large, and where no store
    is configured.
    """
    path = attachment.storage_path or ""
    if settings.attachment_root is None:
        raise _fault(attachment, "this server has no attachment store; send the bytes as content_base64")
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or ":" in path or any(part in ("..", ".") for part in parts):
        raise _fault(attachment, f"{path!r} must be a relative path without '..', a scheme or backslashes")
    if not _stays_inside(settings.attachment_root, workspace_id, path):
        raise _fault(attachment, f"{path!r} leads out of the workspace's folder")
    try:
        store = _store(settings.attachment_root)
        name = f"{workspace_id}/{PurePosixPath(*parts)}"
        if obstore.head(store, name)["size"] > MAX_BYTES:
            raise _fault(attachment, f"{path!r} is larger than 25 MB")
        return bytes(obstore.get(store, name).bytes())
    except (StoreError, OSError, ValueError) as error:
        raise _fault(
            attachment, f"{path!r} cannot be read from the attachment store ({type(error).__name__})"
        ) from error


def _stays_inside(root: str, workspace_id: UUID, path: str) -> bool:
    """Whether links in a directory lead nowhere else. An object store has none."""
    if "://" in root:
        return True
    folder = Path(root, str(workspace_id))
    try:
        return Path(folder, path).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):
        return False  # links in a circle, a name too long, a NUL


def _store(root: str) -> ObjectStore:
    return from_url(root) if "://" in root else LocalStore(prefix=root)


def _fault(attachment: NewAttachment, message: str) -> ApiError:
    return ApiError("VALIDATION_ERROR", faults=[Fault(f"{attachment.field}.storage_path", message)])
