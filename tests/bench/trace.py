"""Row 12: an hour of a production conversation service, replayed faster, everything on this machine.

The trace: azure-llm-2023-conv.csv.gz (Azure/AzurePublicDataset, CC-BY; Patel et al., "Splitwise", ISCA 2024): when
requests came, how many tokens they brought and got. It is looked for in the folder that BLOTTER_TEST_DATA names, then in
../shared/data; where it is missing, a stand-in is drawn from distributions fitted to it, and the figures say so.

A token counts for 4 characters. Arrivals come `speed` times faster than in the trace; a reply streams at 30 tokens/s
whatever the speed. A request is a conversation of its own: the user's message (all it brought), the reply's stub, an append
each 100 characters, the last of them complete. An append leaves at its time or when the one before is answered, whichever
is later. Lateness: how long after its due time a row was committed, seen by looking at the due index ten times a second;
rows never seen overdue were in time to a tenth of a second.
"""

from __future__ import annotations

import csv
import gzip
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
import psycopg

from models.buffer.partitions import Partitions
from models.identity import conversation_uid
from tests.acceptance.webserver import token
from tests.bench.frame import Bench, Figure, Target, at_most, percentile
from tests.bench.load import Result, Step, open_loop, request
from tests.bench.stack import CHECKOUT, Stack, cpu_s, stack
from tests.bench.text import prose

ROWS = (12,)
NAME = "azure-llm-2023-conv.csv.gz"
CHARACTERS_A_TOKEN = 4
TOKENS_A_SECOND = 30
STEP = 100
SPEED = 20
#: The speeds tried by the full run, to find the highest that holds.
SPEEDS = (5, 10, 15, 20, 25, 30, 40)
ACKNOWLEDGED_MS, LATE_MS = 50.0, 3000.0
#: What of the buffer's fsyncs is a stall of the disk.
STALL_MS = 10


class Arrival(NamedTuple):
    """``at_s`` since the trace began; characters."""

    at_s: float
    question: int
    reply: int


class Held(NamedTuple):
    """What one replay gave."""

    speed: float
    conversations: int
    result: Result
    lost: int
    late_p99_ms: float
    rows: int
    #: Program -> CPU time a request, µs, of all cores.
    cpu_us: Mapping[str, int]
    #: Fsyncs of the buffer's append-only file that took STALL_MS or more, and all their milliseconds.
    stalls: tuple[int, int]

    def __str__(self) -> str:
        count, ms = self.stalls
        return (
            f"lost {self.lost}, acknowledgement p50 {self.result.p50:.1f} ms, p99 {self.result.p99:.1f} ms,"
            f" late p99 {self.late_p99_ms / 1000:.1f} s, {count} slow fsyncs of {ms} ms in all"
        )

    @property
    def holds(self) -> bool:
        return self.lost == 0 and self.result.p99 <= ACKNOWLEDGED_MS and self.late_p99_ms <= LATE_MS


def trace() -> tuple[list[Arrival], str]:
    """The arrivals, and where they are from."""
    for folder in (os.environ.get("BLOTTER_TEST_DATA"), CHECKOUT.parent / "shared" / "data"):
        if folder and (path := Path(folder) / NAME).exists():
            with gzip.open(path, "rt") as file:
                return _read(csv.DictReader(file)), NAME
    return _stand_in(), "a stand-in: the trace is missing here"


def _read(rows: Iterator[dict[str, str]] | csv.DictReader[str]) -> list[Arrival]:
    arrivals, first = [], 0.0
    for row in rows:
        at_s = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
        first = first or at_s
        arrivals.append(
            Arrival(
                at_s - first,
                int(row["ContextTokens"]) * CHARACTERS_A_TOKEN,
                int(row["GeneratedTokens"]) * CHARACTERS_A_TOKEN,
            )
        )
    return arrivals


def _stand_in() -> list[Arrival]:
    """As many arrivals in as long; sizes log-normal with the trace's mean and deviation of logarithms, cut at its ends."""
    chance = random.Random(2023)
    arrivals, at_s = [], 0.0
    for _ in range(19_366):
        at_s += chance.expovariate(19_366 / 3_502)
        question = min(14_050, max(2, round(chance.lognormvariate(6.63, 0.985))))
        reply = min(1_000, max(7, round(chance.lognormvariate(5.02, 0.859))))
        arrivals.append(Arrival(at_s, question * CHARACTERS_A_TOKEN, reply * CHARACTERS_A_TOKEN))
    return arrivals


def run(bench: Bench, rows: set[int]) -> Iterator[Figure]:
    arrivals, source = trace()
    seconds = bench.pick(2.0, 45.0, 180.0)
    bench.say(f"row 12: {len(arrivals):,} arrivals of {source}, ×{SPEED}, {seconds:.0f} s")
    with ExitStack() as programs:
        servers = programs.enter_context(stack())
        running = {name: programs.enter_context(servers.program(name)) for name in ("web", "worker", "beat")}
        web = running["web"]
        pids = {name: one.pid for name, one in running.items()}
        pids |= {"buffer": servers.valkey.pid, "broker": servers.broker.pid, "Postgres": servers.postgres.pid}
        # Short replies: their tail is waited for.
        brief = [one for one in arrivals if one.reply < 500]
        replay(bench, servers, web.url, pids, brief, SPEED, min(seconds, 5.0), "warm")
        held = replay(bench, servers, web.url, pids, arrivals, SPEED, seconds, "r")
        yield from _figures(held, source, seconds)
        if bench.size == "full":
            highest = 0.0
            for speed in SPEEDS:
                bench.say(f"row 12: ×{speed}")
                tried = replay(bench, servers, web.url, pids, arrivals, speed, 60.0, f"s{speed}")
                bench.say(f"row 12: ×{speed} {'holds' if tried.holds else 'does not hold'}: {tried}")
                if not tried.holds:
                    break
                highest = float(speed)
            yield Figure(
                12, "highest speed of the trace that holds", highest, "×", notes={"tried": list(SPEEDS), "s each": 60}
            )  # fmt: skip


def _figures(held: Held, source: str, seconds: float) -> Iterator[Figure]:
    notes = {
        "source": source,
        "seconds": seconds,
        "conversations": held.conversations,
        "requests": held.result.requests,
        "rows committed": held.rows,
        "load generator, share of a core": held.result.cpu,
        "acknowledgement p50 ms": round(held.result.p50, 2),
        "CPU a request, µs": held.cpu_us,
        f"fsyncs of {STALL_MS} ms or more, count and ms": held.stalls,
        "cores for everything": len(os.sched_getaffinity(0)),
    }
    figures: tuple[tuple[str, float, str, Target], ...] = (
        ("items lost", float(held.lost), "items", at_most(0)),
        ("acknowledgement, p99", held.result.p99, "ms", at_most(ACKNOWLEDGED_MS)),
        ("lateness beyond due, p99", held.late_p99_ms, "ms", at_most(LATE_MS)),
    )
    for name, value, unit, target in figures:
        yield Figure(
            12, f"trace ×{held.speed:g}: {name}", value, unit, target, samples={unit: [value]}, notes=notes
        )


def replay(
    bench: Bench,
    servers: Stack,
    url: str,
    pids: Mapping[str, int],
    arrivals: Sequence[Arrival],
    speed: float,
    seconds: float,
    tag: str,
) -> Held:
    """Play ``seconds`` of it, wait until all is stored, compare. ``pids``: whose CPU time is told."""
    chosen = [one for one in arrivals if one.at_s / speed < seconds]
    with _Lateness(servers) as lateness, servers.pipeline() as pipeline:
        before = Partitions(pipeline.buffer).counters().get("rows", 0)
        used_s = {name: cpu_s(pid) for name, pid in pids.items()}
        client: Any = pipeline.buffer.client
        client.config_set("latency-monitor-threshold", STALL_MS)
        client.execute_command("LATENCY", "RESET")
        result: Result = bench.elsewhere(play, url, token("ann"), tag, chosen, speed)
        deadline = time.monotonic() + 120
        while pipeline.figures()["dirtyItems"]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        counted = Partitions(pipeline.buffer).counters().get("rows", 0) - before
        cpu_us = {
            name: round((cpu_s(pid) - used_s[name]) / result.requests * 1e6) for name, pid in pids.items()
        }
        stalls = _stalls(client)
    return Held(
        speed,
        len(chosen),
        result,
        _lost(servers.database_url, chosen, tag),
        lateness.p99(counted),
        counted,
        cpu_us,
        stalls,
    )


def _stalls(client: Any) -> tuple[int, int]:
    """Since LATENCY RESET. Of an event: name, when, latest, most, and since Valkey 8.1 the sum and the count."""
    found = {event[0]: event for event in client.execute_command("LATENCY", "LATEST")}
    event = found.get(b"aof-fsync-always")
    return (0, 0) if event is None or len(event) < 6 else (int(event[5]), int(event[4]))


def play(url: str, pass_: str, tag: str, arrivals: Sequence[Arrival], speed: float) -> Result:
    """In the load generator's process."""

    def session(number: int, arrival: Arrival) -> Iterator[Step]:
        stem = f"/api/conversations/{tag}{number}/messages"
        at_s = arrival.at_s / speed

        def post(body: dict[str, Any]) -> Step:
            return Step(at_s, request(url, pass_, "POST", stem, orjson.dumps(body)))

        yield post({"id": "q", "role": "user", "content": prose(number, arrival.question)})
        yield post({"id": "r", "role": "assistant", "content": "", "status": "streaming"})
        text = prose(number + 1, arrival.reply)
        for offset in range(0, arrival.reply, STEP):
            end = min(offset + STEP, arrival.reply)
            body: dict[str, Any] = {"append": {"offset": offset, "text": text[offset:end]}}
            if end == arrival.reply:
                body["status"] = "complete"
            yield Step(
                at_s + end / CHARACTERS_A_TOKEN / TOKENS_A_SECOND,
                request(url, pass_, "PATCH", f"{stem}/r", orjson.dumps(body)),
            )

    return open_loop(
        url, ((one.at_s / speed, session(number, one)) for number, one in enumerate(arrivals)), 256
    )


def _lost(database_url: str, arrivals: Sequence[Arrival], tag: str) -> int:
    """Items that Postgres does not hold as they were acknowledged."""
    with psycopg.connect(database_url) as connection:
        stored = {
            (uid, name): (content, status)
            for uid, name, content, status in connection.execute(
                "SELECT m.conversation_uid, m.id, m.content, m.status FROM messages m"
                " JOIN conversations c ON c.conversation_uid = m.conversation_uid WHERE c.id LIKE %s",
                (f"{tag}%",),
            )
        }
    lost = 0
    for number, one in enumerate(arrivals):
        uid = conversation_uid("ann", f"{tag}{number}")
        for name, text in (("q", prose(number, one.question)), ("r", prose(number + 1, one.reply))):
            lost += stored.get((uid, name)) != (text, "complete")
    return lost


class _Lateness:
    """Watches the due index; for each due entry how late it was when it was last seen."""

    def __init__(self, servers: Stack) -> None:
        self._servers = servers
        self._over = threading.Event()
        self._late: dict[tuple[bytes, float], float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        with self._servers.pipeline() as pipeline:
            keys = [one.due for one in pipeline.buffer.partitions]
            client = pipeline.buffer.client
            while not self._over.wait(0.1):
                seconds, micros = client.time()
                now_ms = int(seconds) * 1000 + int(micros) // 1000
                with client.pipeline(transaction=False) as pipe:
                    for key in keys:
                        pipe.zrangebyscore(key, "-inf", now_ms, withscores=True)
                    for found in pipe.execute():
                        for ref, due_ms in found:
                            self._late[ref, due_ms] = now_ms - due_ms

    def p99(self, rows: int) -> float:
        """Over all ``rows`` committed; those never seen overdue count as in time."""
        late = list(self._late.values())
        return percentile([0.0] * max(0, rows - len(late)) + late, 0.99)
