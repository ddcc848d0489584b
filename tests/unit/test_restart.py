"""`blotter restart` knows when a program has begun anew, also where it dies while it is asked to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.servers import eventually
from web.cli.errors import CannotRun
from web.cli.folder import Folder
from web.cli.restart import restart, workers_of
from web.cli.supervisor import began_at

# As granian does: two processes that serve. SIGHUP is left unanswered.
SERVING = """
import signal, subprocess, sys, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
for _ in range(2):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.create()
    return folder


@contextmanager
def serving(folder: Folder) -> Iterator[psutil.Popen]:
    """A program `web` of that folder, with its pid file."""
    main = psutil.Popen([sys.executable, "-c", SERVING], process_group=0)
    try:
        eventually(lambda: len(workers_of(main.pid)) == 2)
        (folder.run / "web.pid").write_text(f"{main.pid} 9 {began_at(main.pid)}\n")
        yield main
    finally:
        subprocess.run(["kill", "-9", "--", f"-{main.pid}"], check=False)
        main.wait()


def test_one_that_is_killed_while_it_is_restarted_has_begun_anew_when_its_successor_serves(
    folder: Folder,
) -> None:
    with serving(folder) as first:
        done = restart(folder, "web")
        assert not done(), "the same processes still serve"
        first.kill()
        assert not done(), "nobody serves"
    with serving(folder):
        assert done()


def test_one_that_does_not_run_is_told(folder: Folder) -> None:
    with pytest.raises(CannotRun, match="web does not run in"):
        restart(folder, "web")
    (folder.run / "web.pid").write_text("1 9 0.0\n")
    with pytest.raises(CannotRun, match="web does not run in"):
        restart(folder, "web")
