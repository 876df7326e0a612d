"""The documentation says what the code does: links, names, commands and generated parts, without running anything."""

import re
from xml.etree import ElementTree

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route

from api_shim.auth import SCOPE_ALIASES, SCOPES
from api_shim.errors import CODES
from api_shim.resources import ROUTERS
from deploy import docs
from deploy.cli import COMMANDS
from deploy.contract import FEATURES, UNPROVED, proofs
from models.event import WIRE_NAMES
from tests.docs.pages import BY_NAME, PAGES, ROOT, Page
from worker.settings import Settings

EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

OF_THE_COMMAND_LINE = {"POSTROAD_URL", "POSTROAD_API_KEY"}
"""Variables of those who call, not settings of a process."""

CAPITALS = {"INTERNAL_ERROR", "UNTIL_SOMEBODY_ACTS", "WIRE_NAMES", "CONFIRMS_DELIVERY"}
"""Words in capitals that are neither codes nor events."""

PROOFS = proofs(ROOT / "tests")

STATES = ("done", "partly", "not yet")

UNWANTED = (
    r"\b(claude|gpt|llm|copilot|chatbot|assistant|language model|prompt)s?\b",
    r"\bAI\b",
    r"\bissue #?\d",
    r"\b(TODO|FIXME|XXX)\b",
    r"(?<![\w.])/(work|home|root|tmp|Users)/",
    r"\b(blazing|seamless|effortless|cutting-edge|world-class|state-of-the-art|leverag\w+|simply|just works)\b",
    "[\U0001f300-\U0001faff\u2600-\u27bf]",
)


@EVERY_PAGE
def test_what_is_written_from_the_code_is_up_to_date(page: Page) -> None:
    assert page.text == docs.rendered(page.text), "run: python -m deploy.docs"


def test_every_region_stands_on_a_page() -> None:
    everything = "".join(page.text for page in PAGES)
    assert [name for name in docs.REGIONS if f"<!-- generated: {name} -->" not in everything] == []


def test_every_error_code_has_an_anchor_of_its_name_in_lower_case() -> None:
    assert {code.lower() for code in CODES} <= BY_NAME["docs/errors.md"].anchors


@EVERY_PAGE
def test_every_link_leads_somewhere(page: Page) -> None:
    assert [link for link in page.links if not _leads_somewhere(page, link)] == []


def _leads_somewhere(page: Page, link: str) -> bool:
    if link.startswith("https://"):
        return True
    file, _, anchor = link.partition("#")
    target = (page.path.parent / file).resolve() if file else page.path
    if not target.is_file() or ROOT not in target.parents:
        return False
    return not anchor or anchor in Page(target).anchors


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {(ROOT / link).resolve() for link in BY_NAME["README.md"].links if not link.startswith("https://")}
    assert [page.name for page in PAGES if page.path not in linked and page.name != "README.md"] == []


@EVERY_PAGE
def test_every_file_that_is_named_exists(page: Page) -> None:
    named = {
        word
        for word in page.inline
        if re.fullmatch(r"(api_shim|worker|providers|models|deploy|tests|docs)/[\w./]+\.\w+", word)
        and "NAME" not in word
    }
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@EVERY_PAGE
def test_every_variable_that_is_named_exists(page: Page) -> None:
    known = {f"POSTROAD_{name.upper()}" for name in Settings.model_fields} | OF_THE_COMMAND_LINE
    assert set(re.findall(r"\bPOSTROAD_[A-Z_]+\b", page.text)) - known == set()


@EVERY_PAGE
def test_every_code_and_event_that_is_named_exists(page: Page) -> None:
    words = {word for text in page.inline for word in re.findall(r"^[A-Z]+(?:_[A-Z]+)+$", text)}
    variables = {word for word in words if word.startswith("POSTROAD_")}
    assert words - variables - CODES.keys() - set(WIRE_NAMES.values()) - CAPITALS == set()


@EVERY_PAGE
def test_every_scope_that_is_named_exists(page: Page) -> None:
    words = {word for word in page.inline if re.fullmatch(r"[a-z-]+:(read|write|send)", word)}
    assert words - set(SCOPES) - SCOPE_ALIASES.keys() == set()


@EVERY_PAGE
def test_every_command_that_is_named_exists(page: Page) -> None:
    registry = page.name == "docs/errors.md"  # its sentences are the registry's
    commands = {
        found for text in page.code() for found in re.findall(r"(?:^|\n|\$ )(?:exec )?postroad ([a-z][a-z-]*)", text)
    }
    assert registry or commands - COMMANDS.keys() == set()


@EVERY_PAGE
def test_every_make_target_that_is_named_exists(page: Page) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {found for text in page.code() for found in re.findall(r"(?:^|\n)make ([a-z]+)", text)}
    assert named - targets == set()


def test_every_route_that_is_named_exists() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, Route | APIRoute)]
    known = {f"{method} {_bare('/v1' + route.path)}" for route in routes for method in route.methods or ()}
    known.add("POST /v1/email/send")
    named = {
        (page.name, f"{method} {_bare(path)}")
        for page in PAGES
        for text in page.inline
        for method, path in re.findall(r"^(GET|POST|PUT|PATCH|DELETE) (/v1/[^\s?*]+)(?=$|\?)", text)
    }
    assert {(page, route) for page, route in named if route not in known} == set()


def _bare(path: str) -> str:
    """A path without the names of its parameters."""
    return re.sub(r"\{\w+(:\w+)?\}", "{}", path)


@EVERY_PAGE
def test_the_words_are_ours(page: Page) -> None:
    assert [found[0] for pattern in UNWANTED for found in re.finditer(pattern, page.text, re.IGNORECASE)] == []


def test_the_feature_table_names_every_feature_once() -> None:
    named = [feature for row in _features() for feature in _numbers(row[0])]
    assert sorted(named) == sorted(FEATURES)


def test_every_feature_has_a_test_that_proves_it() -> None:
    """To mend it: begin the name of a test with the feature's number, or give a reason in `UNPROVED`."""
    assert FEATURES.keys() - PROOFS.keys() - UNPROVED.keys() == set()


def test_what_is_said_to_be_unproved_is_so() -> None:
    assert UNPROVED.keys() & PROOFS.keys() == set()


def test_the_names_of_tests_number_features_that_exist() -> None:
    assert PROOFS.keys() - FEATURES.keys() == set()


def test_every_feature_has_one_of_three_states() -> None:
    assert [row for row in _features() if not row[2].startswith(STATES)] == []


def _features() -> list[tuple[str, str, str]]:
    table = BY_NAME["README.md"].text.partition("<!-- features -->")[2].partition("<!-- end -->")[0]
    return re.findall(r"^\| ([A-D]\d[^|]*) \| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)


def _numbers(ranges: str) -> list[str]:
    found = []
    for part in ranges.split(","):
        first, _, last = part.strip().partition("–")
        letter, start = first[0], int(first[1:])
        found += [f"{letter}{n}" for n in range(start, int(last[1:] if last else start) + 1)]
    return found


def test_the_readme_shows_what_make_up_prints() -> None:
    source = "".join((ROOT / "deploy" / name).read_text() for name in ("demo.py", "up.py", "stack.py", "supervisor.py"))
    shown = next(block.text for block in BY_NAME["README.md"].blocks if "sent twice" in block.text)
    labels = re.findall(r"^  ([a-z][a-z', ]+?) {2,}[\d,]+$", shown, re.MULTILINE)
    assert len(labels) == 7
    assert [label for label in labels if f'"{label}"' not in source] == []


def test_the_picture_is_legible_in_light_and_dark() -> None:
    text = (ROOT / "docs" / "path.svg").read_text()
    ElementTree.fromstring(text)
    light, dark = re.findall(r":root \{ ([^}]+) \}", text)
    colours = [dict(re.findall(r"--(\w+): #(\w{6})", scheme)) for scheme in (light, dark)]
    assert colours[0].keys() == colours[1].keys()
    for scheme in colours:
        for ground in ("box", "store", "page"):
            assert _contrast(scheme["ink"], scheme[ground]) > 7
            assert _contrast(scheme["soft"], scheme[ground]) > 4.5


def _contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours (WCAG 2.2)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
