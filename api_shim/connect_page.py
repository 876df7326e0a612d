"""What a user sees after connecting a mailbox: one small page without any outside asset."""

import html
from collections.abc import Sequence

from starlette.responses import Response

from api_shim.unsubscribe_page import HEADERS, STYLE


def connect_page(title: str, *paragraphs: str, items: Sequence[str] = (), status: int = 200) -> Response:
    """Plain words, all of them escaped."""
    body = "".join(f"<p>{html.escape(paragraph)}</p>\n" for paragraph in paragraphs)
    if items:
        body += "<ul>\n" + "".join(f"<li>{html.escape(item)}</li>\n" for item in items) + "</ul>\n"
    document = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{html.escape(title)}</h1>\n{body}</main>\n</body>\n</html>\n"
    )
    return Response(document, status, HEADERS, "text/html")
