"""Fail points: free when unarmed, and as their variable says when armed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.pipeline import failpoints
from tests.servers import eventually

REACH = "from models.pipeline.failpoints import reach; reach('save.1'); reach('flush.6'); print('alive')"


def run(points: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "BLOTTER_FAILPOINTS": points}
    return subprocess.run(
        [sys.executable, "-c", REACH], env=environ, capture_output=True, text=True, timeout=30, check=False
    )


def test_nothing_happens_unless_it_is_named() -> None:
    assert run("").stdout == "alive\n"
    assert run("flush.7=kill, save.9=raise").stdout == "alive\n"


def test_kill_is_kill_and_raise_is_no_exception() -> None:
    assert run("flush.6=kill").returncode == -signal.SIGKILL
    assert "Crash: flush.6" in run("flush.6=raise").stderr
    assert not issubclass(failpoints.Crash, Exception)


def test_with_a_file_it_happens_once_for_all_processes(tmp_path: Path) -> None:
    once = tmp_path / "once"
    once.touch()
    assert run(f"flush.6=kill@{once}").returncode == -signal.SIGKILL
    assert run(f"flush.6=kill@{once}").stdout == "alive\n"


def test_pause_waits_while_its_file_is_there(tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    environ = {**os.environ, "BLOTTER_FAILPOINTS": f"flush.6=pause@{hold}"}
    with subprocess.Popen(
        [sys.executable, "-c", REACH], env=environ, stdout=subprocess.PIPE, text=True
    ) as held:
        eventually((tmp_path / "hold.reached").exists)
        assert held.poll() is None
        hold.unlink()
        assert held.communicate(timeout=10)[0] == "alive\n"


def test_within_a_process_any_callable_may_be_armed() -> None:
    seen: list[str] = []
    failpoints.arm("save.1", seen.append)
    failpoints.reach("save.1")
    failpoints.reach("save.2")
    failpoints.disarm("save.1")
    failpoints.reach("save.1")
    assert seen == ["save.1"]
    failpoints.arm("save.1", failpoints.crash)
    with pytest.raises(failpoints.Crash):
        failpoints.reach("save.1")
    failpoints.disarm()
