"""How cost grows with conversations, message length, writers and workers: measures, then draws tests/bench/plots/*.svg.

    python -m tests.bench.plots                  all of it (`make bench-env` first: matplotlib is in that environment)
    python -m tests.bench.plots --only writers   one curve; --quick: in miniature
    python -m tests.bench.plots --draw           only draw anew what was measured before

What was measured lies beside the drawings (curves.json), with the machine and its load. Points of one curve take turns like
everything here; a point is a median, the bars reach from the least to the most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from models.core import commands
from tests.acceptance.webserver import token
from tests.bench.cpu import stream
from tests.bench.frame import Bench, load_average, machine, progress, versions
from tests.bench.load import Wish, closed
from tests.bench.rivals import PYTHON
from tests.bench.stack import fill, stack
from tests.bench.store import drain_by
from tests.bench.text import prose

PLOTS = Path(__file__).with_name("plots")
CURVES = PLOTS / "curves.json"


def curve(title: str, x: str, y: str, lines: Mapping[str, Mapping[int, Sequence[float]]]) -> dict[str, Any]:
    """``lines``: name -> x -> samples."""
    return {
        "title": title,
        "x": x,
        "y": y,
        "lines": {
            name: [[at, min(found), statistics.median(found), max(found)] for at, found in sorted(points.items())]
            for name, points in lines.items()
        },
    }  # fmt: skip


def conversations(bench: Bench) -> dict[str, Any]:
    """A save, and a sweep's tick, as the buffer fills: stored conversations of 50 messages."""
    sizes = bench.pick(
        [100, 300], [1_000, 3_000, 10_000, 30_000, 100_000], [1_000, 10_000, 100_000, 1_000_000]
    )
    saves: dict[int, list[float]] = {}
    ticks: dict[int, list[float]] = {}
    with stack() as servers, servers.pipeline() as pipeline, servers.crew() as crew:
        there = 0
        for size in sizes:
            bench.say(f"conversations: {size:,} items")
            fill(pipeline, size - there, size=200, prefix=f"to{size}-")
            there = size
            drain_by(servers, 1)
            crew.sweeper.sweep()
            for turn in range(bench.pick(2, 7)):
                took = []
                for n in range(bench.pick(20, 200)):
                    put = commands.put("m", f"m{n}", {"role": "user", "content": prose(n, 200)})
                    began = time.perf_counter()
                    pipeline.save("ann", f"at{size}-{turn}-{n // 50}", [put], fresh=n % 50 == 0)
                    took.append((time.perf_counter() - began) * 1000)
                saves.setdefault(size, []).append(statistics.median(took))
                began = time.perf_counter()
                crew.sweeper.sweep()
                ticks.setdefault(size, []).append((time.perf_counter() - began) * 1000)
    return curve(
        "Cost against what is hot", "items in the buffer", "ms", {"a save": saves, "a sweep's tick": ticks}
    )


def length(bench: Bench) -> dict[str, Any]:
    """CPU of an appended kilobyte as the reply it belongs to gets longer."""
    lengths = bench.pick(
        [1_000, 2_000], [2_000, 10_000, 50_000, 200_000], [2_000, 10_000, 50_000, 200_000, 1_000_000]
    )
    lines: dict[str, dict[int, list[float]]] = {"content": {}, "parts": {}}
    with stack() as servers, servers.program("web") as web:
        valkey = psutil.Process(servers.valkey.pid)
        for turn in range(bench.pick(1, 4)):
            for shape, points in lines.items():
                for size in lengths:
                    bench.say(f"length: {size:,} characters as {shape}, round {turn}")
                    replies = max(1, lengths[-2] // size)
                    before = web.cpu_s() + sum(valkey.cpu_times()[:2])
                    for number in range(replies):
                        stream(web.url, token("ann"), f"{shape}{turn}-{size}-{number}", shape, size)
                    used = web.cpu_s() + sum(valkey.cpu_times()[:2]) - before
                    if turn or bench.size == "quick":
                        points.setdefault(size, []).append(used * 1e9 / (replies * size))
    return curve(
        "CPU of an append against the reply's length", "characters of the reply",
        "CPU µs of web and Valkey per 1,000 characters", lines,
    )  # fmt: skip


def writers(bench: Bench) -> dict[str, Any]:
    """Saves a second by the number of connections that wait for their answers."""
    counts = bench.pick([1, 4], [1, 2, 4, 8, 16, 32, 64])
    lines: dict[str, dict[int, list[float]]] = {"save": {}, "route that does nothing": {}}
    paths = {"save": "/api/conversations/{}/messages", "route that does nothing": "/rival/nothing/{}"}
    with stack() as servers, servers.program("web", app="tests.bench.routes:create_app") as web:
        for turn in range(bench.pick(1, 4)):
            for count in counts:
                for name, path in paths.items():
                    bench.say(f"writers: {count} connections, {name}, round {turn}")
                    wish = Wish(web.url, token("ann"), "saves", f"w{turn}-{count}", path=path)
                    result = bench.elsewhere(closed, wish, count, bench.pick(0.3, 2.0))
                    if turn or bench.size == "quick":
                        lines[name].setdefault(count, []).append(result.rate)
            servers.empty()
    return curve("Saves of 2 KB against writers", "connections", "requests a second", lines)


def workers(bench: Bench) -> dict[str, Any]:
    """Items a second by the number of processes that drain."""
    items = bench.pick(300, 20_000)
    points: dict[int, list[float]] = {}
    with stack() as servers, servers.pipeline() as pipeline:
        for turn in range(bench.pick(1, 4)):
            for count in bench.pick([1, 2], [1, 2, 3, 4]):
                bench.say(f"workers: {count} processes, round {turn}")
                fill(pipeline, items, size=2048, prefix=f"d{turn}-{count}-")
                took = drain_by(servers, count)
                if turn or bench.size == "quick":
                    points.setdefault(count, []).append(items / took)
            servers.empty()
    return curve("Drain against processes", "worker processes", "items of 2 KB a second", {"drain": points})


MEASURES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "conversations": conversations, "length": length, "writers": writers, "workers": workers,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.plots", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--only", choices=MEASURES)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, default=PLOTS, metavar="DIR")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick", default="usual")
    size.add_argument("--full", dest="size", action="store_const", const="full")
    wish = parser.parse_args()
    curves = wish.out / CURVES.name
    found: dict[str, Any] = json.loads(curves.read_text()) if curves.exists() else {}
    if not wish.draw:
        bench = Bench(wish.size, wish.out, progress)
        try:
            for name in [wish.only] if wish.only else MEASURES:
                before = load_average()
                measured = MEASURES[name](bench)
                found[name] = {
                    **measured, "size": wish.size, "machine": machine(), "versions": versions(),
                    "load": {"before": before, "after": load_average()},
                }  # fmt: skip
        finally:
            bench.close()
        wish.out.mkdir(parents=True, exist_ok=True)
        curves.write_text(json.dumps(found, indent=1) + "\n")
    if not PYTHON.exists():
        progress("plots: not drawn: make bench-env, for matplotlib")
        return 1
    return subprocess.run(
        [str(PYTHON), str(Path(__file__).with_name("draw.py")), str(curves)], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
