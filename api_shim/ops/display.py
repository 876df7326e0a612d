"""The HTML of a mail made harmless for a look: nothing that runs, nothing that is loaded from elsewhere.

The frame it is shown in would block all of that too; left out, it is no noise in the browser's console either.
"""

import re

import nh3

_TAGS = (nh3.ALLOWED_TAGS | {"font", "tfoot", "section", "main", "address", "big", "style"}) - {"area", "map"}
_EVERYWHERE = {
    "style", "class", "id", "dir", "lang", "title", "role", "align", "valign", "width", "height", "bgcolor", "border",
    "cellpadding", "cellspacing", "color", "face", "size",
}  # fmt: skip
_ATTRIBUTES = {**nh3.ALLOWED_ATTRIBUTES, "*": _EVERYWHERE}
_FROM_ELSEWHERE = re.compile(r"@import[^;]*;?|url\((?!\s*(?:['\"]|&quot;)?data:)[^)]*\)", re.IGNORECASE)
_PAGE = """<!doctype html>
<html><head><meta charset="utf-8"><meta name="color-scheme" content="light"></head><body>{}</body></html>
"""


def harmless(html: str) -> tuple[str, int]:
    """A whole page that shows the mail, and how many things from elsewhere it leaves out."""
    left_out = 0

    def kept(_: str, attribute: str, value: str) -> str | None:
        nonlocal left_out
        is_data = value.lstrip()[:5].lower() == "data:"
        if attribute == "src" and not is_data:
            left_out += 1
            return None
        return None if attribute == "href" and is_data else value

    cleaned = nh3.clean(
        html,
        tags=_TAGS,
        clean_content_tags={"script", "title", "noscript", "template", "svg", "math", "iframe", "object", "textarea"},
        attributes=_ATTRIBUTES,
        attribute_filter=kept,
        url_schemes={"http", "https", "mailto", "tel", "data"},
    )
    shown, from_elsewhere = _FROM_ELSEWHERE.subn(
        lambda found: "none" if found[0].lower().startswith("url") else "", cleaned
    )
    return _PAGE.format(shown), left_out + from_elsewhere
