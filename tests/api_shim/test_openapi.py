"""The document at /openapi.json and the pages made from it: valid, whole, and true."""

import json
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR
from starlette.testclient import TestClient

import api_shim
from api_shim.errors import CODES
from api_shim.openapi import CONFLICTS, TAGS
from api_shim.resources.reply_schema import OPENAPI as REPLY
from api_shim.send_schema import STATUSES
from api_shim.services import Services
from api_shim.shapes import SHAPES, recognise
from api_shim.shapes.names import FIELDS
from api_shim.shapes.schemas import SCHEMAS
from api_shim.submission import Shape
from tests.api_shim.everything import Operation, World, operations

ANSWERS = Path(api_shim.__file__).with_name("answers.json")


def _turn(operation: Operation) -> tuple[bool, bool]:
    """When everything is called, what takes away goes last: the others need it."""
    return operation.method == "delete", operation.path.endswith("/cancel")


@pytest.fixture(scope="module")
def document(api: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/openapi.json").json()
    return found


@pytest.fixture(scope="module")
def walked(document: dict[str, Any]) -> list[Operation]:
    return operations(document)


@pytest.fixture(scope="module")
def world(api: TestClient, app_services: Services) -> World:
    return World(api, app_services)


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert [
        (str(error.instance_path), error.message[:200]) for error in OPENAPI_31_VALIDATOR.iter_errors(document)
    ] == []


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in set(re.findall(r'"\$ref":\s*"([^"]+)"', json.dumps(document))):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in found, reference
            found = found[step]


def test_every_operation_has_its_own_id_a_tag_and_words(document: dict[str, Any], walked: list[Operation]) -> None:
    ids = [operation.document["operationId"] for operation in walked]
    assert len(set(ids)) == len(ids)
    assert {tag["name"] for tag in document["tags"]} <= TAGS.keys()
    for operation in walked:
        assert operation.document["tags"][0] in TAGS, operation.name
        words = operation.document["description"].splitlines()[0] + operation.document["summary"]
        assert "Scope:" not in words or len(operation.document["summary"]) > 3, operation.name


def test_routes_are_listed_once_and_under_the_first_base(walked: list[Operation]) -> None:
    assert walked[0].name == "POST /v1/email/send"
    assert [operation.path for operation in walked if not operation.path.startswith("/v1/")] == []


def test_every_operation_names_its_errors(walked: list[Operation]) -> None:
    assert CONFLICTS.keys() <= {operation.name for operation in walked}
    for operation in walked:
        assert {"401", "403", "429", "503"} <= operation.document["responses"].keys(), operation.name
        assert ("404" in operation.document["responses"]) >= ("{" in operation.path), operation.name
    send = walked[0].document["responses"]
    assert send.keys() == {"200", "202", *map(str, STATUSES)}


@pytest.mark.parametrize("shape", list(Shape))
def test_the_schema_of_a_shape_has_the_fields_that_the_shape_takes(shape: Shape) -> None:
    assert SCHEMAS[shape]["properties"].keys() == FIELDS[shape]


@pytest.mark.parametrize(
    ("shape", "example"), [(shape, example) for shape in Shape for example in SCHEMAS[shape]["examples"]]
)
def test_the_examples_of_a_send_are_read_in_their_shape(shape: Shape, example: dict[str, Any]) -> None:
    module = recognise(example)
    assert module is SHAPES[shape]
    assert module.parse(example).to


def test_a_reply_and_a_send_take_the_same_preferences(document: dict[str, Any]) -> None:
    sent = document["paths"]["/v1/email/send"]["post"]["parameters"]
    assert [item["name"] for item in sent] == [item["name"] for item in REPLY["parameters"]]


def called(operation: Operation, world: World) -> Iterator[tuple[int, Any]]:
    """Status and body for each example that the documentation gives."""
    for body in world.bodies(operation):
        answer = world.call(operation, body=body)
        assert answer.is_success, f"{operation.name} refuses its own example: {answer.text[:300]}"
        shown = answer.headers.get("content-type") == "application/json" and answer.content
        yield answer.status_code, answer.json() if shown else None


def test_every_example_works_and_is_answered_as_documented(walked: list[Operation], world: World) -> None:
    recorded: dict[str, Any] = {}
    for operation in sorted(walked, key=_turn):
        for status, body in called(operation, world):
            assert str(status) in operation.document["responses"], f"{operation.name} answered {status}"
            if body is not None:
                recorded.setdefault(operation.name, body)
    if os.environ.get("RECORD_ANSWERS"):
        ANSWERS.write_text(_settled(recorded))
        return
    shown = json.loads(ANSWERS.read_text())
    stale = [name for name in shown.keys() | recorded.keys() if _form(shown.get(name)) != _form(recorded.get(name))]
    assert stale == [], "RECORD_ANSWERS=1 pytest tests/api_shim/test_openapi.py writes api_shim/answers.json anew"


def _form(value: Any) -> Any:
    """What an answer is made of: the fields, without their values."""
    if isinstance(value, dict):
        return {name: _form(item) if name in ("data", "error", "counts") else None for name, item in value.items()}
    return _form(value[0]) if isinstance(value, list) and value else None


SHOWN = (
    (r"(?<=postroad_live_)[\w+/=-]+|(?<=whsec_)[\w+/=-]+", "..."),
    (r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "0193e0a2-9a4b-7c3d-8e5f-0123456789ab"),
    (r"\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b", "01JC3BBW8S9YGX2VNKG5MD7BTA"),
    (r"\b[0-9a-f]{32}\b", "0123456789abcdef0123456789abcdef"),
    (r"(?<=autumn-)[0-9a-f]{8}|(?<=\"h)[0-9a-f]{8}(?=[@\"])", "2026"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(?:Z|\+00:00)", "2026-01-01T12:00:00Z"),
    (r"(?<=127\.0\.0\.1:)\d+", "8443"),
    (r"(?<=state=)[\w%.-]+|(?<=code_challenge=)[\w-]+|(?<=/hooks/smtp/)[\w-]+|(?<=/hooks/gmail/)[\w-]+", "..."),
    (r"(?<=_seconds\": )\d+\.\d+", "0.25"),
    (r"\bp\d@", "p1@"),
)
"""What differs from run to run, or is secret -> what is written in its place."""


def _settled(answers: dict[str, Any]) -> str:
    text = json.dumps(_shortened(answers), indent=1, ensure_ascii=False)
    for pattern, shown in SHOWN:
        text = re.sub(pattern, shown, text)
    return text + "\n"


def _shortened(value: Any) -> Any:
    """One entry of each list is enough to see."""
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    return [_shortened(item) for item in value[:1]] if isinstance(value, list) else value


class Links(HTMLParser):
    """What a page links to, loads, and can be jumped to; and whatever may not be on it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert name != "style"
            assert not name.startswith("on")
            if name in ("href", "src"):
                self.targets.append(value or "")
            elif name == "id":
                self.anchors.append(value or "")


@pytest.mark.parametrize("path", ["/docs", "/docs/errors"])
def test_a_page_needs_nothing_from_outside_and_runs_no_script(api: TestClient, path: str) -> None:
    answer = api.get(path)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = Links(answer.text)
    assert page.tags & {"script", "img", "iframe", "object"} == set()
    assert len(set(page.anchors)) == len(page.anchors)
    anchors = {"": page.anchors}
    for target in page.targets:
        place, _, anchor = target.partition("#")
        if place not in anchors:
            found = api.get(place)
            assert found.status_code == 200, target
            anchors[place] = Links(found.text).anchors if "html" in found.headers["content-type"] else []
        assert not anchor or anchor in anchors[place], target


def test_the_page_shows_every_operation_with_its_scope(api: TestClient, walked: list[Operation]) -> None:
    html = api.get("/docs").text
    for operation in walked:
        assert f'id="{operation.document["operationId"]}"' in html
        assert f"<code>{operation.scope}</code>" in html


def test_the_type_of_a_problem_leads_to_what_is_said_of_its_code(api: TestClient) -> None:
    problem = api.get("/v1/contacts", headers={"Accept": "application/problem+json"}).json()
    place, _, anchor = problem["type"].partition("#")
    assert anchor in Links(api.get(place).text).anchors


@pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())
def test_every_code_is_explained(api: TestClient, code: Any) -> None:
    html = api.get("/docs/errors").text
    assert f'id="{code.name.lower()}"' in html
    assert html.count(code.name) >= 3
