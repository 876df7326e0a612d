import re
import time
from uuid import UUID

import pytest
import turbohtml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker.samples import MESSAGE, TRACKER, WORKSPACE
from worker.links import _attributes, has_unsubscribe_link, html_pieces, text_from_html
from worker.template import CompositionError, Scene, join

CLICK = re.compile(r"https://t\.demo\.test/t/c/([\w-]+)")


def rendered(source: str, variables: dict[str, str] | None = None, *, track: bool = True, tail: str = "") -> str:
    pieces = html_pieces(source, wanted=lambda name: variables is not None, track=track, tail=(tail,) if tail else ())
    return join(pieces, scene(variables))


def scene(variables: dict[str, str] | None) -> Scene:
    return Scene(
        message_id=MESSAGE, workspace=WORKSPACE, variables=variables or {}, unsubscribe_url="", tracker=TRACKER
    )


def targets(markup: str) -> list[str]:
    clicked = [TRACKER.read_click(token) for token in CLICK.findall(markup)]
    return [click.url for click in clicked if click]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ('<a href="https://example.com/">x</a>', "https://example.com/"),
        ("<a href='https://example.com/'>x</a>", "https://example.com/"),
        ("<a href=https://example.com/>x</a>", "https://example.com/"),
        ('<A class="x"\n HREF = "HTTPS://example.com/" id=y>x</A>', "HTTPS://example.com/"),
        ('<area href="http://example.com/a">', "http://example.com/a"),
        ('<a href="https://example.com/?a=1&amp;b=2">x</a>', "https://example.com/?a=1&b=2"),
        ('<a href="https://example.com/?a=1&b=2&copy=3&reg">x</a>', "https://example.com/?a=1&b=2&copy=3®"),
        ('<a href="https://example.com/?a=1&#38;b=&quot;">x</a>', 'https://example.com/?a=1&b="'),
        ('<a href=" https://example.com/ ">x</a>', "https://example.com/"),
        ('<a title="a > b" href="https://example.com/">x</a>', "https://example.com/"),
        ('<a href="https://first.test/" href="https://second.test/">x</a>', "https://first.test/"),
    ],
)
def test_a_web_link_leads_through_its_click_address(source: str, target: str) -> None:
    from worker.tracking import location

    assert targets(rendered(source)) == [location(target)]


@pytest.mark.parametrize(
    "source",
    [
        '<a href="mailto:a@example.test">x</a>',
        '<a href="tel:+431">x</a>',
        '<a href="sms:+431">x</a>',
        '<a href="#top">x</a>',
        '<a href="javascript:void(0)">x</a>',
        '<a href="cid:logo">x</a>',
        '<a href="/relative?a=1&amp;b=2">x</a>',
        '<a href="//example.com/">x</a>',
        '<a href="">x</a>',
        "<a href>x</a>",
        '<a href href="https://second.test/">x</a>',
        '<a href="https://example.com/" data-no-track>x</a>',
        '<a DATA-NO-TRACK="" href="https://example.com/">x</a>',
        '<a href="https://example.com/" data-unsubscribe="1">x</a>',
        '<a href="{{unsubscribe_url}}">x</a>',
        '<!-- <a href="https://example.com/">x</a> -->',
        '<!--[if mso]><a href="https://example.com/">x</a><![endif]-->',
        "<script>\"<a href='https://example.com/'>\"</script>",
        "<style>/* <a href='https://example.com/'> */</style>",
        '<textarea><a href="https://example.com/"></textarea>',
        '<link href="https://example.com/s.css"><img src="https://example.com/i.png">',
        "plain https://example.com/ text",
    ],
)
def test_everything_else_is_left_byte_for_byte(source: str) -> None:
    assert rendered(source) == source


def test_what_outlook_alone_does_not_see_is_tracked() -> None:
    source = '<!--[if !mso]><!--><a href="https://example.com/">x</a><!--<![endif]-->'
    assert targets(rendered(source)) == ["https://example.com/"]


def test_only_the_value_of_the_attribute_changes() -> None:
    source = "<p>é 😀\n<a  class='x' href='https://example.com/?a=1&amp;b=2' >ü &amp; &copy; </a ><br/></P>\t"
    made = rendered(source)
    assert CLICK.sub("https://example.com/?a=1&amp;b=2", made) == source


@pytest.mark.parametrize("quote", ['"', "'", ""])
def test_a_link_made_by_variables_is_tracked_with_its_rendered_value(quote: str) -> None:
    source = f"<a href={quote}https://example.com/{{{{ path }}}}?a=1&amp;q={{{{q}}}}{quote}>x</a>"
    assert targets(rendered(source, {"path": "p", "q": "1&2"})) == ["https://example.com/p?a=1&q=1&2"]


def test_a_variable_that_is_the_whole_link_is_tracked_if_it_is_of_the_web() -> None:
    source = '<a href="{{url}}">x</a>'
    assert targets(rendered(source, {"url": "https://example.com/?a&b"})) == ["https://example.com/?a&b"]
    assert rendered(source, {"url": "mailto:a@b.test?x&y"}) == '<a href="mailto:a@b.test?x&amp;y">x</a>'
    assert rendered(source, {"url": ""}) == '<a href="">x</a>'


@pytest.mark.parametrize(
    "value",
    ["javascript:alert(1)", " JaVaScRiPt:x", "java\tscript:x", "\x01javascript:x", "java\nscript:x", "data:text/html,x",
     "VBSCRIPT:x", "&#106;avascript:x", "javascript&colon;x", "java&Tab;script:x", "\u200bjavascript:x", "data :x"],
)  # fmt: skip
@pytest.mark.parametrize(
    "source",
    ['<a href="{{v}}">', "<a href={{ v }}>", "<img src='{{v}}'>", '<form action=" {{v}}">', '<a href="&#32;{{v}}">',
     '<a href="{{empty}}{{v}}">', '<!--[if mso]><v:rect href="{{v}}"/><![endif]-->', '<a data-no-track href="{{v}}">',
     '<svg><a xlink:href="{{v}}"></svg>', '<button formaction="{{v}}">'],
)  # fmt: skip
def test_a_value_that_would_run_a_script_is_refused_and_named(source: str, value: str) -> None:
    with pytest.raises(CompositionError, match=r"the value of .*v makes an address run a script"):
        rendered(source, {"v": value, "empty": ""})


def test_a_value_that_completes_a_script_is_refused() -> None:
    with pytest.raises(CompositionError):
        rendered('<a href="java{{v}}">', {"v": "script:alert(1)"})


@pytest.mark.parametrize(
    "source", ['<a href="https://e.test/?u={{v}}">', '<img src="data:image/png;base64,{{v}}">', '<p title="{{v}}">']
)
def test_a_value_that_cannot_decide_the_scheme_is_not_looked_at(source: str) -> None:
    assert rendered(source, {"v": "javascript:x"}, track=False) == source.replace("{{v}}", "javascript:x")


@pytest.mark.parametrize(
    "source",
    ["<p title={{v}}>", "<p {{v}}>", "<p title='{{v}}'>", '<p title="{{v}}">', "<p{{v}}>", "<p {{v}}=1>", "<p a=1 {{v}}>",
     "<p title=x title={{v}}>", "<p title=a{{ v }}b>", "<p>{{v}}", "<a href={{v}}>", "<a href=https://e.test/{{v}}>",
     "<!--{{v}}-->", "<!--[if mso]><p title={{v}}><![endif]-->", "<textarea>{{v}}</textarea>", "<title>{{v}}</title>"],
)  # fmt: skip
@pytest.mark.parametrize(
    "value", ["a onclick=evil()", "><script>evil()</script>", "\"onclick='evil()' ", "--><script>", "</textarea><script>",
              "</title><script>", "a/onclick=evil", "\fonclick=evil", "", " "],
)  # fmt: skip
def test_a_value_never_adds_a_tag_or_an_attribute(source: str, value: str) -> None:
    def shape(markup: str) -> list[tuple[str | None, int]]:
        tags = [token for token in turbohtml.tokenize(markup) if token.attrs is not None]
        return [(token.tag if "{{v}}" not in source[:6] else None, len(token.attrs or ())) for token in tags]

    for made in (rendered(source, {"v": value}), rendered(source, {"v": value}, track=False)):
        inner = made.removeprefix("<!--[if mso]>")
        expected = source.replace("{{v}}", "word").replace("{{ v }}", "word").removeprefix("<!--[if mso]>")
        if value == "" and source in ("<p {{v}}>", "<p a=1 {{v}}>", "<p {{v}}=1>"):
            continue  # a name that is empty is no attribute
        assert [count for _, count in shape(inner)] == [count for _, count in shape(expected)]


def test_an_empty_value_without_quotes_does_not_swallow_the_next_attribute() -> None:
    assert rendered("<a href={{v}} class=b>", {"v": ""}) == '<a href="" class=b>'


def test_the_tail_stands_before_the_last_body_end_or_at_the_end() -> None:
    assert rendered("<body><p>x</p></BODY ></html>", tail="T") == "<body><p>x</p>T</BODY ></html>"
    assert rendered("<p>x</p>", tail="T") == "<p>x</p>T"
    assert rendered("<p>x<!-- </body> -->", tail="T") == "<p>x<!-- </body> -->T"


MARKUP = st.lists(
    st.sampled_from(
        ["<a ", "<p ", "href=", "href", "HREF", '"', "'", ">", "/", " ", "\n", "=", "x", "é", "😀", "https://e.test/", "&amp;",
         "&", "</a>", "<!--", "-->", "[if mso]>", "{{v}}", "{{ v }}", "<script>", "</script>", "</body>", "\0", "<", "title=x "]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(MARKUP)
def test_html_without_variables_and_tracking_comes_back_byte_for_byte(source: str) -> None:
    assert rendered(source, track=False) == source


@settings(max_examples=150, deadline=None)
@given(MARKUP)
def test_tracking_changes_nothing_but_addresses(source: str) -> None:
    made = rendered(source)
    back = iter([click.url for token in CLICK.findall(made) if (click := TRACKER.read_click(token))])
    without = CLICK.sub(lambda _: next(back), made)
    plain = re.compile(r"(?:&amp;|[&\0é😀{}\s]|%[0-9A-F]{2}|%20)")
    assert plain.sub("", without) == plain.sub("", source)


@settings(max_examples=200, deadline=None)
@given(MARKUP)
def test_attributes_are_delimited_as_the_tokenizer_delimits_them(source: str) -> None:
    for token in turbohtml.tokenize(source, capture_source=True):
        if token.attrs and token.source:
            found = {a.name.replace("\0", "�"): None for a in _attributes(token.source)}
            assert list(found) == [name for name, _ in token.attrs]


def test_the_authors_unsubscribe_link_is_seen() -> None:
    assert has_unsubscribe_link('<a href="{{ unsubscribe_url }}">')
    assert has_unsubscribe_link("<a data-unsubscribe href=x>")
    assert has_unsubscribe_link("<p>Bye: {{unsubscribe_url}}</p>")
    assert has_unsubscribe_link("<a href={{ unsubscribe_url }} class=x>")
    assert not has_unsubscribe_link('<!-- <a href="{{unsubscribe_url}}"> --><p>x')
    assert not has_unsubscribe_link('<!--[if mso]><a href="{{unsubscribe_url}}">bye</a><![endif]-->')
    assert not has_unsubscribe_link("<!-- <a data-unsubscribe> --> unsubscribe_url data-unsubscribe")


def test_a_text_version_reads_like_the_html() -> None:
    source = (
        "<html><head><title>T</title><style>p{color:red}</style></head><body><h1>Hello</h1>"
        '<p>See <a href="https://example.com/?a=1&amp;b=2">our page</a>.</p><ul><li>one<li>two</ul></body></html>'
    )
    text = words(source)
    assert "Hello" in text
    assert "our page" in text
    assert "https://example.com/?a=1&b=2" in text
    assert "* one" in text
    assert "color" not in text
    assert text.endswith("\n")


def words(source: str, variables: dict[str, str] | None = None) -> str:
    pieces = text_from_html(source, lambda name: variables is not None)
    return join(pieces, scene(variables))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('<a href="https://e.test/">https://e.test/</a>', "https://e.test/"),
        ('<a href=" https://e.test/ ">https://e.test/</a>', "https://e.test/"),
        ('<a href="mailto:a@e.test">a@e.test</a>', "a@e.test"),
        ('<a href="#top">Up</a> and <a href="https://e.test/#top">there</a>', "Up and there (https://e.test/#top)"),
        ('<a href="https://e.test/"><img src="x.png" alt="Shop"></a>', "Shop (https://e.test/)"),
        ("<div>News&nbsp;&zwnj;&nbsp;&zwnj;&nbsp;&zwnj;&nbsp;&zwnj;</div><p>x", "News\n\nx"),
        ("<p>\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f4bb</p>", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f4bb"),
        ("<table><tr><td>a<td>b<tr><td>c<td>d</table>", "a  b\nc  d"),
        ("<table role=presentation><tr><td>a<td>b<tr><td>c</table>", "a\n\nb\n\nc"),
        ("<table><tr><td>a<td><table><tr><td>b<td>c</table></table>", "a\n\nb  c"),
        ("<table role=presentation><template>x</template><caption>a</caption><tr><script>y</script><td>b</table>", "a\n\nb"),
        ("<p>a<p><a href='https://e.test/'><img src='x'></a>", "a\n\n(https://e.test/)"),
        ("<!--[if mso]><p>Outlook</p><![endif]--><p>all</p>", "all"),
    ],
)  # fmt: skip
def test_a_text_version_says_each_thing_once(source: str, text: str) -> None:
    assert words(source) == f"{text}\n"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["<table>", "<table role=presentation>", "<tr>", "<td>", "<th>", "<caption>", "<colgroup><col>", "<template>", "</template>",
             "</table>", "</td>", "<svg>", "<math>", "<select>", "<option>", "<frameset>", "<style>", "<title>", "<textarea>", "<plaintext>",
             "</body>", "<a href=", "x", " ", "\n", "\0", "\ud83d", "é", "<!--", "-->", "{{v}}", "<p>", "<pre>", "<ul><li>", "<img alt=i>"]
        ),
        max_size=30,
    ).map("".join)
)  # fmt: skip
def test_any_html_has_a_text_version(source: str) -> None:
    text = words(source, {"v": "value"})
    assert text == "" or text.strip()


def test_an_html_without_words_has_no_text_version() -> None:
    assert words('<body><img src="https://e.test/all.png"><style>p{}</style></body>') == ""


def test_a_text_version_has_the_variables_of_the_html_and_no_others() -> None:
    source = "<a href={{ url }}>{{name}}</a> &#123;&#123;code&#125;&#125; {{na<b>me</b>}}"
    assert (
        words(source, {"name": "<Ann>", "url": "https://e.test/?a&b"})
        == "<Ann> (https://e.test/?a&b) {{code}} {{name}}\n"
    )
    assert words(source) == "{{name}} ({{) {{code}} {{name}}\n"


@pytest.mark.parametrize(
    "source",
    ["x" * 1_000_000, "(" + " (" * 200_000, "\u200b\u200b\u200b a" * 100_000, "<pre>" + " " * 500_000 + "x", "<table><tr><td>" * 20_000,
     "<table>" + "<tr><td>x" * 20_000, "<table role=presentation>" + "<tr><td>x" * 20_000, "<div>" * 20_000, "<table><td></table>" * 20_000,
     "<table><tr>" + "<td>x" * 20_000 + "<tr><td>y" * 5_000, ("<table><tr>" + "<td>x" * 1_000 + "<tr><td>y" * 150 + "</table>") * 100,
     f"<table><tr><td>{'x' * 50_000}<td>a" + "<tr><td>z<td>b" * 5_000, f"<table><tr><td><a href={'x' * 50_000}>x</a><td>a" + "<tr><td>z<td>b" * 5_000],
)  # fmt: skip
def test_a_text_version_of_html_made_to_be_slow_costs_less_than_a_second(source: str) -> None:
    start = time.process_time()
    words(source)
    assert time.process_time() - start < 1


def test_the_ids_of_the_token_are_those_of_the_message() -> None:
    token = CLICK.findall(rendered('<a href="https://example.com/">x</a>'))[0]
    click = TRACKER.read_click(token)
    assert click is not None
    assert (click.message_id, click.workspace) == (MESSAGE, WORKSPACE)
    assert isinstance(click.message_id, UUID)
