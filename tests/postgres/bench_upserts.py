"""Ways to upsert a batch, measured against each other: the figures in models/postgres/upserts.py.

    .venv/bin/python -m tests.postgres.bench_upserts [ROWS …]

Starts a PostgreSQL of its own with production's settings. Messages of 2 KB, one transaction a batch, variants take
turns. Printed: the time of a batch, commit included (the faster quartile), and the CPU time it cost in this process and
in its server process, which the neighbours on a machine disturb less.
"""

from __future__ import annotations

import os
import random
import string
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
from sqlalchemy.engine import Engine

from models.core.records import Message
from models.postgres import migrate
from models.postgres.engine import make_engine
from models.postgres.rows import SHAPES
from models.postgres.store import Store
from models.postgres.transactions import reading
from models.postgres.upserts import _UPSERTS
from models.settings import load
from tests.postgres.examples import CREATED_MS, message, new_uid
from tests.servers import start_postgres

SHAPE = SHAPES["m"]
COLUMNS = ", ".join(field.column for field in SHAPE.fields)
WORDS = ["".join(random.choices(string.ascii_lowercase, k=random.randint(2, 9))) for _ in range(3000)]
TIME = "2025-11-22 10:00:00.123+00"
FROM_MS = "timestamptz 'epoch' + given.{} * interval '1 millisecond'"


class Way(NamedTuple):
    """``prepare`` is not counted; ``pid`` is the server process that works for it."""

    name: str
    pid: int
    write: Callable[[Any], object]
    prepare: Callable[[Sequence[Message]], Any] = list


def prose() -> str:
    return msgspec.json.encode([{"type": "text", "text": " ".join(random.choices(WORDS, k=320))}]).decode()


def tool_call() -> str:
    """JSON that holds JSON: all quotes and backslashes, as tools' arguments are."""
    arguments = {word: f'"{word}"\n' for word in random.choices(WORDS, k=100)}
    return msgspec.json.encode(
        [{"type": "tool-search", "input": msgspec.json.encode(arguments).decode()}]
    ).decode()


def batch_of(count: int, parts: Callable[[], str]) -> list[Message]:
    uids = [new_uid() for _ in range(max(1, count // 20))]
    return [
        message(
            random.choice(uids),
            f"msg-{random.getrandbits(64):x}",
            version=7,
            revision=3,
            parts=parts(),
            metadata='{"model":"m"}',
            tool_result_ids=("call.1",),
        )
        for _ in range(count)
    ]


def in_order(batch: Sequence[Message]) -> list[Message]:
    return sorted(batch, key=lambda row: (row.conversation_uid, row.id))


def statement(source: str, *, times_in_ms: bool = True) -> str:
    """Our own upsert, with the rows from elsewhere: columns by the fields' names, lists as lists."""
    ours = _UPSERTS["m"]
    insert = ours[: ours.index(" SELECT")]
    conflict = ours[ours.index(" ON CONFLICT") :]
    values = [
        FROM_MS.format(field.name)
        if field.type == "timestamptz" and times_in_ms
        else f"given.{field.name}" + ("::json" if field.type == "json" else "")
        for field in SHAPE.fields
    ]
    return f"{insert} SELECT {', '.join(values)} FROM {source}{conflict}"


def copy_text(value: Any) -> str:
    if value is None:
        return r"\N"
    if isinstance(value, tuple):
        return "{" + ",".join(f'"{item}"' for item in value) + "}"
    text = str(value)
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def copy_lines(batch: Sequence[Message]) -> str:
    rows = ([getattr(row, name) for name in SHAPE.names] for row in in_order(batch))
    return "".join("\t".join(map(copy_text, values)) + "\n" for values in rows)


def plain_lines(batch: Sequence[Message]) -> str:
    return copy_lines(batch).replace(str(CREATED_MS + 7), TIME).replace(str(CREATED_MS), TIME)


def ways(url: str, engine: Engine) -> list[Way]:
    store = Store(engine)
    with reading(engine) as pooled:
        # The pool hands out the same one to a single thread.
        pid = pooled.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    connections = [psycopg.connect(url) for _ in range(4)]
    by_json, by_copy, by_rows, plain = connections
    carriers = ", ".join(f"{field.name} {field.carrier}" for field in SHAPE.fields)
    by_copy.execute(f"CREATE TEMP TABLE staging ({carriers}) ON COMMIT DELETE ROWS")
    by_copy.commit()
    plain.execute("CREATE UNLOGGED TABLE plain (LIKE messages)")
    plain.commit()
    recordset = statement(f"json_to_recordset(%s::json) AS given ({carriers})")
    staged = statement("staging AS given ORDER BY conversation_uid, id")
    one = ", ".join(f"%s::{field.carrier} AS {field.name}" for field in SHAPE.fields)
    single = statement(f"(SELECT {one}) AS given WHERE true")

    def write_json(batch: Sequence[Message]) -> None:
        by_json.execute(recordset, (msgspec.json.encode(in_order(batch)).decode(),)).fetchall()
        by_json.commit()

    def write_copy(batch: Sequence[Message]) -> None:
        with by_copy.cursor() as cursor:
            with cursor.copy("COPY staging FROM STDIN") as copy:
                copy.write(copy_lines(batch))
            cursor.execute(staged).fetchall()
        by_copy.commit()

    def write_rows(batch: Sequence[Message]) -> None:
        rows = [[getattr(row, name) for name in SHAPE.names] for row in in_order(batch)]
        values = [[list(v) if isinstance(v, tuple) else v for v in row] for row in rows]
        with by_rows.cursor() as cursor:
            cursor.executemany(single, values, returning=True)
        by_rows.commit()

    def write_plain(lines: str) -> None:
        with plain.cursor() as cursor, cursor.copy(f"COPY plain ({COLUMNS}) FROM STDIN") as copy:
            copy.write(lines)
        plain.commit()

    return [
        Way("Store.write", pid, store.write),
        Way("json_to_recordset", by_json.info.backend_pid, write_json),
        Way("COPY to temp table", by_copy.info.backend_pid, write_copy),
        Way("executemany, pipelined", by_rows.info.backend_pid, write_rows),
        Way("COPY, unlogged, no fence", plain.info.backend_pid, write_plain, plain_lines),
    ]


def cpu_ms(pid: int) -> float:
    """CPU time of a process of this machine (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def main(counts: list[int]) -> None:
    with start_postgres() as server, server.new_database() as url:
        migrate.upgrade(url)
        engine = make_engine(url, role="worker", settings=load({"DATABASE_URL": url}))
        all_ways = ways(url, engine)
        for parts in (prose, tool_call):
            for count in counts:
                repeats = max(30, min(1000, 10_000 // count))
                times: dict[str, list[float]] = {way.name: [] for way in all_ways}
                client = dict.fromkeys(times, 0.0)
                before = {way.name: cpu_ms(way.pid) for way in all_ways}
                for _ in range(repeats):
                    for way in all_ways:
                        payload = way.prepare(batch_of(count, parts))
                        begun, begun_cpu = time.perf_counter(), time.process_time()
                        way.write(payload)
                        times[way.name].append(time.perf_counter() - begun)
                        client[way.name] += time.process_time() - begun_cpu
                for way in all_ways:
                    quartile = sorted(times[way.name])[repeats // 4] * 1000
                    ours = client[way.name] * 1000 / repeats
                    theirs = (cpu_ms(way.pid) - before[way.name]) / repeats
                    print(
                        f"{parts.__name__:9} {count:4} rows  {way.name:25} {quartile:7.2f} ms"
                        f"  CPU {ours:5.2f} + {theirs:5.2f} ms  {count / quartile * 1000:7,.0f} rows/s"
                    )
        engine.dispose()


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [1, 10, 50, 256, 500])
