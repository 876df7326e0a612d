"""Dashboards and alert rules say only what the exporter has, and every alert tells what to do."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.docs.pages import BY_NAME
from worker.series import SERIES, Kind

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((DEPLOY / "grafana").glob("*.json"))}
(GROUP,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
ALERTS: list[dict[str, Any]] = GROUP["rules"]

SUFFIXES = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
LABELS = {
    series.full_name + suffix: {*series.labels, *({"le"} if suffix == "_bucket" else ())}
    for series in SERIES.values()
    for suffix in SUFFIXES.get(series.kind, ("",))
}
"""What can be asked for, with its labels."""

VALUES = {
    "lane": {"send.high", "send.normal", "followup", "webhooks"},
    "state": {"ready", "scheduled", "in_flight", "uncertain", "failed"},
    "reason": {"held", "late", "reconnect", "unlogged"},
    "class": {"permanent", "transient", "throttled", "credentials", "uncertain"},
    "result": {"delivered", "refused", "gone", "timeout", "unreachable", "accepted", "transient", "uncertain"},
}
"""Values that a matcher may name, of the labels that have few."""


def _expressions() -> Iterator[tuple[str, str]]:
    for alert in ALERTS:
        yield alert["alert"], alert["expr"]
    for name, board in DASHBOARDS.items():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]


EXPRESSIONS = list(_expressions())
EVERY_EXPRESSION = pytest.mark.parametrize(
    "expression", [text for _, text in EXPRESSIONS], ids=[where for where, _ in EXPRESSIONS]
)


def _parts(expression: Any) -> Iterator[Any]:
    """Every part of an expression, itself first."""
    yield expression
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        part = getattr(expression, name, None)
        if isinstance(part, promql_parser.Expr):
            yield from _parts(part)
    for part in getattr(expression, "args", ()):
        yield from _parts(part)


def _selectors(text: str) -> list[Any]:
    return _series(promql_parser.parse(text))


def _series(expression: Any) -> list[Any]:
    return [part for part in _parts(expression) if isinstance(part, promql_parser.VectorSelector)]


@EVERY_EXPRESSION
def test_an_expression_asks_for_series_and_labels_that_exist(expression: str) -> None:
    selectors = _selectors(expression)
    assert selectors
    for selector in selectors:
        assert selector.name in LABELS
        for matcher in selector.matchers.matchers:
            assert matcher.name in LABELS[selector.name]
            named = set() if matcher.value.startswith("$") else set(matcher.value.split("|"))
            assert named <= VALUES.get(matcher.name, named)


@EVERY_EXPRESSION
def test_an_expression_groups_by_labels_that_its_series_have(expression: str) -> None:
    for part in _parts(promql_parser.parse(expression)):
        if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            assert all(set(part.modifier.labels) <= LABELS[selector.name] for selector in _series(part))


def test_every_series_is_on_a_dashboard_or_in_an_alert() -> None:
    used = {selector.name for _, text in EXPRESSIONS for selector in _selectors(text)}
    bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert [series.full_name for series in SERIES.values() if series.full_name not in bare] == []


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_has_a_section_in_the_runbook_that_tells_what_to_do(alert: dict[str, Any]) -> None:
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert anchor == alert["alert"].lower()
    section = BY_NAME[page].text.partition(f"## {alert['alert']}\n")[2].partition("\n## ")[0]
    assert [word for word in ("**Meaning.**", "**Look.**", "**Do.**") if word not in section] == []
    assert alert["labels"]["severity"] in ("critical", "warning")


def test_the_runbook_has_no_section_without_an_alert() -> None:
    sections = re.findall(r"^## (\w+)$", BY_NAME["docs/runbook.md"].text, re.MULTILINE)
    assert sections == [alert["alert"] for alert in ALERTS]


def test_an_alert_fires_on_what_it_is_named_for() -> None:
    """An expression without a comparison, other than `absent`, would fire always."""
    for alert in ALERTS:
        parsed = promql_parser.parse(alert["expr"])
        compares = [str(part.op) for part in _parts(parsed) if isinstance(part, promql_parser.BinaryExpr)]
        assert any(op in (">", "==", "<") for op in compares) or "absent(" in alert["expr"], alert["alert"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_imported(name: str) -> None:
    board = DASHBOARDS[name]
    panels: Sequence[dict[str, Any]] = board["panels"]
    assert board["uid"] == f"postroad-{name}"
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for panel in panels)
    assert board["templating"]["list"][0]["query"] == "prometheus"
    assert {link["url"] for link in board["links"]} == {f"/d/postroad-{other}" for other in DASHBOARDS if other != name}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_panels_of_a_dashboard_do_not_overlap(name: str) -> None:
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
