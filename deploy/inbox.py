"""The local inbox in the browser and as JSON. `postroad up` puts these routes beside the API's.

GET /inbox                            list, newest first; ?q= searches
GET /inbox/mail/{id}?tab=             one mail: text, html, headers, source
GET /inbox/mail/{id}/html             its HTML alone, for the sandboxed frame
GET /inbox/mail/{id}/source           the mail as it came
GET /inbox/messages                   JSON: ?limit=&cursor=&to=
GET /inbox/messages/{id}              JSON: one mail with headers, text and html
"""

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from itertools import islice
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, PackageLoader
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from deploy.inbox_store import Entry, InboxReader, total

PAGE = 100
MOST = 1000
TABS = ("text", "html", "headers", "source")

# The mail is hostile: it may run nothing, load nothing from anywhere and address no frame but its own.
MAIL_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; form-action 'self'; base-uri 'none'"

_pages = Environment(loader=PackageLoader("deploy", "pages"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
_pages.filters["clock"] = lambda seconds: datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def routes(directory: Path) -> list[Route]:
    """The inbox whose mails an `InboxWriter` keeps in ``directory``."""
    pages = _InboxPages(InboxReader(directory))
    return [
        Route("/inbox", pages.list),
        Route("/inbox/mail/{number}", pages.mail),
        Route("/inbox/mail/{number}/html", pages.html),
        Route("/inbox/mail/{number}/source", pages.source),
        Route("/inbox/messages", pages.list_json),
        Route("/inbox/messages/{number}", pages.mail_json),
    ]


class _InboxPages:
    def __init__(self, reader: InboxReader) -> None:
        self._reader = reader

    def list(self, request: Request) -> Response:
        query = request.query_params.get("q", "").strip()
        before = _number(request.query_params.get("cursor"))
        entries = self._reader.entries()
        found = [entry for entry in entries if not query or entry.matches(query.lower())]
        shown = list(islice((entry for entry in found if before is None or entry.number < before), PAGE + 1))
        return _page(
            "inbox.html",
            entries=[(entry, _readable(entry.subject)) for entry in shown[:PAGE]],
            query=query,
            found=len(found),
            total=total(entries),
            next_cursor=shown[PAGE - 1].number if len(shown) > PAGE else None,
        )

    def mail(self, request: Request) -> Response:
        entry, raw = self._find(request)
        mail = _parse(raw)
        text, html = _body(mail, "plain"), _body(mail, "html")
        tab = request.query_params.get("tab")
        return _page(
            "mail.html",
            entry=entry,
            subject=_readable(entry.subject),
            tabs=TABS,
            tab=tab if tab in TABS else "html" if html else "text",
            text=text,
            html=html,
            headers=_headers(mail),
            source=raw[:200_000].decode("utf-8", "replace"),
            files=[(part.get_filename() or "unnamed", part.get_content_type()) for part in mail.iter_attachments()],
        )

    def html(self, request: Request) -> Response:
        html = _body(_parse(self._find(request)[1]), "html")
        return HTMLResponse(html or "", headers={"Content-Security-Policy": MAIL_POLICY, **_PLAIN})

    def source(self, request: Request) -> Response:
        entry, raw = self._find(request)
        disposition = f'attachment; filename="mail-{entry.number}.eml"'
        return Response(raw, media_type="text/plain", headers={"Content-Disposition": disposition, **_PLAIN})

    def list_json(self, request: Request) -> Response:
        query = request.query_params
        limit = min(max(_number(query.get("limit")) or PAGE, 1), MOST)
        before, to = _number(query.get("cursor")), query.get("to", "").lower()
        entries = self._reader.entries()
        wanted = (
            entry
            for entry in entries
            if (before is None or entry.number < before)
            and (not to or any(to == address.lower() for address in entry.recipients))
        )
        shown = list(islice(wanted, limit + 1))
        cursor = str(shown[limit - 1].number) if len(shown) > limit else None
        data = [_json(entry) for entry in shown[:limit]]
        return JSONResponse({"data": data, "next_cursor": cursor, "total": total(entries)})

    def mail_json(self, request: Request) -> Response:
        entry, raw = self._find(request)
        mail = _parse(raw)
        more = {"headers": _headers(mail), "text": _body(mail, "plain"), "html": _body(mail, "html")}
        return JSONResponse(_json(entry) | more)

    def _find(self, request: Request) -> tuple[Entry, bytes]:
        number = _number(request.path_params["number"])
        found = None if number is None else self._reader.find(number)
        if found is None:
            raise HTTPException(404, "No such mail, or it is no longer kept.")
        return found


_PLAIN = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def _page(name: str, **values: Any) -> Response:
    html = _pages.get_template(name).render(**values)
    return HTMLResponse(html, headers={"Content-Security-Policy": PAGE_POLICY, **_PLAIN})


def _number(text: str | None) -> int | None:
    """The number of a mail, which has at most 18 digits; None for what is none."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 18 else None


def _parse(raw: bytes) -> EmailMessage:
    return message_from_bytes(raw, policy=policy.default)


def _readable(header: str) -> str:
    """A header value with its encoded words decoded (RFC 2047); as it stands where that fails."""
    try:
        return str(make_header(decode_header(header)))
    except (LookupError, ValueError):
        return header


def _body(mail: EmailMessage, kind: str) -> str | None:
    part = mail.get_body((kind,))
    if part is None:
        return None
    payload = cast(bytes, part.get_payload(decode=True))
    try:
        return payload.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:
        return payload.decode("latin-1")


def _headers(mail: EmailMessage) -> list[tuple[str, str]]:
    """Name and value of each header, in order, unfolded and otherwise as they came."""
    return [(_utf8(name), _utf8("".join(str(value).splitlines()))) for name, value in mail.raw_items()]


def _utf8(header: str) -> str:
    """What the parser kept of bytes that are no ASCII, as the UTF-8 that RFC 6532 has headers in."""
    return header.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _json(entry: Entry) -> dict[str, Any]:
    return {
        "id": str(entry.number),
        "received_at": datetime.fromtimestamp(entry.received_at, UTC).isoformat(),
        "envelope_from": entry.envelope_from,
        "recipients": list(entry.recipients),
        "subject": _readable(entry.subject),
        "message_id": entry.message_id,
        "ref": entry.ref,
        "size": entry.size,
    }
