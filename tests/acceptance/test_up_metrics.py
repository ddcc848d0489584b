"""/metrics of `blotter up`: whichever web process is asked, each save is counted once, and completely."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from tests.acceptance.up import CHECKOUT, Up
from tests.acceptance.webserver import SECRET, token
from tests.servers import eventually, private_directory

SAVES = 120
ENVIRON = {
    "WEB_CONCURRENCY": "2",
    "BLOTTER_JWT_SECRET": SECRET,
    "BLOTTER_PARTITIONS": "4",
    "BLOTTER_AUTOSAVE_SECONDS": "20",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with private_directory() as directory:
        yield directory / "data"


def counted(base_url: str) -> int:
    """Saves accepted, as a scrape on a connection of its own tells."""
    text = httpx.get(f"{base_url}/metrics", headers={"Connection": "close"}).text
    found = re.search(r'^blotter_saves_total{outcome="accepted"} ([\d.]+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def save(base_url: str, number: int) -> None:
    """On a connection of its own, so that both processes get their share."""
    answer = httpx.post(
        f"{base_url}/api/conversations/c{number % 7}/messages",
        json={"id": f"m{number}", "role": "user", "content": "a"},
        headers={"Authorization": f"Bearer {token('ann')}", "Connection": "close"},
        timeout=20,
    )
    assert answer.status_code == 202, answer.text


def web_processes(running: Up) -> list[psutil.Process]:
    """Those of web's that serve."""
    children = psutil.Process(running.pid("web")).children(recursive=True)
    serving = []
    for child in children:
        # One that ended while we looked, or waits for its parent to look (a zombie has no command line), serves no more.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "resource_tracker" not in " ".join(child.cmdline()):
                serving.append(child)
    return serving


def test_a_web_process_that_has_ended_and_was_not_looked_at_serves_no_more() -> None:
    """A zombie has no command line: psutil raises for it."""
    ended = subprocess.Popen(["true"])
    try:
        zombie = psutil.Process(ended.pid)
        eventually(lambda: zombie.status() == psutil.STATUS_ZOMBIE)
        here: Any = SimpleNamespace(pid=lambda _: os.getpid())
        assert zombie in psutil.Process().children(recursive=True)
        assert zombie not in web_processes(here)
    finally:
        ended.wait()


@pytest.mark.timeout(180)
def test_two_web_processes_count_each_save_once_and_a_dead_ones_stay_counted(folder: Path) -> None:
    # Web alone, as the Procfile has it: the others take longer to start than all of this.
    procfile = folder.with_name("Procfile")
    procfile.write_text(
        "".join(
            line
            for line in (CHECKOUT / "Procfile").read_text().splitlines(keepends=True)
            if line.startswith("web:")
        )
    )
    running = Up(folder, procfile, ENVIRON, ("migrate",))
    try:
        environ = running.wait_ready(within_s=90)
        base_url = environ["BASE_URL"]
        assert {name: environ[name] for name in ENVIRON if name in environ} == {
            name: value for name, value in ENVIRON.items() if name != "WEB_CONCURRENCY"
        }
        assert len(web_processes(running)) == 2
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda number: save(base_url, number), range(SAVES)))
        assert {counted(base_url) for _ in range(12)} == {SAVES}
        metrics = folder / "run" / "metrics"
        writers = {path.name for path in metrics.glob("counter_*.db")}
        assert len(writers) == 2, "both processes had their share"

        victim = web_processes(running)[0]
        victim.kill()
        eventually(lambda: len(web_processes(running)) == 2 and not victim.is_running(), within_s=20)
        # Until it serves: granian loses a SIGTERM to a process that is being made, and kills it ten seconds later.
        log = folder / "logs" / "web.log"
        eventually(lambda: log.read_text().count("Started worker") == 3, within_s=20)
        eventually(lambda: saved(base_url, SAVES), within_s=20)
        assert {counted(base_url) for _ in range(6)} == {SAVES + 1}
    finally:
        running.close()


def saved(base_url: str, number: int) -> bool:
    """A save that is refused by a dying process is tried again; it was not counted."""
    try:
        save(base_url, number)
    except httpx.TransportError:
        return False
    return True
