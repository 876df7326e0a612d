"""Tracking touches hrefs of the web, and adds a pixel and an unsubscribe link. Everything else is the author's bytes."""

from dataclasses import dataclass
from html import escape, unescape

from hypothesis import example, given, settings
from hypothesis import strategies as st

from providers.base import Form
from tests.worker.samples import EVERYTHING, MESSAGE, TRACKER, WORKSPACE, compiled, content, letter
from worker.texts import _HTML_FOOTER, _PIXEL

UNSUBSCRIBE = TRACKER.unsubscribe_url(MESSAGE, WORKSPACE, "ann@example.test")
PIXEL = TRACKER.open_url(MESSAGE, WORKSPACE).join(_PIXEL)
FOOTER = _HTML_FOOTER.replace("{{unsubscribe_url}}", UNSUBSCRIBE)


@dataclass(frozen=True)
class Link:
    """An address of the web as it stands in the source."""

    shown: str
    target: str | None = None
    """Where it leads to; None for what its character references resolve to."""

    @property
    def tracked(self) -> str:
        return escape(TRACKER.click_url(MESSAGE, WORKSPACE, self.target or unescape(self.shown)))


@dataclass(frozen=True)
class Bye:
    """The author's place for the unsubscribe link."""


Part = str | Link | Bye
Fragment = tuple[Part, ...]


def source(parts: Fragment) -> str:
    return "".join(
        part if isinstance(part, str) else part.shown if isinstance(part, Link) else "{{unsubscribe_url}}"
        for part in parts
    )


def expected(parts: Fragment) -> str:
    return "".join(
        part if isinstance(part, str) else part.tracked if isinstance(part, Link) else UNSUBSCRIBE for part in parts
    )


URL = "https://e.test/?a=1&amp;b=2"
ADDRESSES: list[Part] = [
    Link("https://e.test/"), Link("HTTP://E.test/Path?q=a+b%20c#frag"), Link("https://e.test/?a=1&amp;b=2&amp;c=&quot;"),
    Link("https://e.test/?a=1&b=2&copy=3", "https://e.test/?a=1&b=2&copy=3"), Link(" https://e.test/ "), Link("https://bücher.test/ü?ä=ö"), Link("https://e.test/?x=&#38;&#x26;"),
    Link("https://user:pw@e.test:8443/a/../b;p?q#!/r"), "mailto:a@e.test?subject=x&amp;body=https://e.test/", "tel:+431", "sms:+431?body=x",
    "#top", "", "/relative?a=1&amp;b=2", "//e.test/", "cid:logo", "https:/e.test", "https:e.test", "http://", "javascript:void(0)",
    "data:text/plain,https://e.test/", "ftp://e.test/", "x-https://e.test/", "about:blank", "?https://e.test/",
]  # fmt: skip
"""What a href says, those that are tracked as `Link`."""

QUOTED: list[tuple[Part, ...]] = [
    ('<a href="', "@", '">'), ("<a href='", "@", "'>"), ('<A CLASS=x\n  HREF = "', "@", '" ID=y >'), ('<a title="a > b" href="', "@", '"/>'),
    ('<area shape=rect href="', "@", '">'), ('<a href="', "@", f'" href="{URL}" data-x>'), ('<a\thref="', "@", '"class=\'q\'>'),
    ('<a title=\'href="https://e.test/"\' href="', "@", '">'), ('<a ="x" href="', "@", '">'), ('<a data-href="https://e.test/" href="', "@", '">'),
]  # fmt: skip
"""Tags around a href."""

UNTOUCHED = [
    f'<!-- <a href="{URL}"> -->', f'<!--[if mso]><a href="{URL}">x</a><![endif]-->', f'<!--[if gte mso 9]><v:rect href="{URL}"/><![endif]-->',
    f'<!--[if (mso)|(IE)]><table><tr><td><a HREF="{URL}"></td></tr></table><![endif]-->', "<!--[if !mso]><!-->", "<!--<![endif]-->",
    f"<script>\"<a href='{URL}'>\"; a<b && c</script>", f"<style>/* <a href='{URL}'> */ a > b {{ c: url({URL}) }}</style>",
    f'<textarea><a href="{URL}"></textarea>', f'<title><a href="{URL}"></title>', f'<svg><![CDATA[<a href="{URL}">]]></svg>',
    f'<v:roundrect href="{URL}" arcsize="8%"></v:roundrect>', f'<link href="{URL}"><img src={URL} srcset="{URL} 2x"><base href="">',
    f'<a data-no-track href="{URL}">x</a>', f"<a href='{URL}' DATA-NO-TRACK=1>x</a>", f'<a href={URL} data-unsubscribe>x</a>',
    f'<form action="{URL}"><button formaction="{URL}"></form>', f'<a name="{URL}">x</a>', f'<abbr href="{URL}">', f'<blockquote cite="{URL}">',
    "<a href>x</a>", f'<a href href="{URL}">x</a>', f"plain {URL} text", "é 😀 &amp; &copy; &nbsp;&zwnj; & < > \t\n", "<P>A<BR/>b</p ><o:p></o:p>",
    "{name} {{}} {{1a}} {%x%} ${x}", "<?xml:namespace prefix=o ?>", "</div></span ></a\n>", '<p style="a:\'b\'" class=>', "<br\n/>", "]]>", "-->", "\ufeff",
]  # fmt: skip

AROUND = st.builds(
    lambda tag, address: tuple(address if part == "@" else part for part in tag),
    st.sampled_from(QUOTED),
    st.sampled_from(ADDRESSES),
)
BARE = st.sampled_from(
    [address for address in ADDRESSES if source((address,)).strip(" ") == source((address,)) and address != ""]
).map(lambda address: ("<a href=", address, " id=x>"))
FRAGMENTS = st.one_of(AROUND, BARE, st.sampled_from(UNTOUCHED).map(lambda text: (text,)))
BYE: Fragment = ('<a class="q" href="', Bye(), '" target=_blank>bye</a>')


def assert_only_what_must_is_touched(parts: Fragment) -> None:
    html = source(parts)
    mail = content(
        subject="s", personalised=False, html=f"<html><body>{html}</body></html>", text="t", settings=EVERYTHING
    )
    fields = compiled(mail, Form.FIELDS).email(letter()).fields
    assert fields is not None
    placed = any(isinstance(part, Bye) for part in parts) or "data-unsubscribe>" in html
    footer = "" if placed else FOOTER
    assert fields.html == f"<html><body>{expected(parts)}{footer}{PIXEL}</body></html>"


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAGMENTS | st.just(BYE), max_size=12))
@example([('<a href="', Link(URL), '">'), BYE])
def test_c16_c17_c20_only_hrefs_the_pixel_and_the_unsubscribe_link_are_touched(fragments: list[Fragment]) -> None:
    assert_only_what_must_is_touched(tuple(part for fragment in fragments for part in fragment))


def test_every_single_fragment_is_as_expected() -> None:
    """Hypothesis picks some; here is each by itself, in every tag."""
    for address in ADDRESSES:
        for tag in QUOTED:
            assert_only_what_must_is_touched(tuple(address if part == "@" else part for part in tag))
    for text in UNTOUCHED:
        assert_only_what_must_is_touched((text,))
