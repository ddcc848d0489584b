"""Alert rules and dashboard: every metric, label and chapter they name exists."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.flow.api import Api, fresh
from web.events.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
METRIC = re.compile(r"\bblotter_[a-z0-9_]+\b")
#: A metric with its selector, and the labels by which an expression groups.
SELECTED = re.compile(r"\b(blotter_[a-z0-9_]+)\{([^}]*)\}")
GROUPED = re.compile(r"\bby \(([^)]*)\)")


def rules() -> list[dict[str, object]]:
    document = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def expressions() -> dict[str, str]:
    """Name of the alert or panel -> PromQL."""
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    drawn = {f"{p['title']}/{t['refId']}": t["expr"] for p in panels for t in p["targets"]}
    return {str(rule["alert"]): str(rule["expr"]) for rule in rules()} | drawn


@pytest.fixture(scope="module")
def exposed(api: Api) -> dict[str, set[str]]:
    """Sample name -> names of its labels, from a real /metrics after a save, and from that of events."""
    api("POST", f"{fresh()}/messages", {"id": "m", "role": "user"})
    api.rig.pipeline.partitions.count({"flushes": 1, "flush_micros": 5, "flush_le_5": 1})
    api.rig.pipeline.partitions.claim("blotter:beat", 60_000)
    text = api.app.test_client().get("/metrics").get_data(as_text=True)
    labels: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text + Metrics().exposition().decode()):
        for sample in family.samples:
            labels[sample.name] |= set(sample.labels)
    return labels


def test_every_metric_and_label_they_name_is_exposed(exposed: dict[str, set[str]]) -> None:
    for name, expression in expressions().items():
        metrics = METRIC.findall(expression)
        assert metrics, name
        assert set(metrics) <= set(exposed), (name, set(metrics) - set(exposed))
        for metric, selector in SELECTED.findall(expression):
            assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= exposed[metric], (name, metric)
        known = set().union(*(exposed[metric] for metric in metrics))
        for grouped in GROUPED.findall(expression):
            assert {label.strip() for label in grouped.split(",")} <= known, name


def test_a_histogram_is_read_by_its_buckets_and_a_counter_by_its_rate() -> None:
    for name, expression in expressions().items():
        assert ("histogram_quantile" in expression) == ("_bucket[" in expression), name
        for metric in METRIC.findall(expression):
            if metric.endswith(("_total", "_bucket", "_count", "_sum")):
                assert re.search(rf"(rate|increase)\({metric}(\{{[^}}]*\}})?\[", expression), name
        assert expression.count("(") == expression.count(")"), name


def test_every_alert_has_a_severity_a_summary_and_a_chapter_of_the_runbook() -> None:
    headings = re.findall(r"^#+ (.+)$", (DEPLOY / "RUNBOOK.md").read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"}), rule["alert"]
        assert re.fullmatch(r"\d+[sm]", str(rule["for"])), rule["alert"]
        notes = rule["annotations"]
        assert isinstance(notes, dict)
        file, _, anchor = notes["runbook"].partition("#")
        assert (file, anchor in anchors) == ("deploy/RUNBOOK.md", True), notes["runbook"]
        assert notes["summary"]


def test_the_dashboard_can_be_imported() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    assert {"title", "uid", "panels", "schemaVersion", "templating"} <= set(board)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == len(board["panels"])
