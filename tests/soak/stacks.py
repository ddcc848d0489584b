"""What the campaign runs against: Blotter as `blotter up` runs it, and two rivals under the same supervisor.

Servers are ours: killed and started by the nemesis, Postgres and the buffer behind a wire that it cuts. The programs are
started, and started again, by `blotter up`, as in production.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from models.pipeline.service import Pipeline
from models.postgres.migrate import upgrade
from models.settings import load
from tests.acceptance.up import Up
from tests.acceptance.webserver import SECRET
from tests.servers import Running, RunningPostgres, private_directory, start_postgres, start_valkey
from tests.soak import disk
from tests.soak.disk import Disk
from tests.soak.wire import wires

RIVALS = Path(__file__).with_name("rivals")
PARTITIONS = 4
#: Short, so that conversations go cold, replies are settled and leave, all within one campaign.
SETTINGS = {
    "BLOTTER_PARTITIONS": str(PARTITIONS),
    "BLOTTER_STALE_SECONDS": "15",
    "BLOTTER_IDLE_SECONDS": "5",
    "BLOTTER_MIN_IDLE_SECONDS": "2",
    "BLOTTER_AUTOSAVE_SECONDS": "5",
    "BLOTTER_OWNER_REQUESTS_PER_MINUTE": "0",
    "BLOTTER_LOG_LEVEL": "WARNING",
    "WEB_CONCURRENCY": "2",
    "WORKER_CONCURRENCY": "2",
    "C_FORCE_ROOT": "1",
}


@dataclass
class Stack:
    """Servers and programs. What a rival lacks is None, or not in ``parts``."""

    name: str
    folder: Path
    up: Up
    port: int
    parts: frozenset[str]
    postgres: RunningPostgres
    database_url: str
    postgres_wire: Any
    broker: Running | None = None
    buffer: Running | None = None
    buffer_wire: Any = None
    #: Under the buffer's append-only file, where it can be had.
    disk: Disk | None = None
    #: Blotter's own hands, past the wires.
    pipeline: Pipeline | None = None
    environ: dict[str, str] = field(default_factory=dict)

    def pid(self, part: str) -> int:
        return self.up.pid(part)

    def children(self, part: str) -> list[psutil.Process]:
        """The processes that do the work of a part."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid(part)).children() if self.pid(part) else []
            return [child for child in found if self._works(child)]
        return []

    @staticmethod
    def _works(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(
                process.cmdline()
            )
        return False

    def texts(self) -> dict[tuple[str, str, str], str]:
        """What Postgres holds: (owner, conversation, message) → text. Asked of Postgres alone."""
        statement = (
            "SELECT c.owner, c.id, m.id, m.content FROM messages m JOIN conversations c USING (conversation_uid)"
            if self.name == "blotter"
            else "SELECT owner, conversation, id, content FROM saved"
        )
        with psycopg.connect(self.database_url, connect_timeout=5) as connection:
            rows = connection.execute(statement).fetchall()
        return {(owner, chat, message): text or "" for owner, chat, message, text in rows}


def _drained(up: Up, log: Path) -> None:
    """What it says goes to a file: a full pipe would stop it."""

    def copy() -> None:
        assert up.process.stderr is not None
        with log.open("w") as file, up.process.stderr as said, contextlib.suppress(ValueError):
            for line in said:
                file.write(line)
                file.flush()

    threading.Thread(target=copy, daemon=True).start()


@contextlib.contextmanager
def _running(up: Up, log: Path) -> Iterator[dict[str, str]]:
    try:
        _drained(up, log)
        yield up.wait_ready(90)
    finally:
        if up.process.poll() is None:
            try:
                up.end()
            except subprocess.TimeoutExpired:
                up.process.kill()
                up.process.wait()


@contextlib.contextmanager
def blotter(fsync: str = "always") -> Iterator[Stack]:
    """Blotter, whole. ``fsync``: the buffer's appendfsync."""
    with (
        private_directory() as folder,
        _buffer(folder, fsync) as (buffer, floor),
        start_valkey(folder, role="broker") as broker,
        start_postgres(folder) as postgres,
        postgres.new_database() as database_url,
        wires(postgres.port, buffer.port) as (postgres_wire, buffer_wire),
    ):
        upgrade(database_url)
        environ = {
            **SETTINGS,
            "DATABASE_URL": database_url.replace(f":{postgres.port}/", f":{postgres_wire.listens_on()}/"),
            "REDIS_URL": buffer.url.replace(f":{buffer.port}/", f":{buffer_wire.listens_on()}/"),
            "CELERY_BROKER_URL": broker.url,
            "BLOTTER_JWT_SECRET": SECRET,
            "BLOTTER_FSYNC": fsync,
        }
        up = Up(folder / "up", None, environ)
        settings = load({**environ, "REDIS_URL": buffer.url, "DATABASE_URL": database_url})
        with _running(up, folder / "up.log") as published:
            pipeline = Pipeline.connect(settings, role="web", ring=lambda number: None)
            try:
                yield Stack(
                    "blotter", folder, up, _port(published), frozenset({"web", "worker", "beat", "events"}),
                    postgres, database_url, postgres_wire, broker, buffer, buffer_wire, floor, pipeline,
                    {**up_environ(folder), **environ},
                )  # fmt: skip
            finally:
                pipeline.close()


@contextlib.contextmanager
def _buffer(folder: Path, fsync: str) -> Iterator[tuple[Running, Disk | None]]:
    """On a disk that forgets what was not fsynced, with an append-only file that is often written anew."""
    floor = None if disk.why_not() else Disk(folder)
    environ = floor.environ if floor else {}
    often = {"auto_aof_rewrite_min_size": "4mb"}
    with start_valkey(folder, environ=environ, maxmemory="2gb", appendfsync=fsync, **often) as server:
        yield server, floor


@contextlib.contextmanager
def rival(name: str) -> Iterator[Stack]:
    """`flask`: upserts into Postgres within the request. `celery`: a task for each save."""
    with (
        private_directory() as folder,
        start_postgres(folder) as postgres,
        postgres.new_database() as database_url,
        wires(postgres.port) as (postgres_wire,),
        contextlib.ExitStack() as stack,
    ):
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute((RIVALS / "schema.sql").read_bytes())
        broker = stack.enter_context(start_valkey(folder, role="broker")) if name == "celery" else None
        environ = {
            **SETTINGS,
            "DATABASE_URL": database_url.replace(f":{postgres.port}/", f":{postgres_wire.listens_on()}/"),
            # The supervisor starts servers that nobody names; these rivals have no buffer.
            "REDIS_URL": "redis://127.0.0.1:1/0",
            "CELERY_BROKER_URL": broker.url if broker else "redis://127.0.0.1:1/0",
            "BLOTTER_JWT_SECRET": SECRET,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        up = Up(folder / "up", RIVALS / f"Procfile.{name}", environ)
        with _running(up, folder / "up.log") as published:
            parts = frozenset({"web", "worker"} if broker else {"web"})
            yield Stack(
                name, folder, up, _port(published), parts, postgres, database_url, postgres_wire, broker,
            )  # fmt: skip


def up_environ(folder: Path) -> dict[str, str]:
    """For a program started beside those of `blotter up`."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "BLOTTER_BEAT_SCHEDULE": str(folder / "second-beat-schedule"),
    }


def _port(published: dict[str, str]) -> int:
    return int(published["BASE_URL"].rpartition(":")[2])
