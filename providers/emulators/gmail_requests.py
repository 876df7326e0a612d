"""Reads calls to the Gmail API against Google's discovery document, which google-api-python-client ships."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from googleapiclient.discovery_cache import get_static_doc

from providers.emulators.http import Call

MAX_RAW_BYTES = 36_700_160
REASONS = {400: "invalidArgument", 401: "authError", 404: "notFound", 429: "rateLimitExceeded", 503: "backendError"}


class ApiError(Exception):
    def __init__(self, status: int, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason or REASONS.get(status, "backendError")


@cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(get_static_doc("gmail", "v1"))
    return document


@cache
def _methods() -> list[tuple[str, re.Pattern[str], dict[str, Any]]]:
    """HTTP method, pattern of the path, description, of every method."""

    def below(resource: Mapping[str, Any]) -> list[dict[str, Any]]:
        found = list(resource.get("methods", {}).values())
        return found + [method for inner in resource.get("resources", {}).values() for method in below(inner)]

    pattern = re.compile(r"\{\w+\}")
    return [
        (m["httpMethod"], re.compile("(?:/upload)?/" + pattern.sub("([^/]+)", m["path"]) + "$"), m)
        for m in below(_document()["resources"]["users"])
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call that Google's client libraries could have made."""

    method: str
    """Its id in the discovery document: ``gmail.users.drafts.send``."""
    scopes: list[str]
    """One of them is needed."""
    path_values: list[str]
    """What stands for the parameters in the path, in order; the first is the user."""
    body: dict[str, Any]
    mime: bytes
    """The mail it carries, by whichever way; empty if it carries none."""


def read_call(call: Call) -> Request:
    """Raises ApiError for what the discovery document does not allow."""
    for http_method, path, method in _methods():
        found = path.match(call.path)
        if http_method == call.method and found:
            unknown = set(call.query) - {*method["parameters"], *_document()["parameters"]}
            if unknown:
                raise ApiError(400, f"Invalid JSON payload received. Unknown name: {sorted(unknown)}")
            body, mime = _content(call, method)
            return Request(
                method=method["id"], scopes=method["scopes"], path_values=list(found.groups()), body=body, mime=mime
            )
    raise ApiError(404, "no such method")


def _content(call: Call, method: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The JSON body, checked against its schema, and the mail it carries, by whichever way."""
    if not call.body:
        return {}, b""
    body, mime = _parts(call)
    if not isinstance(body, dict):
        raise ApiError(400, "Invalid JSON payload received.")
    _check(body, method["request"]["$ref"], "")
    raw = (body.get("message") or body).get("raw")
    if raw is not None:
        try:
            mime = base64.b64decode(raw, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError(400, "Invalid value for ByteString") from error
    if len(mime) > MAX_RAW_BYTES:
        raise ApiError(413, "Request entity too large")
    return body, mime


def _parts(call: Call) -> tuple[Any, bytes]:
    kind = call.headers.get("content-type", "")
    if not call.path.startswith("/upload/"):
        return call.json, b""
    if call.argument("uploadType") == "media":
        return {}, call.body
    boundary = kind.partition("boundary=")[2].strip('"').encode()
    pieces = call.body.split(b"--" + boundary)
    if call.argument("uploadType") != "multipart" or not boundary or len(pieces) != 4:
        raise ApiError(400, "Bad multipart upload")
    metadata, mail = (piece[2:-2].partition(b"\r\n\r\n")[2] for piece in pieces[1:3])
    return json.loads(metadata), mail


def _check(value: Any, schema: str, where: str) -> None:
    """Refuses fields that the discovery document's schema does not have."""
    properties = _document()["schemas"][schema]["properties"]
    for name, item in value.items():
        if name not in properties:
            raise ApiError(400, f'Invalid JSON payload received. Unknown name "{name}" at "{where}"')
        if "$ref" in properties[name] and isinstance(item, dict):
            _check(item, properties[name]["$ref"], f"{where}.{name}")
        elif properties[name].get("type") == "string" and not isinstance(item, str):
            raise ApiError(400, f'Invalid value at "{where}.{name}" (TYPE_STRING)')
