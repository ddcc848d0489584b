"""Row 14: Postgres comes back to a full buffer: what new saves feel of the drain."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from models.pipeline.service import Pipeline
from tests.acceptance.webserver import token
from tests.bench.frame import Bench, Figure, at_most, percentile, ratio
from tests.bench.load import steady
from tests.bench.stack import Stack, fill, stack

ROWS = (14,)
RATE = 200.0
SIZE = 500


def run(bench: Bench, rows: set[int]) -> Iterator[Figure]:
    items, rounds = bench.pick(200, 100_000), bench.pick(1, 3, 5)
    normal_s = bench.pick(1.0, 10.0)
    with ExitStack() as programs:
        servers = programs.enter_context(stack())
        web = programs.enter_context(servers.program("web"))
        for name in ("worker", "beat"):
            programs.enter_context(servers.program(name))
        pipeline = programs.enter_context(servers.pipeline())
        turn = 0
        drained_s: list[float] = []

        def saves(seconds: float) -> Any:
            nonlocal turn
            turn += 1
            return bench.start_elsewhere(steady, web.url, token("ann"), f"n{turn}", RATE, seconds, SIZE)

        def normal() -> list[float]:
            _settle(pipeline)
            return list(saves(normal_s).result().latencies)

        def draining() -> list[float]:
            _settle(pipeline)
            dirty = _outage(servers, pipeline, items, f"o{turn}", bench)
            began = time.monotonic()
            latencies: list[float] = []
            # Piece by piece, so that what is measured ends when the drain does.
            while pipeline.figures()["dirtyItems"] > dirty // 20 or not latencies:
                latencies += saves(bench.pick(0.5, 2.0)).result().latencies
            drained_s.append(round(time.monotonic() - began, 1))
            return latencies

        found = bench.in_turn("row 14", rounds, {"draining": draining, "normal": normal}, warm_up=False)
    yield ratio(
        14, f"p99 of new saves while {items:,} dirty items drain / normally",
        *([percentile(one, 0.99) for one in found[name]] for name in ("draining", "normal")),
        labels=("draining ms", "normal ms"), target=at_most(2),
        notes={
            "saves a second": RATE,
            "drained within s": drained_s,
            "p50 ms": {name: [round(percentile(one, 0.5), 2) for one in found[name]] for name in found},
            "saves": {name: [len(one) for one in found[name]] for name in found},
        },
    )  # fmt: skip


def _settle(pipeline: Pipeline) -> None:
    deadline = time.monotonic() + 120
    while pipeline.figures()["dirtyItems"]:
        assert time.monotonic() < deadline, pipeline.figures()
        time.sleep(0.1)


def _outage(servers: Stack, pipeline: Pipeline, items: int, tag: str, bench: Bench) -> int:
    """Postgres stops answering, `items` are saved meanwhile, it answers again. How many are dirty then."""
    servers.postgres.pause()
    try:
        # As a client's minted ids do: such conversations are hot from the start.
        fill(pipeline, items, size=SIZE, prefix=tag, say=bench.say)
    finally:
        servers.postgres.resume()
    return int(pipeline.figures()["dirtyItems"])
