"""The suite itself: rows run in miniature, the document has its shape. No figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import trace
from tests.bench.__main__ import ALL_ROWS, FAMILIES, measure, rows_of
from tests.bench.frame import Bench, Figure, at_least, at_most, percentile, ratio, table
from tests.bench.stack import CHECKOUT

#: What the document holds of a figure; the first eight are the design's.
FIELDS = {
    "name", "value", "target", "ok", "a", "b", "unit", "samples", "row", "stretch", "notes", "skipped",
}  # fmt: skip


# Generous: a minute is not always enough where the cores are shared.
@pytest.mark.timeout(240)
def test_cheap_rows_run_and_the_document_has_its_shape(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--only", "1,2,4", "--json", str(file)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert json.loads(file.read_text()) == document
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert {"machine", "versions", "load", "figures"} <= document.keys()
    assert {figure["row"] for figure in document["figures"]} == {1, 2, 4}
    for figure in document["figures"]:
        assert figure.keys() == FIELDS
        assert figure["skipped"] is None
        assert figure["value"] > 0
        assert all(found for found in figure["samples"].values())
    save = document["figures"][0]
    assert (save["row"], save["target"], save["stretch"], save["unit"]) == (1, ">= 0.6", ">= 0.75", "ratio")


def test_every_row_of_the_table_has_a_family() -> None:
    assert tuple(range(1, 16)) == ALL_ROWS


def test_rows_are_chosen_by_number() -> None:
    import argparse

    assert rows_of("1,4") == {1, 4}
    with pytest.raises(argparse.ArgumentTypeError, match="there is no row 16"):
        rows_of("1,16")
    with pytest.raises(argparse.ArgumentTypeError, match="numbers of rows"):
        rows_of("one")


def test_a_row_that_breaks_says_so_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(bench: Bench, rows: set[int]) -> Any:
        raise OSError("no disk")

    for family in FAMILIES:
        monkeypatch.setattr(
            family, "run", lambda bench, rows: iter([Figure(min(rows), "fine", 1.0)]), raising=True
        )
    monkeypatch.setattr(FAMILIES[0], "run", broken)
    figures = measure(Bench("quick", tmp_path, lambda text: None), {1, 4})
    assert [figure.skipped for figure in figures] == ["broke: OSError: no disk", ""]


def test_a_ratio_is_taken_pair_by_pair() -> None:
    figure = ratio(1, "x", [10.0, 40.0, 90.0], [10.0, 20.0, 30.0], target=at_least(2.5))
    assert (figure.value, figure.a, figure.b, figure.ok) == (2.0, 40.0, 20.0, False)
    assert "MISSED" in table([figure])
    assert ratio(1, "x", [1.0], [1.0], target=at_most(1)).ok is True
    assert Figure(1, "x", None, target=at_most(1)).ok is None


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0
    assert percentile([float(n) for n in range(100)], 0.99) == 99.0


def test_the_stand_in_looks_like_the_trace() -> None:
    arrivals = trace._stand_in()
    assert arrivals == trace._stand_in(), "the same in every run"
    assert len(arrivals) == 19_366
    assert 3_300 < arrivals[-1].at_s < 3_700
    assert 400 < percentile([float(one.reply) for one in arrivals], 0.5) < 700
