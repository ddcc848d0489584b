"""Row 15: the same streamed replies through Chainlit's SQLAlchemy data layer and LangGraph's PostgresSaver.

Both from PyPI, in a virtual environment of their own (`make bench-full` makes it: build/bench/venv), each by a program there
(rival_programs.py) on an empty database of the same PostgreSQL. Their durability is Postgres' own, as ours in the end.
Without that environment the row is skipped and says so.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from models.core import commands
from tests.bench.frame import Bench, Figure
from tests.bench.stack import CHECKOUT, Stack, stack
from tests.bench.text import corpus, prose
from tests.bench.wal import PACE, STEP, hands

ROWS = (15,)
PYTHON = CHECKOUT / "build" / "bench" / "venv" / "bin" / "python"
PROGRAMS = Path(__file__).with_name("rival_programs.py")
CHARACTERS = 4_000
REPLIES = 10
RIVALS = {"chainlit": "Chainlit's SQLAlchemy data layer", "langgraph": "LangGraph's PostgresSaver"}


def run(bench: Bench, rows: set[int]) -> Iterator[Figure]:
    if not PYTHON.exists():
        yield Figure(
            15,
            "rivals",
            None,
            skipped=f"{PYTHON.parents[1].relative_to(CHECKOUT)} is not there: make bench-full",
        )
        return
    characters, rounds = bench.pick(400, CHARACTERS), bench.pick(1, 5)
    with stack(checkpoint_timeout="1h", max_wal_size="8GB") as servers:
        numbers = iter(range(1000))
        ways = {"Blotter": lambda: _blotter(servers, f"b{next(numbers)}", characters)}
        for name in RIVALS:
            ways[name] = lambda name=name: _rival(servers, name, next(numbers), characters)  # type: ignore[misc]
        found = bench.in_turn("row 15", rounds, ways)
    for name, results in found.items():
        title = RIVALS.get(name, name)
        for unit, key in (("bytes", "wal"), ("ms", "save_ms"), ("items", "kept")):
            what = {
                "wal": "WAL a reply",
                "save_ms": "time a save, median",
                "kept": "items kept of those saved",
            }[key]
            values = [float(one[key]) for one in results]
            yield Figure(
                15, f"{title}: {what}", statistics.median(values), unit, samples={unit: values},
                notes={"characters": characters, "a save every": STEP, "replies": REPLIES, **results[-1]["notes"]},
            )  # fmt: skip


def _lsn(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


def _rival(servers: Stack, name: str, number: int, characters: int) -> dict[str, Any]:
    """One program run: it makes its tables, saves REPLIES replies, reads them back."""
    with servers.postgres.new_database() as url:
        text = servers.folder / "corpus.txt"
        text.write_text(corpus()[: characters * REPLIES])
        done = subprocess.run(
            [str(PYTHON), str(PROGRAMS), name, url, str(text), str(characters), str(STEP), str(REPLIES)],
            stdout=subprocess.PIPE, text=True, check=True, timeout=300,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(servers.folder)}, cwd=servers.folder,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def _blotter(servers: Stack, tag: str, characters: int) -> dict[str, Any]:
    """In this process, without HTTP, as the rivals; at the pace of a reply, since coalescing rests on it."""
    took = []
    with hands(servers) as pipeline:
        chats = [f"{tag}-{n}" for n in range(REPLIES)]
        before = _lsn(servers.database_url)
        for chat in chats:
            question = commands.put("m", "q", {"role": "user", "content": "A question?"})
            stub = commands.put("m", "r", {"role": "assistant", "content": ""}, status="streaming")
            pipeline.save("ann", chat, [question, stub], fresh=True)
        began = time.monotonic()
        for offset in range(0, characters, STEP):
            for n, chat in enumerate(chats):
                at = began + (offset + STEP * (1 + n / REPLIES)) / PACE
                time.sleep(max(0.0, at - time.monotonic()))
                text = prose(n, characters)[offset : offset + STEP]
                last = "complete" if offset + STEP >= characters else None
                save = time.perf_counter()
                pipeline.save("ann", chat, [commands.Append("m", "r", offset, text, len(text), st=last)])
                took.append((time.perf_counter() - save) * 1000)
        deadline = time.monotonic() + 30
        while pipeline.figures()["dirtyItems"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        used = _lsn(servers.database_url) - before
        kept = 0
        for n, chat in enumerate(chats):
            stored = {
                m.id: m.content
                for m in pipeline.store.snapshot(pipeline.buffer.place("ann", chat).uid).messages
            }
            kept += ("q" in stored) + (stored.get("r") == prose(n, characters))
    return {
        "wal": used / REPLIES,
        "save_ms": statistics.median(took),
        "kept": kept / (2 * REPLIES),
        "notes": {},
    }
