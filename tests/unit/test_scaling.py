"""deploy/SCALING.md is what its script makes of the benchmarks' figures."""

from __future__ import annotations

import copy
import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
SCALING: Mapping[str, Any] = runpy.run_path(str(DEPLOY / "scaling" / "__main__.py"), run_name="scaling")
FIGURES: dict[str, Any] = json.loads((DEPLOY / "scaling" / "benchmarks.json").read_text())


def model(figures: Mapping[str, Any] = FIGURES) -> Any:
    return SCALING["Model"](SCALING["Measured"].of(figures))


def changed(row: int, field: str, factor: float) -> dict[str, Any]:
    """The figures, those of one row multiplied."""
    figures = copy.deepcopy(FIGURES)
    for figure in figures["figures"]:
        if figure["row"] == row and figure[field] is not None:
            figure[field] *= factor
            if told := figure["notes"].get("µs an append"):
                figure["notes"]["µs an append"] = {part: us * factor for part, us in told.items()}
    return figures


def test_the_document_is_in_step_with_its_script_and_the_figures() -> None:
    assert (DEPLOY / "SCALING.md").read_text() == SCALING["document"](model()), "run `make scaling`"


def test_every_picture_it_shows_is_there() -> None:
    for name in SCALING["curves"](model()):
        assert f"scaling/plots/{name}.svg" in (DEPLOY / "SCALING.md").read_text()
        assert (DEPLOY / "scaling" / "plots" / f"{name}.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(("seconds", "count"), [(0.5, 1), (1.5, 2), (3.5, 3), (33.3, 6), (100, 8)])
def test_a_reply_is_written_at_intervals_that_double_and_at_its_end(seconds: float, count: int) -> None:
    """At 1, 3, 7, 15, 31, 61, 91 s, and when it is finished."""
    assert SCALING["flushes"](seconds) == count


@pytest.mark.parametrize(
    ("row", "field", "key"), [(8, "b", "web"), (8, "b", "nodes"), (6, "a", "wal"), (10, "value", "hot least")]
)
def test_what_costs_twice_needs_more(row: int, field: str, key: str) -> None:
    before, after = model().needs(10**6)[key], model(changed(row, field, 2)).needs(10**6)[key]
    assert before * 1.1 < after <= before * 2.01


def test_what_an_append_costs_is_taken_as_told_and_else_shared_out() -> None:
    told, untold = copy.deepcopy(FIGURES), copy.deepcopy(FIGURES)
    for figures, notes in ((told, {"µs an append": {"web": 300.0, "Valkey": 200.0}}), (untold, {})):
        (row, *_) = [one for one in figures["figures"] if one["row"] == 8]
        row["b"], row["notes"] = 4_000.0, notes
    assert (model(told).measured.web_us, model(told).measured.valkey_us) == (300, 200)
    assert (model(untold).measured.web_us, model(untold).measured.valkey_us) == pytest.approx((308, 92))


def test_parts_carry_what_they_are_said_to_carry() -> None:
    """One part of each kind is enough for just as many streams, and not for more."""
    made = model()
    carries = {part.name: part.streams for part in made.parts()}
    for name, key in (("web process", "web"), ("worker process", "workers"), ("events process", "events")):
        assert made.needs(int(carries[name]))[key] == 1
        assert made.needs(int(carries[name]) + 2)[key] == 2


def test_partitions_stay_within_what_a_blotter_may_have() -> None:
    for exponent in range(2, 10):
        needs = model().needs(10**exponent)
        assert 16 <= needs["partitions"] <= 1024
        assert needs["nodes"] * 4 <= needs["partitions"] * needs["blotters"] * 1.01 or needs["blotters"] == 1
        assert needs["workers"] <= needs["partitions"] * needs["blotters"]


def test_a_figure_that_is_missing_is_named() -> None:
    figures = {**FIGURES, "figures": [figure for figure in FIGURES["figures"] if figure["row"] != 10]}
    with pytest.raises(KeyError, match="row 10"):
        model(figures)
