"""A web, a worker and commands as real processes, armed at every fail point; and what must be true after one died.

The processes are started once, with each point armed as `kill@FILE`: touching the file arms it, and whoever reaches the
point removes the file and kills itself by SIGKILL. So it happens once, to one process, and that it happened shows twice:
the file is gone, and so is a process. What was killed is started again by what starts it in production: granian and
Celery's parent.

A dead flusher's lease (10 s) and a bell nobody answered (5 s) are taken away by hand: nobody need wait for them here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import psutil
from celery import Celery

from tests.acceptance.console import Console
from tests.acceptance.webserver import SECRET, token
from tests.faults.points import documented
from tests.faults.proxy import Proxy
from tests.flow.crews import CrewRig, crew_rig
from tests.servers import Running, RunningPostgres, eventually
from web.cli.folder import free_port

CHECKOUT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
#: Processes of each part. Celery's parent looks for dead ones every five seconds: the others go on meanwhile.
CHILDREN = {"web": 2, "worker": 4}


class Programs:
    """The processes of one module. ``rig`` looks at the same servers from this process, past the proxy."""

    def __init__(self, rig: CrewRig, proxy: Proxy, environ: dict[str, str], folder: Path) -> None:
        self.rig = rig
        self.proxy = proxy
        self.folder = folder
        armed = ",".join(f"{point}=kill@{folder / point}" for point in documented())
        self.deadly = folder / "deadly"
        self.environ = {**os.environ, **environ, "C_FORCE_ROOT": "1", "BLOTTER_TEST_DEADLY": str(self.deadly)}
        self.armed = {**self.environ, "BLOTTER_FAILPOINTS": armed}
        self.console = Console(rig, CELERY_BROKER_URL=environ["CELERY_BROKER_URL"])
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.celery = Celery("tests", set_as_current=False, broker=environ["CELERY_BROKER_URL"])
        self.celery.conf.task_default_queue = "blotter"
        self._started: list[subprocess.Popen[bytes]] = []
        self.web = self._start("web", [
            *("granian", "--interface", "asgi", "--factory", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--http", "1", "--no-ws", "--workers", str(CHILDREN["web"]), "--respawn-failed-workers"),
            *("--respawn-interval", "0.05", "web.edge:create_app"),
        ])  # fmt: skip
        self.worker = self._start("worker", [
            *("celery", "-A", "tests.faults.deadly", "worker", "--concurrency", str(CHILDREN["worker"])),
            *("--without-gossip", "--without-mingle"),
        ])  # fmt: skip
        self.http = httpx.Client(
            base_url=f"{self.url}/api/conversations/",
            headers={"Authorization": f"Bearer {token('ann')}"},
            timeout=20,
        )

    def _start(self, name: str, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(BIN / argv[0]), *argv[1:]],
                env=self.armed, cwd=CHECKOUT, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def end(self) -> None:
        self.http.close()
        self.celery.close()
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    # ------------------------------------------------------------------ life and death
    def ready(self) -> None:
        """Web answers and a worker process lives."""

        def web_answers() -> bool:
            try:
                return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
            except httpx.TransportError:
                return False

        eventually(web_answers, within_s=40)
        eventually(lambda: self.children("worker") != {}, within_s=40)

    def children(self, part: str) -> dict[int, psutil.Process]:
        """The living processes that do the work of a part."""
        parent = self.web if part == "web" else self.worker
        found = {}
        for process in psutil.Process(parent.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(
                    process.cmdline()
                ):
                    found[process.pid] = process
        return found

    @contextmanager
    def dies_at(self, point: str, part: str, poke: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Within the block, or poked thereafter, the part reaches ``point`` and is killed there; that is checked
        when it ends.
        """
        before = self.children(part)
        assert before, f"no {part}"
        file = self.folder / point
        file.touch()
        try:
            yield
            eventually(lambda: self._gone(file, poke), within_s=20)
        finally:
            file.unlink(missing_ok=True)
        eventually(lambda: before.keys() - self.children(part).keys())

    def all_are_back(self) -> None:
        """Whoever was killed has a successor."""
        for part, count in CHILDREN.items():
            eventually(lambda part=part, count=count: len(self.children(part)) == count, within_s=20)

    @staticmethod
    def _gone(file: Path, poke: Callable[[], None]) -> None:
        """Poked at most twice a second: what it asks for takes its time."""
        if file.exists():
            poke()
        eventually(lambda: not file.exists(), within_s=0.5)

    def command_dies_at(self, point: str, *arguments: str) -> None:
        """`blotter …` is killed at ``point``."""
        environ = {**self.environ, "BLOTTER_FAILPOINTS": f"{point}=kill"}
        done = subprocess.run(
            [str(BIN / "blotter"), *arguments],
            env=environ,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, f"{done.returncode}: {done.stdout}{done.stderr}"

    # ------------------------------------------------------------------ what clients and operators do
    def try_save(self, conversation: str, message: dict[str, Any]) -> bool:
        """Save once. True: acknowledged; False: unknown, the connection broke. Anything else fails."""
        try:
            answer = self.http.post(f"{conversation}/messages", json=message)
        except httpx.TransportError:
            return False
        assert answer.status_code == 202, f"{answer.status_code}: {answer.text}"
        return True

    def save(self, conversation: str, message: dict[str, Any]) -> None:
        """Save as clients do: again until it is acknowledged."""
        deadline = time.monotonic() + 20
        while not self.try_save(conversation, message):
            assert time.monotonic() < deadline, "the web did not come back"
            time.sleep(0.02)

    def read(self, conversation: str) -> dict[str, Any]:
        answer = self.http.get(conversation)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def listed(self) -> list[str]:
        """The owner's conversations."""
        answer = self.http.get(f"{self.url}/api/conversations?limit=200")
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["conversations"]]

    def sweep(self) -> None:
        """What beat does each second."""
        self.celery.send_task("blotter.sweep", ignore_result=True)

    def forget_the_dead(self, conversation: str) -> None:
        """What ten seconds do: lease, bell and pause of its partition are over."""
        keys = self.rig.place(conversation).keys
        self.rig.buffer.client.delete(keys.lease, keys.bell, keys.hold)

    # ------------------------------------------------------------------ what must be true
    def assert_kept(self, conversation: str, expected: dict[str, str | None]) -> None:
        """All of ``expected`` (id -> content, in order) is there and nothing else: API, buffer and Postgres agree, nothing
        is dirty, nothing doubled; by Blotter's own commands too.
        """
        self.forget_the_dead(conversation)
        assert self.console.json("drain", "--timeout", "20")["done"]
        verified = self.console.json("verify")
        assert verified["faults"] == []
        seen = [(m["id"], m["content"]) for m in self.read(conversation)["messages"]]
        assert seen == list(expected.items()), "as the API tells it"
        assert self.rig.stored_texts(conversation) == expected
        # Where Postgres was away a moment ago, the web lists for a second more only what is in the buffer.
        eventually(lambda: self.listed().count(conversation) == 1)
        eventually(lambda: self.rig.assert_clean(conversation), within_s=10)

    def assert_alive(self, conversation: str, expected: dict[str, str | None]) -> None:
        """What was started again does its work: a further save reaches Postgres by web, broker and worker."""
        self.save(conversation, {"id": "after", "role": "user", "content": "all is well"})
        self.rig.buffer.client.delete(self.rig.place(conversation).keys.lease)
        expected = {**expected, "after": "all is well"}
        eventually(lambda: self.rig.stored_texts(conversation) == expected, within_s=20)


class Chat(NamedTuple):
    """A conversation of one test: what its client does. Its first message is in Postgres."""

    blotter: Programs
    id: str

    @property
    def keys(self) -> Any:
        return self.blotter.rig.place(self.id).keys

    @property
    def hex(self) -> str:
        return self.blotter.rig.place(self.id).hex

    def save(self, message: dict[str, Any]) -> None:
        self.blotter.save(self.id, message)

    def ring(self) -> None:
        """What a doorbell does, but at once."""
        self.blotter.rig.buffer.client.delete(self.keys.hold)
        self.blotter.celery.send_task("blotter.flush", args=(self.keys.number,), ignore_result=True)

    def store(self) -> None:
        """All of it is in Postgres, without waiting for the worker."""
        self.blotter.rig.flush(self.id)

    def evict(self) -> None:
        self.blotter.rig.evict(self.id)

    @contextmanager
    def unflushed(self) -> Iterator[None]:
        """No worker touches its partition."""
        client = self.blotter.rig.buffer.client
        client.set(self.keys.hold, "1", px=30_000)
        try:
            yield
        finally:
            client.delete(self.keys.hold)

    def change(self, name: str, **fields: int) -> None:
        """Change a row, or the header, as time would."""
        client, key = self.blotter.rig.buffer.client, self.keys.rows(self.hex)
        row = msgspec.msgpack.decode(client.hget(key, name))
        client.hset(key, name, msgspec.msgpack.encode({**row, **fields}))


@contextmanager
def programs(
    postgres: RunningPostgres,
    database_url: str,
    buffer: Running,
    broker: Running,
    folder: Path,
    **settings: str,
) -> Iterator[Programs]:
    """Web and worker on these servers, Postgres behind a proxy; `settings` go to them and to the rig."""
    with Proxy(postgres.port) as proxy:
        environ = {
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "DATABASE_URL": proxy.url_of(database_url),
            "REDIS_URL": buffer.url,
            "CELERY_BROKER_URL": broker.url,
            "BLOTTER_JWT_SECRET": SECRET,
            "BLOTTER_OWNER_REQUESTS_PER_MINUTE": "0",
            "BLOTTER_PARTITIONS": "2",
            **settings,
        }
        with crew_rig(buffer.url, database_url, **{**settings, "BLOTTER_PARTITIONS": "2"}) as rig:
            made = Programs(rig, proxy, environ, folder)
            try:
                made.ready()
                yield made
            finally:
                made.end()
