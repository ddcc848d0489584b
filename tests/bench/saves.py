"""Rows 1-3: what a save costs by the whole route, against a route that does nothing and one that writes to Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from tests.acceptance.webserver import token
from tests.bench.frame import Bench, Figure, at_least, at_most, ratio
from tests.bench.load import Result, Wish, closed
from tests.bench.stack import cpu_s, stack

ROWS = (1, 2, 3)
CONNECTIONS = 16
SIZE = 2048


def run(bench: Bench, rows: set[int]) -> Iterator[Figure]:
    with stack() as servers, servers.program("web", app="tests.bench.routes:create_app") as web:
        pass_ = token("ann")
        seconds, rounds = bench.pick(0.3, 3.0), bench.pick(1, 5, 9)
        turn = 0
        pids = {"web": web.pid, "buffer": servers.valkey.pid, "Postgres": servers.postgres.pid}
        #: Path -> program -> CPU time a request of each sample, µs.
        cpu_us: dict[str, dict[str, list[float]]] = {}

        def measure(kind: str, path: str, status: int, size: int = SIZE) -> Result:
            nonlocal turn
            turn += 1
            wish = Wish(web.url, pass_, kind, f"b{turn}", path=path, size=size, status=status)
            used_s = {name: cpu_s(pid) for name, pid in pids.items()}
            result: Result = bench.elsewhere(closed, wish, CONNECTIONS, seconds)
            for name, pid in pids.items():
                us = (cpu_s(pid) - used_s[name]) / result.requests * 1e6
                cpu_us.setdefault(path, {}).setdefault(name, []).append(us)
            if kind != "saves" or turn % 4 == 0:
                servers.empty()
            return result

        def saves() -> Result:
            return measure("saves", "/api/conversations/{}/messages", 202)

        if rows & {1, 2}:
            ways = {"save": saves, "nothing": lambda: measure("saves", "/rival/nothing/{}", 202)}
            if 2 in rows:
                ways["direct"] = lambda: measure("saves", "/rival/direct/{}", 202)
            found = bench.in_turn("rows 1, 2", rounds, ways)
            conditions = {
                "connections": CONNECTIONS,
                "bytes": SIZE,
                "load generator, share of a core": {
                    name: max(one.cpu for one in results) for name, results in found.items()
                },
                "p99 ms": {name: [round(one.p99, 2) for one in results] for name, results in found.items()},
                "CPU a request, µs": {
                    path: {name: round(median(samples)) for name, samples in used.items()}
                    for path, used in cpu_us.items()
                },
            }
            rates = {name: [one.rate for one in results] for name, results in found.items()}
            if 1 in rows:
                yield ratio(
                    1, "save of 2 KB / route that does nothing, requests/s", rates["save"], rates["nothing"],
                    labels=("save", "nothing"), target=at_least(0.6), stretch=at_least(0.75), notes=conditions,
                )  # fmt: skip
            if 2 in rows:
                yield ratio(
                    2, "save of 2 KB / upsert straight into Postgres, requests/s", rates["save"], rates["direct"],
                    labels=("save", "direct"), target=at_least(2.5), stretch=at_least(4), notes=conditions,
                )  # fmt: skip
                yield ratio(
                    2, "the same, p99 of the answer",
                    [one.p99 for one in found["save"]], [one.p99 for one in found["direct"]],
                    labels=("save ms", "direct ms"), target=at_most(0.5), notes=conditions,
                )  # fmt: skip
        if 3 in rows:
            for size, target, stretch in ((SIZE, at_least(8), at_least(15)), (200, None, None)):
                found = bench.in_turn(
                    f"row 3, {size} bytes",
                    bench.pick(1, 3, 7),
                    {
                        "sync": lambda size=size: measure("syncs", "", 200, size),  # type: ignore[misc]
                        "saves": lambda size=size: measure(  # type: ignore[misc]
                            "saves", "/api/conversations/{}/messages", 202, size
                        ),
                    },
                )
                yield ratio(
                    3, f"items/s by sync of 50 / by single saves, {size:,} bytes each",
                    [one.rate * 50 for one in found["sync"]], [one.rate for one in found["saves"]],
                    labels=("sync", "saves"), target=target, stretch=stretch,
                    notes={"load generator, share of a core": {
                        name: max(one.cpu for one in results) for name, results in found.items()
                    }},
                )  # fmt: skip
