"""The supervisor outlives what its machine refuses: a full disk ends nothing that runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from web.cli import supervisor as module
from web.cli.folder import Folder
from web.cli.process import Command
from web.cli.supervisor import Part, Supervisor

SAID: list[str] = []


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.create()
    return folder


@pytest.fixture
def supervisor(folder: Folder) -> Iterator[Supervisor]:
    SAID.clear()
    lock = folder.lock()
    made = Supervisor(folder, lock, SAID.append)
    try:
        yield made
    finally:
        for name in made.names:
            made.stop(name)
        made.close()
        os.close(lock)


def started(supervisor: Supervisor, name: str) -> Part:
    return supervisor.start(Command(name, ["sleep", "60"], dict(os.environ), Path("/")))


def ticks_until(supervisor: Supervisor, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        supervisor.tick(0.02)


def kill(part: Part) -> int:
    assert part.process is not None
    part.process.send_signal(signal.SIGKILL)
    return part.process.pid


def runs_anew(part: Part, pid: int) -> bool:
    return part.process is not None and part.process.pid != pid


def test_where_no_file_can_be_written_a_program_starts_again_and_is_noted_later(
    supervisor: Supervisor, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOG_CHECK_S", 0.05)
    part, other = started(supervisor, "worker"), started(supervisor, "web")
    spared = other.process
    folder.run.rename(folder.root / "gone")
    pid = kill(part)
    ticks_until(supervisor, lambda: runs_anew(part, pid))
    assert other.process is spared
    folder.run.mkdir()
    ticks_until(supervisor, (folder.run / "worker.pid").exists)
    assert part.process is not None
    assert (folder.run / "worker.pid").read_text().split()[0] == str(part.process.pid)


def test_what_cannot_be_started_now_is_tried_again(supervisor: Supervisor, folder: Folder) -> None:
    part, other = started(supervisor, "worker"), started(supervisor, "web")
    spared = other.process
    folder.logs.rename(folder.root / "gone")
    pid = kill(part)
    ticks_until(supervisor, lambda: any("worker cannot be started (No such file" in line for line in SAID))
    (folder.root / "gone").rename(folder.logs)
    ticks_until(supervisor, lambda: runs_anew(part, pid))
    assert other.process is spared
