"""`@durable-streams/client`, as npm has it, reads a conversation's events, whatever dies, is flushed, evicted or runs out.

First with the events process alone on its servers, where a test says when what is flushed and evicted; then with a whole
Blotter, whose worker, web and events are killed while a reply is written.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from models.core import commands as c
from models.identity import conversation_uid
from tests.acceptance import js_rig
from tests.flow.events import EventsProcess, Fold, bearer, events_process, shown
from tests.flow.rig import Rig, rig
from tests.servers import Running, RunningPostgres, eventually, start_valkey
from web import render
from web.auth import LEEWAY_S

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
        self.batches = self.broken = self.refused = 0
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
                if "refused" in told:
                    self.refused += 1
                    continue
                self.batches += 1
                try:
                    raw = json.dumps(told["items"]).encode() if told["items"] else b""
                    self.fold.apply(raw, told["offset"], closed=told["closed"])
                except (AssertionError, KeyError, TypeError) as error:
                    self.fault = error

    def ended(self) -> int:
        """Wait for its end; the exit code, 0 where it was told that the stream is closed or its tokens are used up."""
        code = self.process.wait(timeout=20)
        self._thread.join(timeout=20)
        return code

    def view(self) -> dict[str, list[bytes]]:
        with self._lock:
            if self.fault is not None:
                raise self.fault
            return self.fold.view()


@contextmanager
def reading(client: Path, url: str, live: str, tokens: list[str], offset: str = "-1") -> Iterator[Node]:
    """The client at `url`; each of `tokens` until it is refused."""
    environ = {
        "PATH": os.environ["PATH"],
        "URL": url,
        "TOKENS": ",".join(tokens),
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


def token(seconds: float = 600) -> str:
    return bearer(seconds=seconds)["Authorization"].split()[1]


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

    with reading(client, world.events.path(chat), live, [token()]) as node:

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
        assert node.ended() == 0
        assert node.fold.closed
        assert list(node.fold.items) == [("conversation", chat)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("live", ["sse", "long-poll"])
def test_a_token_that_runs_out_is_refused_once_and_the_next_goes_on(
    client: Path, world: World, live: str
) -> None:
    chat = f"token-{live}"
    world.say(chat, "m1", "a question")
    tokens = [token(2 - LEEWAY_S), token(4 - LEEWAY_S)]
    said = 1
    with reading(client, world.events.path(chat), live, tokens) as node:

        def used_up() -> bool:
            nonlocal said
            said += 1
            world.say(chat, f"m{said}", "another")
            return node.refused == 2

        eventually(used_up, within_s=20, every_s=0.1)
        assert node.ended() == 0
        assert (node.refused, node.broken, node.fold.closed) == (2, 0, False)
        # No storm of requests while they ran out.
        assert node.batches < 3 * said
    with reading(client, world.events.path(chat), live, [token()], node.fold.offset) as later:
        later.fold.items = node.fold.items
        eventually(lambda: later.view() == get(world, chat), within_s=20)


class Writer:
    """A backend that writes a reply: what gets no answer, or a 503, is said again."""

    def __init__(self, running: js_rig.Rig, chat: str) -> None:
        self._url = f"{running.environ['BASE_URL']}/api/conversations/{chat}"
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {running.environ['TOKEN']}"}, timeout=20
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self.text = ""
        self.repeated = 0
        self.fault: BaseException | None = None

    def call(self, method: str, tail: str = "", body: Any = None) -> Any:
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = self._client.request(method, f"{self._url}{tail}", json=body)
                if answer.status_code != 503:
                    assert answer.is_success, f"{method} {tail}: {answer.status_code} {answer.text}"
                    return answer.json() if answer.content else None
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, "nobody answers"
            self.repeated += 1
            time.sleep(0.05)

    def close(self) -> None:
        self._stop.set()
        self._client.close()

    def begin(self) -> None:
        self._thread.start()

    def _write(self) -> None:
        try:
            while not self._stop.wait(0.01):
                piece = f"wörd {len(self.text)} 𝕏 "
                offset = c.utf16_units(self.text)
                self.call("PATCH", "/messages/r", {"append": {"offset": offset, "text": piece}})
                self.text += piece
        except BaseException as error:  # noqa: BLE001 (told to the test, which fails with it)
            self.fault = error

    def wait_for_more(self, characters: int) -> None:
        length = len(self.text)
        eventually(lambda: self.fault is not None or len(self.text) > length + characters, within_s=60)

    def end(self) -> str:
        """End the reply; all of it."""
        self._stop.set()
        self._thread.join(timeout=60)
        if self.fault is not None:
            raise self.fault
        self.call("PUT", "/messages", {"id": "r", "status": "complete"})
        return self.text


@pytest.fixture(scope="module")
def whole() -> Iterator[js_rig.Rig]:
    """Web, worker, beat and events as the Procfile has them; what is idle for two seconds is evicted."""
    with js_rig.rig(
        BLOTTER_EVENTS_SSE_SECONDS="2",
        BLOTTER_EVENTS_LONG_POLL_SECONDS="1",
        BLOTTER_EVENTS_POLL_SECONDS="1",
        BLOTTER_IDLE_SECONDS="2",
        BLOTTER_MIN_IDLE_SECONDS="1",
        BLOTTER_AUTOSAVE_SECONDS="1",
    ) as running:
        yield running


@pytest.mark.timeout(240)
def test_worker_web_and_events_are_killed_in_a_reply_and_nothing_is_lost_or_doubled(
    client: Path, whole: js_rig.Rig
) -> None:
    chat = "killed"
    writer = Writer(whole, chat)
    writer.call("POST", "/messages", {"id": "m1", "role": "user", "content": "a question"})
    writer.call("POST", "/messages", {"id": "r", "role": "assistant", "content": "", "status": "streaming"})
    url = f"{whole.environ['EVENTS_URL']}/api/conversations/{chat}/events"
    tokens = [whole.environ["TOKEN"]]
    with (
        closing(writer),
        reading(client, url, "sse", tokens) as sse,
        reading(client, url, "long-poll", tokens) as poll,
    ):
        readers = {"sse": sse, "long-poll": poll}

        def same() -> None:
            said = shown(writer.call("GET", "?branches=all&limit=5000"))
            for live, node in readers.items():
                assert node.process.poll() is None, live
                assert node.view() == said, live

        def all_stored() -> None:
            same()
            assert all(item["stored"] for item in sse.fold.items.values())
            assert all(item["stored"] for item in poll.fold.items.values())

        writer.begin()
        for name in ("worker", "events", "web", "worker", "events"):
            writer.wait_for_more(200)
            whole.do(name, "kill")
            if name != "web":
                writer.wait_for_more(200)
            whole.do(name, "start")
        writer.wait_for_more(200)
        text = writer.end()
        eventually(all_stored, within_s=60, every_s=0.2)
        for node in readers.values():
            assert node.fold.items["message", "r"]["content"] == text
        assert writer.repeated, "web was not away"
        assert sse.broken, "events was not away"

        # It leaves the buffer, and comes back with the next save.
        uid = conversation_uid("ann", chat).hex
        with redis.Redis.from_url(whole.buffer.url) as buffer:
            eventually(lambda: not list(buffer.scan_iter(f"*:{uid}")), within_s=30, every_s=0.2)
        writer.call("POST", "/messages", {"id": "m2", "role": "user", "content": "and hot again"})
        eventually(all_stored, within_s=60, every_s=0.2)
        whole.do("events", "kill")
        writer.call("POST", "/messages", {"id": "m3", "role": "user", "content": "unheard"})
        whole.do("events", "start")
        eventually(all_stored, within_s=60, every_s=0.2)

        writer.call("DELETE")
        for node in readers.values():
            assert node.ended() == 0
            assert node.fold.closed
            assert list(node.fold.items) == [("conversation", chat)]
