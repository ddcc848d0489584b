"""`@durable-streams/client`, as npm has it, reads a conversation's events: across reconnects, flushes and restarts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from models.core import commands as c
from tests.flow.events import EventsProcess, Fold, bearer, events_process, shown
from tests.flow.rig import Rig, rig
from tests.servers import Running, RunningPostgres, eventually, start_valkey
from web import render

HERE = Path(__file__).with_name("js-events")
NODE_MAJOR = 18


def why_not() -> str:
    """Why the client cannot be run here; empty where it can."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return "node and npm are not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < NODE_MAJOR:
        return f"node {version.strip()} is older than {NODE_MAJOR}"
    return ""


@pytest.fixture(scope="session")
def client() -> Path:
    """The folder with the client installed, from its lock file."""
    reason = why_not()
    if reason:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return HERE


class World(Rig):
    """A rig, the events process on its servers, and the buffer's server to be restarted."""

    events: EventsProcess
    valkey: Running


@pytest.fixture
def world(postgres_server: RunningPostgres, template_database: str, tmp_path: Path) -> Iterator[World]:
    with (
        start_valkey() as valkey,
        postgres_server.new_database(template_database) as database_url,
        rig(valkey.url, database_url) as made,
        events_process(
            tmp_path / "events.log",
            REDIS_URL=valkey.url,
            DATABASE_URL=database_url,
            BLOTTER_EVENTS_SSE_SECONDS="1.5",
            BLOTTER_EVENTS_LONG_POLL_SECONDS="1",
            BLOTTER_EVENTS_POLL_SECONDS="1",
        ) as process,
    ):
        world = World(made.pipeline)
        world.events, world.valkey = process, valkey
        yield world


class Node:
    """The client at work: what it printed, folded."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.fold = Fold(strict=False)
        self.batches = self.broken = 0
        self.fault: BaseException | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line)
            with self._lock:
                if "broken" in told:
                    self.broken += 1
                    continue
                self.batches += 1
                try:
                    raw = json.dumps(told["items"]).encode() if told["items"] else b""
                    self.fold.apply(raw, told["offset"], closed=told["closed"])
                except (AssertionError, KeyError, TypeError) as error:
                    self.fault = error

    def view(self) -> dict[str, list[bytes]]:
        with self._lock:
            if self.fault is not None:
                raise self.fault
            return self.fold.view()


@contextmanager
def reading(client: Path, world: World, conversation: str, live: str, offset: str = "-1") -> Iterator[Node]:
    environ = {
        "PATH": os.environ["PATH"],
        "URL": world.events.path(conversation),
        "TOKEN": bearer()["Authorization"].split()[1],
        "LIVE": live,
        "OFFSET": offset,
    }
    process = subprocess.Popen(
        ["node", "reader.mjs"],
        cwd=client,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Node(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def get(world: Rig, chat: str) -> dict[str, list[bytes]]:
    return shown(render.view(world.pipeline.read("ann", chat, branches=True, limit=5000)))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("live", ["sse", "long-poll"])
def test_the_real_client_reads_all_there_is_whatever_breaks(client: Path, world: World, live: str) -> None:
    chat = f"js-{live}"
    world.say(chat, "m1", "a question, with 😀")
    parts = [
        {"type": "text", "text": ""},
        {"type": "tool-look", "toolCallId": "t", "state": "input-available", "input": {}},
    ]
    world.save(
        chat, c.put("m", "r", {"role": "assistant", "content": "", "parts": parts}, status="streaming")
    )
    length = 0

    def grow(times: int) -> None:
        nonlocal length
        for n in range(times):
            text = f"wörd {n} 𝕏 "
            step: Any = c.Append("m", "r", length, text, c.utf16_units(text), 0)
            assert world.save(chat, step).items[0].outcome == "accepted"
            length += c.utf16_units(text)

    with reading(client, world, chat, live) as node:

        def same() -> None:
            assert node.process.poll() is None, node.process.stderr and node.process.stderr.read()
            assert node.view() == get(world, chat)

        eventually(same, within_s=20)
        grow(40)
        eventually(same, within_s=20)
        assert world.flush(chat) > 0
        eventually(same, within_s=20)

        world.events.kill()
        grow(20)
        world.events.start()
        grow(20)
        eventually(same, within_s=20)

        world.valkey.restart()
        eventually(lambda: world.pipeline.ready()["buffer"] == "ok")
        grow(20)
        eventually(same, within_s=20)

        world.save(
            chat, c.put("t", "r.t", {"message_id": "r", "state": "output-available", "output": [1.5, None]})
        )
        world.save(chat, c.put("m", "r", {}, status="complete"))
        world.evict(chat)
        eventually(same, within_s=20)
        world.say(chat, "m2", "and hot again")
        eventually(same, within_s=20)
        assert len(set(node.fold.epochs)) >= 1

        world.save(chat, c.Delete("c", ""))
        assert node.process.wait(timeout=20) == 0
        eventually(lambda: node.fold.closed)
        assert list(node.fold.items) == [("conversation", chat)]
