"""What doc/monitoring/ and doc/operate.md say of metrics, against what a running server tells."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from spool.web.problems import all_problems
from tests.process import Server
from tests.test_docs import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

ROOT = Path(__file__).parent.parent
MONITORING = ROOT / "doc" / "monitoring"
ELSEWHERE = {"up"}
"""What Prometheus itself knows of whom it scrapes."""

ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ASKED = [rule["expr"] for rule in ALERTS] + [target["expr"] for panel in PANELS for target in panel["targets"]]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Metric]]:
    """What a server tells once an upload was stored, another one refused, and a sweep done."""
    with Server(tmp_path_factory.mktemp("monitored") / "spool", env={"SPOOL_POLICY_DENY_TYPES": "image/*"}) as server:
        server.put("a", b"hello")
        request = urllib.request.Request(f"{server.url}/files/nothing")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=60)
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=60) as answer:
            yield list(text_string_to_metric_families(answer.read().decode()))


def names(families: list[Metric]) -> set[str]:
    """As they are in the text's TYPE lines; the parser takes `_total` off."""
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def labels(families: list[Metric]) -> dict[str, set[str]]:
    """The labels of each sample."""
    found: dict[str, set[str]] = {}
    for sample in (sample for family in families for sample in family.samples):
        found.setdefault(sample.name, set()).update(sample.labels)
    return found


def series(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics that an expression names, each with the labels by which it chooses."""
    found = re.findall(r"\b((?:spool|process)_\w+|up)\b(?:\{([^}]*)\})?", expression)
    return [(name, set(re.findall(r"(\w+)(?:=~|=|!=|!~)", chosen))) for name, chosen in found]


def test_every_metric_has_an_entry_and_every_entry_a_metric(families: list[Metric]) -> None:
    rows = table((ROOT / "doc/operate.md").read_text(), "## Metrics")
    documented = {name for row in rows for name in re.findall(r"\w+", row)}
    assert documented == {name for name in names(families) if name.startswith("spool_")}


def test_entry_tells_type_and_labels(families: list[Metric]) -> None:
    rows = table((ROOT / "doc/operate.md").read_text(), "## Metrics")
    told = {name: cells for row, cells in rows.items() for name in re.findall(r"\w+", row)}
    for family in families:
        if family.name.startswith("process_"):
            continue
        cells = told[next(iter(names([family])))]
        assert cells[0] == family.type
        used = set().union(*(sample.labels for sample in family.samples)) - {"le"}
        assert used <= set(re.findall(r"\w+", cells[1])), family.name


@pytest.mark.parametrize("expression", ASKED)
def test_metrics_that_are_asked_for_exist_with_their_labels(families: list[Metric], expression: str) -> None:
    known = labels(families)
    known |= {name: set() for name in names(families) if name not in known}  # nothing has happened yet
    asked = series(expression)
    assert asked
    for name, chosen in asked:
        if name in ELSEWHERE:
            continue
        assert name in known
        assert not known[name] or chosen - {"instance", "job"} <= known[name], name


def test_problems_that_are_asked_for_exist() -> None:
    asked = {slug for text in ASKED for found in re.findall(r'problem=~"([^"]*)"', text) for slug in found.split("|")}
    assert asked
    assert asked <= {kind.slug for kind in all_problems()}


def test_parentheses_of_expressions_are_closed() -> None:
    for expression in ASKED:
        for opened, closed in ("()", "[]", "{}"):
            assert expression.count(opened) == expression.count(closed), expression


def test_alert_tells_what_to_do() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS) > 5
    for rule in ALERTS:
        assert rule["annotations"].keys() == {"summary", "action"}
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_dashboard_shows_every_metric(families: list[Metric]) -> None:
    shown = {
        re.sub(r"_bucket$", "", name)
        for panel in PANELS
        for target in panel["targets"]
        for name, _ in series(target["expr"])
    }
    assert {name for name in names(families) if name.startswith("spool_")} <= shown


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not taken & cells, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
