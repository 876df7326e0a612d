"""Attachments of a draft in Microsoft 365: within it, beside it, or in pieces over an upload session of their own."""

import base64
from collections.abc import Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from providers.base import Account, Failed, File
from providers.http import Api, objects_in
from providers.microsoft365_errors import refused
from providers.microsoft365_service import Graph, message_path, sends_nothing

WHOLE_REQUEST_BYTES = 3 * 1024 * 1024
"""Encoded attachments that go with the draft itself. A request may have 4 MB; bodies need the rest."""
SESSION_BYTES = 3 * 1024 * 1024
"""Attachments from here on need an upload session, which takes none smaller."""
CHUNK_BYTES = 12 * 320 * 1024
"""Ranges of an upload session: a multiple of 320 KiB under 4 MB."""


def split(files: Sequence[File]) -> tuple[list[File], list[File]]:
    """The attachments that go with the draft, and those that follow it one by one."""
    first: list[File] = []
    later: list[File] = []
    room = WHOLE_REQUEST_BYTES
    for file in files:
        encoded = len(file.data) * 4 // 3 + 4
        (first if encoded <= room and not later else later).append(file)
        room -= encoded
    return first, later


def attachment(file: File) -> dict[str, Any]:
    """A fileAttachment resource."""
    return {
        "@odata.type": "#microsoft.graph.fileAttachment",
        **_description(file),
        "contentBytes": base64.b64encode(file.data).decode(),
    }


def attach_later(graph: Graph, account: Account, draft: str, files: Sequence[File], *, again: bool) -> None:
    """Adds the attachments that did not fit into the draft. Raises Failed.

    again: an earlier attempt made the draft; what it added is counted off.
    """
    first, later = split(files)
    path = f"{message_path(draft)}/attachments"
    if later and again:
        there = graph.step("GET", path, params={"$select": "id"})
        later = later[max(0, len(objects_in(there.get("value"))) - len(first)) :]
    for file in later:
        if len(file.data) < SESSION_BYTES:
            graph.step("POST", path, json=attachment(file))
        else:
            item = {"attachmentType": "file", "size": len(file.data), **_description(file)}
            session = graph.step("POST", f"{path}/createUploadSession", json={"AttachmentItem": item})
            _upload(account, str(session.get("uploadUrl")), file.data, graph)


def _upload(account: Account, where: str, data: bytes, graph: Graph) -> None:
    """To another host, and one that must not see our token: the URL carries its own."""
    url = urlsplit(where)
    api = Api(account, f"{url.scheme}://{url.netloc}", timeout=graph.api.timeout)
    with closing(api), sends_nothing():
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            span = f"bytes {start}-{start + len(chunk) - 1}/{len(data)}"
            headers = {"Content-Range": span, "Content-Type": "application/octet-stream"}
            answer = api.call("PUT", f"{url.path}?{url.query}", headers=headers, data=chunk)
            if answer.status not in (200, 201, 202):
                raise Failed(refused(answer))


def _description(file: File) -> dict[str, Any]:
    named = {"name": file.filename, "contentType": file.content_type, "isInline": file.inline}
    return named | ({"contentId": file.content_id} if file.content_id else {})
