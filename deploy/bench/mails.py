"""The requests of a bench: mails of 5 KB with html and text, each with four variables."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

MAIL_BYTES = 5_000

SUBJECT = "{{name}}, the news of November"
_HTML_LINE = '<p style="margin:0">Some words of a newsletter, as many as a paragraph has, and then the next.</p>\n'
_TEXT_LINE = "Some words of a newsletter, as many as a paragraph has, and then the next.\n"
HTML = (
    "<html><body><p>Hello {{name}} of {{city}},</p>\n"
    '<p><a href="https://shop.demo.test/offer?number={{number}}">Your offer</a> for {{plan}}</p>\n'
    f"{_HTML_LINE * 32}</body></html>"
)
TEXT = f"Hello {{{{name}}}} of {{{{city}}}},\n\n{{{{plan}}}} {{{{number}}}}\n\n{_TEXT_LINE * 12}"
EVERYTHING = {name: {"enable": True} for name in ("open_tracking", "click_tracking", "unsubscribe")}

_CONTENT = [{"type": "text/plain", "value": TEXT}, {"type": "text/html", "value": HTML}]


def request(stack: Mapping[str, Any], people: Sequence[str], **more: Any) -> bytes:
    """The body of one `POST /v1/email/send` in the mailer shape, a personalised mail to each of ``people``."""
    body = {
        "from": {"email": stack["from"], "name": "Bench"},
        "mailer_id": stack["mailer_id"],
        "to": [{"email": address, "name": f"Reader {number}"} for number, address in enumerate(people)],
        "subject": SUBJECT,
        "content": _CONTENT,
        "substitutions": {address: variables(number) for number, address in enumerate(people)},
        "settings": {},
        "contact_id": stack["contact_id"],
        **more,
    }
    return orjson.dumps(body)


def people(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:06d}@example.com" for number in range(count)]


def variables(number: int) -> dict[str, str]:
    """Of the mail to one of `people`."""
    return {"name": f"Reader {number}", "city": "Zürich", "plan": "Gold & more", "number": str(number)}
