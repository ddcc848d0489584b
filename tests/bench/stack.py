"""Servers and programs to measure: private ones with production's settings, programs by the lines of the Procfile.

with stack() as s, s.program("web") as web:
    s.valkey, s.broker, s.postgres, s.url(web)
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from models.core import commands
from models.pipeline.crew import Crew
from models.pipeline.service import Pipeline
from models.postgres import migrate
from models.settings import Settings, load
from tests.acceptance.webserver import environment
from tests.servers import Running, RunningPostgres, private_directory, start_postgres, start_valkey
from web.cli.folder import free_port
from web.cli.process import Command, spawn
from web.cli.procfile import read_procfile

CHECKOUT = Path(__file__).resolve().parents[2]
#: Room for the rows that fill the buffer; the default of 1 GiB is a matter of operation, not of speed.
MAXMEMORY = "6gb"
START_S = 60.0

#: Alembic's environment is the process's, and row 7 starts two stacks at once.
_migrating = threading.Lock()


@dataclass
class Program:
    """A running line of the Procfile."""

    name: str
    pid: int
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        return cpu_s(self.pid)


@dataclass
class Stack:
    """Buffer, broker and a migrated database."""

    folder: Path
    valkey: Running
    broker: Running
    postgres: RunningPostgres
    database_url: str
    environ: dict[str, str]

    @property
    def settings(self) -> Settings:
        return load(self.environ)

    @contextmanager
    def program(self, name: str, *, app: str = "", **settings: str) -> Iterator[Program]:
        """A program as in production; ``app`` in the place of the web's application."""
        port = free_port()
        argv = read_procfile(CHECKOUT / "Procfile")[name]
        if app:
            # The last word of the line.
            argv = [re.sub(r"\S+:create_app$", app, word) for word in argv]
            assert app in argv[-1], argv
        log = self.folder / f"{name}.log"
        environ = {
            **self.environ,
            "PORT": str(port),
            "EVENTS_PORT": str(port),
            "BLOTTER_BEAT_SCHEDULE": str(self.folder / "beat-schedule"),
            "C_FORCE_ROOT": "1",
            **settings,
        }
        process = spawn(Command(name, argv, environ, CHECKOUT), log)
        made = Program(name, process.pid, port, log)
        try:
            _await(made, process.poll, self)
            yield made
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=25)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    @contextmanager
    def pipeline(self, ring: Callable[[int], None] = lambda number: None) -> Iterator[Pipeline]:
        """A pipeline in this process; its bells are not rung unless ``ring`` does."""
        made = Pipeline.connect(self.settings, role="web", ring=ring)
        made.buffer.initialise()
        try:
            yield made
        finally:
            made.close()

    @contextmanager
    def crew(self) -> Iterator[Crew]:
        """A worker's hands in this process."""
        made = Crew.connect(self.settings, role="worker", ring=lambda number: None)
        try:
            yield made
        finally:
            made.close()

    def empty(self) -> None:
        """Take everything out of the buffer, but for its layout, and out of Postgres."""
        import psycopg
        import redis

        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute("TRUNCATE conversations, messages, tool_results, artifacts, artifact_versions")
        with self.pipeline():
            pass


@contextmanager
def stack(**postgres: str) -> Iterator[Stack]:
    """Fresh servers, durable as in production. ``postgres``: settings over production's."""
    with (
        private_directory() as folder,
        start_valkey(folder, maxmemory=MAXMEMORY) as valkey,
        start_valkey(folder, role="broker") as broker,
        start_postgres(folder, **postgres) as server,
    ):
        with _migrating:
            migrate.upgrade(server.url)
        environ = environment(server.url, valkey.url, CELERY_BROKER_URL=broker.url, BLOTTER_PARTITIONS="16")
        # What tests set otherwise is as in production here: a line of log for each request too.
        del environ["BLOTTER_STORE_CONNECT_MS"], environ["BLOTTER_LOG_LEVEL"]
        # No answer is later than this, so that a disturbed machine shows as latency, not as an error.
        environ["BLOTTER_BUFFER_TIMEOUT_MS"] = "20000"
        made = Stack(folder, valkey, broker, server, server.url, environ)
        with made.pipeline():
            pass
        yield made


def _await(program: Program, ended: Callable[[], object], servers: Stack) -> None:
    deadline = time.monotonic() + START_S
    while not _ready(program, servers):
        if ended() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{program.name} did not start:\n{program.log.read_text()[-3000:]}")
        time.sleep(0.05)


def _ready(program: Program, servers: Stack) -> bool:
    if program.name == "worker":
        with servers.crew() as crew:
            return bool(crew.partitions.workers(crew.partitions.now_ms()))
    if program.name == "beat":
        return True
    path = "/healthz" if program.name == "events" else "/readyz"
    try:
        with urllib.request.urlopen(f"{program.url}{path}", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def cpu_s(pid: int) -> float:
    """CPU time of a process and of all it has started, user and system, s; of what still lives."""
    main = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in (main, *main.children(recursive=True)))


def fill(
    pipeline: Pipeline,
    items: int,
    *,
    size: int,
    per_conversation: int = 50,
    prefix: str = "fill",
    say: Callable[[str], None] = lambda text: None,
) -> list[str]:
    """Save ``items`` complete messages of ``size`` characters; the conversations' ids. Postgres is not asked."""
    from tests.bench.text import prose

    ids = []
    for first in range(0, items, per_conversation):
        name = f"{prefix}{first}"
        ids.append(name)
        batch: list[commands.Command] = [
            commands.put("m", f"m{n}", {"role": "user", "content": prose(n, size)})
            for n in range(first, min(first + per_conversation, items))
        ]
        for begin in range(0, len(batch), 50):
            pipeline.save("ann", name, batch[begin : begin + 50], fresh=begin == 0)
        if first and first % (items // 5 or 1) < per_conversation:
            say(f"filled {first:,} of {items:,}")
    return ids


def used_memory(client: Any) -> int:
    return int(client.info("memory")["used_memory"])
