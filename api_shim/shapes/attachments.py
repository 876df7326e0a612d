"""Attachments: their names, types, sizes and bytes."""

import base64
import binascii
import re
from typing import Final

from api_shim.shapes.fields import Form, shown
from api_shim.submission import NewAttachment

MAX_BYTES: Final = 25 * 1024 * 1024
"""Of all attachments of a message, decoded."""
MAX_COUNT: Final = 500
MAX_FILENAME: Final = 255

_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
TYPES: Final = frozenset(
    {
        "application/pdf", "application/msword", f"{_OFFICE}.wordprocessingml.document",
        "application/vnd.ms-excel", f"{_OFFICE}.spreadsheetml.sheet",
        "application/vnd.ms-powerpoint", f"{_OFFICE}.presentationml.presentation",
        "text/plain", "text/csv", "text/html", "text/xml", "text/calendar", "text/css",
        "image/jpeg", "image/png", "image/gif", "image/svg+xml", "image/webp", "image/bmp", "image/tiff",
        "audio/mpeg", "audio/wav", "audio/ogg", "video/mp4", "video/x-msvideo", "video/quicktime", "video/webm",
        "application/zip", "application/x-tar", "application/gzip", "application/vnd.rar",
        "application/x-7z-compressed", "application/json", "application/xml", "application/rtf",
        "application/octet-stream", "message/rfc822",
    }
)  # fmt: skip
"""What may be attached."""

_UNSAFE_IN_FILENAME: Final = re.compile(r"[/\\\u202a-\u202e\u2066-\u2069]")
"""Path separators, and the bidirectional controls that make ``exe.fdp`` read ``pdf.exe``."""
_CONTENT_ID: Final = re.compile(r"[!-;=?-~]{1,255}")


def read_attachments(
    form: Form, *, content: str, type_name: str, with_path: bool = False, inline: bool = False
) -> tuple[NewAttachment, ...]:
    """The attachments of a body.

    content, type_name: what the shape calls the base64 data and the MIME type.
    with_path: ``storage_path`` may stand in the place of the data.
    inline: ``disposition``, ``contentId`` and ``contentLocation`` are fields of the shape.
    """
    forms = form.forms("attachments")
    if len(forms) > MAX_COUNT:
        form.fault("attachments", f"holds {len(forms)} files; attach {MAX_COUNT} or fewer.")
        return ()
    found = []
    left = MAX_BYTES
    for item in forms:
        item.only(
            "filename", type_name, content,
            *(("storage_path",) if with_path else ()),
            *(("disposition", "contentId", "contentLocation") if inline else ()),
        )  # fmt: skip
        filename, content_type = _filename(item), _content_type(item, type_name)
        stored = with_path and _filled(item, "storage_path")
        path = _storage_path(item, content) if stored else None
        data = None if stored else _data(item, content, with_path)
        extras = _inline(item) if inline else (False, None, None)
        left -= len(data or b"")
        if filename and content_type and (path or data):
            found.append(
                NewAttachment(
                    field=item.path, filename=filename, content_type=content_type, data=data, storage_path=path,
                    inline=extras[0], content_id=extras[1], content_location=extras[2],
                )
            )  # fmt: skip
    if left < 0:
        form.fault(
            "attachments",
            f"total {MAX_BYTES - left} bytes; a message takes {MAX_BYTES} (25 MB). Send fewer or smaller files.",
        )
    return tuple(found)


def _filled(item: Form, name: str) -> bool:
    """A blank string is as good as none, as it is everywhere."""
    value = item.body.get(name)
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _filename(item: Form) -> str | None:
    name = item.line("filename", MAX_FILENAME, required='give a name with extension, such as "invoice.pdf".')
    if name is not None and (_UNSAFE_IN_FILENAME.search(name) or name.strip() in (".", "..")):
        item.fault("filename", f"is {shown(name)}; give the name alone, without directories or direction marks.")
        return None
    return name


def _content_type(item: Form, type_name: str) -> str | None:
    given = item.text(type_name, required='give the MIME type, such as "application/pdf".')
    if given is None:
        return None
    if given.lower() in TYPES:
        return given.lower()
    item.fault(
        type_name, f"is {shown(given)}, which may not be attached; use one of the listed types, or application/zip."
    )
    return None


def _data(item: Form, content: str, with_path: bool) -> bytes | None:
    other = " or storage_path" if with_path else ""
    text = item.text(content, required=f"give the file base64-encoded{other}.")
    if text is None:
        return None
    compact = "".join(text.split()) if any(char in text for char in "\r\n ") else text
    try:
        return base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        item.fault(content, "is not base64 (RFC 4648 section 4); encode the bytes of the file, without a data: prefix.")
        return None


def _storage_path(item: Form, content: str) -> str | None:
    path = item.line("storage_path", 1024)
    if path is None:
        return None
    if _filled(item, content):
        item.fault("storage_path", f"stands beside {content}; give one of the two.")
        return None
    if "\\" in path or "://" in path or any(step in ("", ".", "..") for step in path.split("/")):
        item.fault(
            "storage_path", f'is {shown(path)}; give a path inside the attachment store, such as "2026/report.pdf".'
        )
        return None
    return path


def _inline(item: Form) -> tuple[bool, str | None, str | None]:
    """``disposition``, ``contentId`` without its brackets and ``contentLocation``."""
    inline = item.choice("disposition", {"attachment": False, "inline": True}, False)
    content_id = item.line("contentId", 257)
    if content_id is not None:
        content_id = content_id.removeprefix("<").removesuffix(">")
        if not _CONTENT_ID.fullmatch(content_id):
            item.fault("contentId", f"is {shown(content_id)}; use visible ASCII characters without < and >.")
    return inline, content_id, item.line("contentLocation", 998)
