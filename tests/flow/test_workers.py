"""Real worker and beat processes: within a second in Postgres, whatever dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from models.buffer import keys as names
from models.core import commands as c
from models.pipeline.doorbell import Doorbell
from models.postgres.migrate import upgrade
from tests.flow.crews import CrewRig, crew_rig
from tests.servers import Running, RunningPostgres, eventually, start_postgres, start_valkey

CELERY = [sys.executable, "-m", "celery", "-A", "workers.app"]
ROOT = Path(__file__).parents[2]


class Programs:
    """Worker and beat of one test; whatever still runs at its end is killed."""

    def __init__(self, environ: dict[str, str], folder: Path) -> None:
        self.environ = {**os.environ, **environ, "C_FORCE_ROOT": "1"}
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def worker(self, concurrency: int = 1, **environ: str) -> subprocess.Popen[bytes]:
        arguments = ["worker", "--concurrency", str(concurrency), "--without-gossip", "--without-mingle"]
        return self._start("worker", arguments, environ)

    def beat(self) -> subprocess.Popen[bytes]:
        arguments = ["beat", "--schedule", str(self.folder / "schedule"), "--pidfile="]
        return self._start("beat", arguments, {})

    def _start(self, name: str, arguments: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*CELERY, *arguments],
                env={**self.environ, **environ},
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def log(self, name: str = "worker") -> str:
        return (self.folder / f"{name}.log").read_text()

    def end(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def postgres() -> Iterator[RunningPostgres]:
    with start_postgres(fsync="off") as server:
        upgrade(server.url)
        yield server


@pytest.fixture
def chat(buffer_url: str, broker_url: str, postgres: RunningPostgres) -> Iterator[CrewRig]:
    with crew_rig(buffer_url, postgres.url, CELERY_BROKER_URL=broker_url) as made:
        made.sql("TRUNCATE conversations, messages, tool_results, artifacts, artifact_versions")
        yield made


@pytest.fixture
def programs(
    chat: CrewRig, buffer_url: str, broker_url: str, postgres: RunningPostgres, tmp_path: Path
) -> Iterator[Programs]:
    environ = {
        "DATABASE_URL": postgres.url,
        "REDIS_URL": buffer_url,
        "CELERY_BROKER_URL": broker_url,
        "BLOTTER_PARTITIONS": "4",
    }
    made = Programs(environ, tmp_path)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def doorbell(chat: CrewRig) -> Iterator[Doorbell]:
    made = Doorbell(chat.pipeline.settings)
    yield made
    made.close()


def say(chat: CrewRig, doorbell: Doorbell, name: str, text: str = "a") -> None:
    chat.rung.clear()
    chat.say(name, "m1", text)
    for number in chat.rung:
        doorbell.ring(number)


def await_workers(chat: CrewRig, programs: Programs, count: int = 1) -> None:
    def alive() -> None:
        found = chat.crew.partitions.workers(chat.crew.partitions.now_ms())
        assert len(found) >= count, programs.log()

    eventually(alive, within_s=30)


def await_stored(chat: CrewRig, name: str, text: str = "a", within_s: float = 20) -> float:
    """Seconds until it is in Postgres."""
    began = time.monotonic()
    eventually(lambda: chat.stored_texts(name) == {"m1": text}, within_s=within_s, every_s=0.005)
    return time.monotonic() - began


def test_a_save_is_in_postgres_within_a_second(chat: CrewRig, programs: Programs, doorbell: Doorbell) -> None:
    programs.worker(2)
    programs.beat()
    eventually(lambda: chat.crew.partitions.stands(names.BEAT), within_s=30)
    for number in range(8):
        say(chat, doorbell, f"c{number}")
        assert await_stored(chat, f"c{number}", within_s=1.0) < 1.0
    chat.save("r", c.put("m", "m1", {"role": "assistant", "content": "a"}, status="streaming"))
    await_stored(chat, "r", within_s=4)
    figures = chat.pipeline.figures()
    assert figures["beatAlive"]
    assert len(figures["workers"]) == 2
    assert figures["counters"]["rows"] >= 16
    eventually(lambda: chat.pipeline.figures()["dirtyItems"] == 0)
    assert "Traceback" not in programs.log() + programs.log("beat")


def test_without_beat_lost_bells_are_made_good_by_the_workers(chat: CrewRig, programs: Programs) -> None:
    programs.worker()
    await_workers(chat, programs)
    chat.say("c", "m1", "a")
    assert await_stored(chat, "c", within_s=10) < 6
    assert not chat.crew.partitions.stands(names.BEAT)
    eventually(lambda: chat.assert_clean("c"))


def test_without_a_broker_workers_go_on(
    chat: CrewRig, programs: Programs, broker_server: Running, tmp_path: Path
) -> None:
    with start_valkey(role="broker") as broker:
        programs.environ["CELERY_BROKER_URL"] = broker.url
        programs.worker()
        await_workers(chat, programs)
        broker.kill()
        chat.say("c", "m1", "a")
        assert await_stored(chat, "c", within_s=10) < 6
        broker.start()
        eventually(lambda: broker.server.why_not_ready() == "")
        programs.beat()
        eventually(lambda: chat.crew.partitions.stands(names.BEAT), within_s=30)


@pytest.mark.parametrize("step", [5, 6, 7, 8])
def test_a_worker_killed_in_the_middle_of_a_flush_is_replaced_and_nothing_is_lost(
    chat: CrewRig, programs: Programs, doorbell: Doorbell, tmp_path: Path, step: int
) -> None:
    once = tmp_path / "once"
    once.touch()
    worker = programs.worker(BLOTTER_FAILPOINTS=f"flush.{step}=kill@{once}")
    programs.beat()
    await_workers(chat, programs)
    children = psutil.Process(worker.pid).children()
    say(chat, doorbell, "c")
    eventually(lambda: not once.exists())
    # The lease of the dead runs out after ten seconds; nobody need wait for it here.
    chat.expire_lease("c")
    await_stored(chat, "c")
    eventually(lambda: chat.due("c") == [])
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    eventually(lambda: chat.assert_clean("c"))


def test_a_killed_child_is_replaced_and_its_partition_recovered(
    chat: CrewRig, programs: Programs, doorbell: Doorbell
) -> None:
    worker = programs.worker(2)
    programs.beat()
    await_workers(chat, programs, 2)
    for round_ in range(3):
        for child in psutil.Process(worker.pid).children():
            child.kill()
        for number in range(6):
            say(chat, doorbell, f"k{number}", str(round_))
    for number in range(6):
        await_stored(chat, f"k{number}", "2", within_s=30)


def test_sigterm_finishes_the_batch_and_releases(
    chat: CrewRig, programs: Programs, doorbell: Doorbell, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    worker = programs.worker(BLOTTER_FAILPOINTS=f"flush.5=pause@{hold}")
    await_workers(chat, programs)
    say(chat, doorbell, "c")
    eventually((tmp_path / "hold.reached").exists)
    worker.send_signal(signal.SIGTERM)
    eventually(lambda: "Warm shutdown" in programs.log())
    assert worker.poll() is None
    hold.unlink()
    assert worker.wait(15) == 0
    assert chat.stored_texts("c") == {"m1": "a"}
    eventually(lambda: chat.assert_clean("c"))
    assert chat.crew.partitions.workers(chat.crew.partitions.now_ms()) == []


def test_a_worker_refuses_a_buffer_that_keeps_nothing(
    chat: CrewRig, programs: Programs, broker_url: str
) -> None:
    programs.environ["REDIS_URL"] = programs.environ["CELERY_BROKER_URL"]
    worker = programs.worker()
    assert worker.wait(30) != 0
    assert "the broker is the same server" in programs.log()


def test_logs_hold_no_chat_text(chat: CrewRig, programs: Programs, doorbell: Doorbell) -> None:
    chat.reject_poison()
    try:
        programs.worker()
        programs.beat()
        await_workers(chat, programs)
        say(chat, doorbell, "c", "poison SECRET")
        eventually(lambda: "m/m1" in chat.dead("c"), within_s=20)
        assert "no_poison" in programs.log()
        assert "SECRET" not in programs.log() + programs.log("beat")
    finally:
        chat.accept_poison()
