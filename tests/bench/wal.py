"""Rows 6 and 7: what a streamed reply costs Postgres in WAL, against upserting the row at each save.

In real time, because the intervals between flushes are times: 200 characters a second, saved every 100. Several replies
stream at once, each in a conversation and mostly a partition of its own, and the WAL of all is divided by their number.
A thread of this process does what workers do: it flushes what was rung a window later, and sweeps. Checkpoints are put
off, since a page's first change after one is logged whole, for both sides alike.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg

from models.buffer.buffer import WINDOW_MS
from models.core import commands
from models.core.records import Message
from models.pipeline.crew import Crew
from models.pipeline.service import Pipeline
from models.postgres.store import Store
from tests.bench.frame import Bench, Figure, at_most, ratio
from tests.bench.stack import Stack, stack
from tests.bench.text import prose

ROWS = (6, 7)
PACE = 200
STEP = 100


def run(bench: Bench, rows: set[int]) -> Iterator[Figure]:
    jobs = []
    if 6 in rows:
        jobs.append((6, 4_000, "content", at_most(1 / 5), bench.pick(1, 3, 5)))
    if 7 in rows:
        rounds = bench.pick(1, 1, 3)
        jobs.append((7, 20_000, "content", at_most(1 / 12), rounds))
        jobs.append((7, 20_000, "parts", at_most(1 / 12), rounds))
    # Side by side on servers of their own: they mostly wait, and WAL is no time.
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(_streamed, bench, *job) for job in jobs]
        for future in futures:
            yield future.result()


def _streamed(bench: Bench, row: int, characters: int, shape: str, target: Any, rounds: int) -> Figure:
    characters = bench.pick(400, characters)
    replies = bench.pick(2, 16)
    with stack(checkpoint_timeout="1h", max_wal_size="8GB") as servers:
        with servers.pipeline() as quiet:
            store = quiet.store
            # The first pages of tables and indexes, and the catalogue's: not a reply's cost.
            _direct(servers, store, "warm", 400, shape, replies)
        numbers = iter(range(1000))
        found = bench.in_turn(
            f"row {row}, {characters:,} characters as {shape}",
            rounds,
            {
                "blotter": lambda: _by_blotter(servers, f"b{next(numbers)}", characters, shape, replies),
                "direct": lambda: _direct(servers, store, f"d{next(numbers)}", characters, shape, replies),
            },
            # Bytes, not time; and the tables are warm.
            warm_up=False,
        )
        store.close()
    return ratio(
        row, f"WAL of a reply of {characters:,} characters as {shape} / upsert of each save",
        found["blotter"], found["direct"], labels=("blotter bytes", "direct bytes"), target=target,
        notes={"replies at once": replies, "characters a second": PACE, "a save every": STEP},
    )  # fmt: skip


def _position(servers: Stack) -> int:
    with psycopg.connect(servers.database_url) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def hands(servers: Stack) -> Iterator[Pipeline]:
    """A pipeline whose bells are answered, and swept for, by a thread of this process."""
    rung: dict[int, float] = {}
    over = threading.Event()
    failures: list[BaseException] = []
    lock = threading.Lock()

    def ring(number: int) -> None:
        with lock:
            rung.setdefault(number, time.monotonic() + WINDOW_MS / 1000)

    crew = Crew.connect(servers.settings, role="worker", ring=ring)

    def work() -> None:
        try:
            swept = 0.0
            while not over.wait(0.01):
                now = time.monotonic()
                with lock:
                    ready = [number for number, at in rung.items() if at <= now]
                    for number in ready:
                        del rung[number]
                for number in ready:
                    crew.flusher.flush(number)
                if now - swept >= 1:
                    swept = now
                    crew.sweeper.sweep()
        except BaseException as error:
            failures.append(error)
            raise

    worker = threading.Thread(target=work, daemon=True)
    with servers.pipeline(ring) as pipeline:
        worker.start()
        try:
            yield pipeline
        finally:
            over.set()
            worker.join()
            crew.close()
    if failures:
        raise failures[0]


def _by_blotter(servers: Stack, tag: str, characters: int, shape: str, replies: int) -> float:
    """WAL bytes a reply, from its beginning until it is stored."""
    with hands(servers) as pipeline:
        chats = [f"{tag}-{n}" for n in range(replies)]
        before = _position(servers)
        part = None if shape == "content" else 0
        for chat in chats:
            fields: dict[str, Any] = {"role": "assistant"}
            fields |= {"content": ""} if part is None else {"parts": [{"type": "text", "text": ""}]}
            pipeline.save("ann", chat, [commands.put("m", "r", fields, status="streaming")], fresh=True)
        began = time.monotonic()
        for offset in range(0, characters, STEP):
            for n, chat in enumerate(chats):
                # Spread over the interval, as replies are.
                at = began + (offset + STEP * (1 + n / replies)) / PACE
                time.sleep(max(0.0, at - time.monotonic()))
                text = prose(n, characters)[offset : offset + STEP]
                last = offset + STEP >= characters
                step = commands.Append(
                    "m", "r", offset, text, len(text), part, st="complete" if last else None
                )
                pipeline.save("ann", chat, [step])
        deadline = time.monotonic() + 30
        while pipeline.figures()["dirtyItems"]:
            assert time.monotonic() < deadline, pipeline.figures()
            time.sleep(0.05)
        used = _position(servers) - before
        for n, chat in enumerate(chats):
            (stored,) = pipeline.store.snapshot(pipeline.buffer.place("ann", chat).uid).messages
            assert prose(n, characters) in msgspec.json.encode([stored.content, stored.parts]).decode()
    return used / replies


def _direct(servers: Stack, store: Store, tag: str, characters: int, shape: str, replies: int) -> float:
    """The same, each save an upsert of the whole row and a commit, by the same statement."""
    import uuid

    uids = [uuid.uuid5(uuid.NAMESPACE_OID, f"{tag}-{n}") for n in range(replies)]
    before = _position(servers)
    for save, end in enumerate(range(STEP, characters + 1, STEP)):
        for n, uid in enumerate(uids):
            store.write([_row(uid, save, prose(n, characters)[:end], shape, end >= characters)])
    return (_position(servers) - before) / replies


def _row(uid: Any, save: int, text: str, shape: str, last: bool) -> Message:
    now_ms = 1_763_800_000_000
    body: dict[str, Any] = (
        {"content": text}
        if shape == "content"
        else {"parts": msgspec.json.encode([{"type": "text", "text": text}]).decode()}
    )
    return Message(
        conversation_uid=uid, id="r", role="assistant", position="1", status="complete" if last else "streaming",
        version=save + 1, created_ms=now_ms, updated_ms=now_ms + save * 500, **body,
    )  # fmt: skip
