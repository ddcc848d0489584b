"""What `blotter up` hands its programs for figures, and what it tells commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from web.cli.folder import Folder
from web.cli.run import metrics_environ, published


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "data")
    made.create()
    return made


def test_each_start_counts_in_an_empty_folder(folder: Folder) -> None:
    metrics = Path(metrics_environ(folder)["PROMETHEUS_MULTIPROC_DIR"])
    assert metrics.parent == folder.run
    (metrics / "counter_1.db").touch()
    assert list(Path(metrics_environ(folder)["PROMETHEUS_MULTIPROC_DIR"]).iterdir()) == []


def test_settings_that_were_given_are_told_and_nothing_else() -> None:
    environ = {
        "BASE_URL": "http://127.0.0.1:1",
        "BLOTTER_PARTITIONS": "4",
        "BLOTTER_STALE_SECONDS": "",
        "PATH": "/bin",
        "BLOTTER_TEST_DATA": "x",
    }
    assert published(environ) == {"BASE_URL": "http://127.0.0.1:1", "BLOTTER_PARTITIONS": "4"}


def test_a_process_has_room_for_its_counts_before_it_counts(tmp_path: Path) -> None:
    """Sparse files, written through memory, killed every web process by SIGBUS when the disk was full."""
    program = "from web import metrics; metrics.SAVES.labels('accepted').inc(); print(metrics.RESERVED)"
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, check=True)
    found = {path.name.partition("_")[0]: path.stat() for path in tmp_path.iterdir()}
    assert set(found) == {"counter", "histogram"}
    assert all(stat.st_blocks * 512 >= stat.st_size == int(done.stdout) for stat in found.values())
