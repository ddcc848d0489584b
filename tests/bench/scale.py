"""Rows 9 and 10: whether saves and sweeps get dearer as the buffer fills, and what an item costs it in memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing

from models.core import commands
from models.pipeline.crew import Crew
from models.pipeline.service import Pipeline
from models.settings import load
from tests.bench.frame import Bench, Figure, at_most, ratio, timed
from tests.bench.stack import Stack, fill, stack, used_memory
from tests.bench.store import drain_by
from tests.bench.text import prose

ROWS = (9, 10)
SIZE = 200
PER_CONVERSATION = 50
FEW = 1_000
OVERDUE = 100


def run(bench: Bench, rows: set[int]) -> Iterator[Figure]:
    many = bench.pick(1_500, 100_000, 1_000_000)
    with stack() as servers, servers.pipeline() as pipeline:
        client = pipeline.buffer.client
        empty = used_memory(client)
        fill(pipeline, many, size=SIZE, per_conversation=PER_CONVERSATION, say=bench.say)
        dirty = used_memory(client) - empty
        bench.say(f"rows 9, 10: draining {many:,}")
        drain_by(servers, 2)
        clean = used_memory(client) - empty
        if 10 in rows:
            yield Figure(
                10, f"Valkey's memory of an item beyond its {SIZE} characters, {PER_CONVERSATION} a conversation",
                clean / many - SIZE, "bytes", at_most(700), a=clean / many, b=float(SIZE),
                samples={"stored, still hot": [clean / many - SIZE], "not yet stored": [dirty / many - SIZE]},
                notes={"items": many, "not yet stored": round(dirty / many - SIZE)},
            )  # fmt: skip
        if 9 in rows:
            yield from _cost(bench, servers, pipeline, many)


def _cost(bench: Bench, servers: Stack, pipeline: Pipeline, many: int) -> Iterator[Figure]:
    saves, rounds = bench.pick(20, 400), bench.pick(1, 9)
    with stack() as small_servers, small_servers.pipeline() as small:
        fill(small, FEW, size=SIZE, per_conversation=PER_CONVERSATION)
        drain_by(small_servers, 1)
        turn = 0

        def measure(into: Pipeline) -> float:
            """Median of ms a save, one after the other, to a conversation known to be hot."""
            nonlocal turn
            turn += 1
            took = []
            for n in range(saves):
                put = commands.put("m", f"m{n}", {"role": "user", "content": prose(n, SIZE)})
                began = time.perf_counter()
                into.save("ann", f"s{turn}-{n // 50}", [put], fresh=n % 50 == 0)
                took.append(time.perf_counter() - began)
            return statistics.median(took) * 1000

        found = bench.in_turn(
            "row 9", rounds, {"many": lambda: measure(pipeline), "few": lambda: measure(small)}
        )
        yield ratio(
            9, f"a save with {many:,} hot items / with {FEW:,}", found["many"], found["few"],
            labels=("many ms", "few ms"), target=at_most(1.2), notes={"saves a sample": saves},
        )  # fmt: skip
    yield from _sweeps(bench, servers, pipeline, many)


def _sweeps(bench: Bench, servers: Stack, pipeline: Pipeline, many: int) -> Iterator[Figure]:
    drain_by(servers, 1)
    took, settled = [], []
    # What is silent for this long is settled here: two minutes are a matter of patience, not of cost.
    hasty = {**servers.environ, "BLOTTER_STALE_SECONDS": "0.05"}
    with (
        servers.crew() as crew,
        closing(Pipeline.connect(load(hasty), role="web", ring=lambda number: None)) as writer,
        closing(Crew.connect(load(hasty), role="worker", ring=lambda number: None)) as settler,
    ):
        crew.sweeper.sweep()
        settler.sweeper.sweep()
        for turn in range(bench.pick(2, 20)):
            for n in range(OVERDUE):
                put = commands.put("m", f"late{turn}", {"role": "user", "content": "late"})
                pipeline.save("ann", f"late{n}", [put], fresh=turn == 0)
            for keys in pipeline.buffer.partitions:
                pipeline.buffer.client.delete(keys.bell)
            with timed() as tick:
                swept = crew.sweeper.sweep()
            took.append(tick() * 1000)
            assert swept.rung, swept
            for n in range(OVERDUE):
                fields = {"role": "assistant", "content": "open"}
                writer.save("ann", f"late{n}", [commands.put("m", f"open{turn}", fields, status="streaming")])
            time.sleep(0.1)
            with timed() as tick:
                swept = settler.sweeper.sweep()
            settled.append(tick() * 1000)
            assert swept.settled, swept
    yield Figure(
        9, f"sweep tick with {many:,} hot items, {OVERDUE} overdue", statistics.median(took), "ms", at_most(50),
        samples={"ms": took},
    )  # fmt: skip
    yield Figure(
        9, f"sweep tick that settles {OVERDUE} silent replies, {many:,} hot items", statistics.median(settled), "ms",
        samples={"ms": settled},
    )  # fmt: skip
