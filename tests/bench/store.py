"""Rows 4 and 5: writing to Postgres, against a COPY into an unlogged table: no WAL, no index, no fence."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

import psycopg

from models.core.records import Message
from models.pipeline.crew import Crew
from models.postgres.store import Store
from models.settings import load
from tests.bench.frame import Bench, Figure, at_least, ratio, timed
from tests.bench.stack import Stack, fill, stack
from tests.bench.text import prose
from tests.postgres.bench_upserts import COLUMNS, SHAPE, batch_of, plain_lines, prose as parts_of_prose

ROWS = (4, 5)
BATCH = 500
SIZE = 2048
#: Processes that drain: WORKER_CONCURRENCY's default.
DRAINERS = 2


def run(bench: Bench, rows: set[int]) -> Iterator[Figure]:
    if 4 in rows:
        with stack() as servers:
            yield from _upserts(bench, servers)
    if 5 in rows:
        # A stack of its own: what row 4 left behind would be vacuumed and checkpointed meanwhile.
        with stack() as servers:
            yield from _drains(bench, servers)


# ---------------------------------------------------------------- row 4
def _upserts(bench: Bench, servers: Stack) -> Iterator[Figure]:
    store = Store.open(servers.settings, role="worker")
    batches = bench.pick(2, 8)
    with psycopg.connect(servers.database_url) as connection:
        connection.execute("CREATE UNLOGGED TABLE plain (LIKE messages)")
        connection.commit()

        def upsert() -> float:
            given = [batch_of(BATCH, parts_of_prose) for _ in range(batches)]
            with timed() as took:
                for batch in given:
                    store.write(batch)
            return BATCH * batches / took()

        def copy() -> float:
            given = [batch_of(BATCH, parts_of_prose) for _ in range(batches)]
            with timed() as took:
                for batch in given:
                    copy_records(connection, batch)
            return BATCH * batches / took()

        def copy_lines() -> float:
            given = [plain_lines(batch_of(BATCH, parts_of_prose)) for _ in range(batches)]
            with timed() as took:
                for lines in given:
                    with (
                        connection.cursor() as cursor,
                        cursor.copy(f"COPY plain ({COLUMNS}) FROM STDIN") as sink,
                    ):
                        sink.write(lines)
                    connection.commit()
            return BATCH * batches / took()

        found = bench.in_turn(
            "row 4", bench.pick(1, 7), {"upsert": upsert, "copy": copy, "copy of lines": copy_lines}
        )
    store.close()
    yield ratio(
        4, f"upsert of {BATCH} rows of 2 KB / plain COPY, unlogged, rows/s", found["upsert"], found["copy"],
        labels=("upsert", "copy"), target=at_least(0.85),
        notes={"both": "from the same records in Python, commit included"},
    )  # fmt: skip
    yield ratio(
        4, "the same / COPY of lines made beforehand", found["upsert"], found["copy of lines"],
        labels=("upsert", "copy of lines"), notes={"copy": "making the text from records is not counted"},
    )  # fmt: skip


_TIMES = [field.name.endswith("_ms") for field in SHAPE.fields]


def copy_records(connection: psycopg.Connection[Any], records: Sequence[Message]) -> None:
    """Records by psycopg's COPY into the table ``plain``, committed."""
    with connection.cursor() as cursor, cursor.copy(f"COPY plain ({COLUMNS}) FROM STDIN") as copy:
        for record in records:
            copy.write_row([
                datetime.fromtimestamp(value / 1000, UTC) if is_time and value is not None
                else list(value) if isinstance(value, tuple) else value
                for value, is_time in zip((getattr(record, n) for n in SHAPE.names), _TIMES, strict=True)
            ])  # fmt: skip
    connection.commit()


# ---------------------------------------------------------------- row 5
def _drains(bench: Bench, servers: Stack) -> Iterator[Figure]:
    items = bench.pick(300, 100_000)
    with psycopg.connect(servers.database_url) as connection:
        connection.execute("CREATE UNLOGGED TABLE plain (LIKE messages)")
        connection.commit()

        def drain(processes: int) -> float:
            servers.empty()
            with servers.pipeline() as pipeline:
                fill(pipeline, items, size=SIZE, say=bench.say)
            connection.execute("CHECKPOINT")
            connection.commit()
            took = drain_by(servers, processes)
            with servers.crew() as crew:
                assert crew.standing().done, crew.standing()
            stored = connection.execute("SELECT count(*) FROM messages").fetchone()
            connection.commit()
            assert stored == (items,), stored
            return items / took

        def copy() -> float:
            connection.execute("TRUNCATE plain")
            connection.commit()
            uid = batch_of(1, parts_of_prose)[0].conversation_uid
            took = 0.0
            for first in range(0, items, BATCH):
                batch = [
                    message_like(uid, n, prose(n, SIZE)) for n in range(first, min(first + BATCH, items))
                ]
                began = time.perf_counter()
                copy_records(connection, batch)
                took += time.perf_counter() - began
            return items / took

        ways = {"drain": lambda: drain(DRAINERS), "copy": copy}
        if bench.size == "full":
            ways["drain by one"] = lambda: drain(1)
        found = bench.in_turn("row 5", bench.pick(1, 3), ways, warm_up=False)
    yield ratio(
        5, f"drain of {items:,} dirty items / plain COPY of the same rows, items/s", found["drain"], found["copy"],
        labels=("drain", "copy"), target=at_least(0.4), stretch=at_least(0.6),
        notes={"processes": DRAINERS, "characters": SIZE, "copy": f"one connection, a commit each {BATCH} rows"},
    )  # fmt: skip
    if "drain by one" in found:
        yield ratio(
            5, "the same by one process", found["drain by one"], found["copy"], labels=("drain", "copy"),
        )  # fmt: skip


def message_like(uid: Any, number: int, text: str) -> Message:
    """What `fill` saves, as the store would get it."""
    now_ms = 1_763_800_000_000
    return Message(
        conversation_uid=uid, id=f"m{number}", role="user", content=text, position=f"{now_ms * 1000 + number:020d}",
        status="complete", version=now_ms * 1000 + number, created_ms=now_ms, updated_ms=now_ms,
    )  # fmt: skip


def drain_by(servers: Stack, processes: int) -> float:
    """Seconds until ``processes`` have flushed all partitions between them."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for number in range(processes):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_drainer, args=(servers.environ, number, processes, theirs), daemon=True
        )
        process.start()
        pipes.append((process, ours))
    for _, pipe in pipes:
        assert pipe.recv() == "ready"
    with timed() as took:
        for _, pipe in pipes:
            pipe.send("go")
        for _, pipe in pipes:
            pipe.recv()
    for process, _ in pipes:
        process.join()
    return took()


def _drainer(environ: dict[str, str], number: int, of: int, pipe: Connection) -> None:
    crew = Crew.connect(load(environ), role="worker", ring=lambda number: None)
    crew.store.ping()
    mine = [keys.number for keys in crew.buffer.partitions if keys.number % of == number]
    pipe.send("ready")
    pipe.recv()
    while left := {count.number for count in crew.partitions.counts() if count.due} & set(mine):
        for partition in sorted(left):
            crew.flusher.flush(partition)
    pipe.send("done")
    crew.close()
