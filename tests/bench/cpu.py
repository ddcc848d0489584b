"""Row 8: whether an appended kilobyte costs the same in a long reply as in a short one; CPU, not time, of web and Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from urllib.parse import urlsplit

import orjson

from tests.acceptance.webserver import token
from tests.bench.frame import Bench, Figure, at_most, ratio
from tests.bench.load import Wire, request
from tests.bench.stack import stack
from tests.bench.text import prose

ROWS = (8,)
STEP = 100
LENGTHS = (10_000, 200_000)


def run(bench: Bench, rows: set[int]) -> Iterator[Figure]:
    short, long = bench.pick((1_000, 4_000), LENGTHS)
    with stack() as servers, servers.program("web") as web:
        pass_ = token("ann")
        turn = 0
        # Of the short replies: what one append costs each of the two, µs, for deploy/scaling.
        shares: dict[str, dict[str, list[float]]] = {}

        def measure(shape: str, length: int) -> float:
            """CPU µs per 1,000 appended characters; as many characters for short replies as for long ones."""
            nonlocal turn
            turn += 1
            before = servers_cpu_s()
            for number in range(long // length):
                stream(web.url, pass_, f"c{turn}-{number}", shape, length)
            used = {name: seconds - before[name] for name, seconds in servers_cpu_s().items()}
            if length == short:
                for name, seconds in used.items():
                    shares.setdefault(shape, {}).setdefault(name, []).append(seconds * 1e6 / (long / STEP))
            return sum(used.values()) * 1e6 / (long / 1000)

        def servers_cpu_s() -> dict[str, float]:
            import psutil

            valkey = psutil.Process(servers.valkey.pid).cpu_times()
            return {"web": web.cpu_s(), "Valkey": valkey.user + valkey.system}

        for shape in ("content", "parts"):
            found = bench.in_turn(
                f"row 8, {shape}",
                bench.pick(1, 3, 7),
                {
                    "long": lambda shape=shape: measure(shape, long),  # type: ignore[misc]
                    "short": lambda shape=shape: measure(shape, short),  # type: ignore[misc]
                },
            )
            yield ratio(
                8, f"CPU per appended 1,000 characters, {shape}: reply of {long:,} / of {short:,}",
                found["long"], found["short"], labels=("long µs", "short µs"), target=at_most(1.2),
                notes={"characters an append": STEP, "counted": "web and Valkey, user and system",
                       "µs an append": {name: round(median(all_)) for name, all_ in shares[shape].items()}},
            )  # fmt: skip


def stream(url: str, pass_: str, chat: str, shape: str, length: int) -> None:
    """A reply of ``length`` characters by appends, one connection, each after the answer to the one before."""
    parts = urlsplit(url)
    wire = Wire(str(parts.hostname), int(parts.port or 80))

    def send(method: str, path: str, body: object) -> None:
        wire.send(
            request(url, pass_, method, f"/api/conversations/{chat}/messages{path}", orjson.dumps(body))
        )
        while not (status := wire.feed()):
            pass
        assert status == 202, status

    empty = {"content": ""} if shape == "content" else {"parts": [{"type": "text", "text": ""}]}
    part = {} if shape == "content" else {"part": 0}
    send("POST", "", {"id": "r", "role": "assistant", "status": "streaming", **empty})
    text = prose(len(chat), length)
    for offset in range(0, length, STEP):
        step: dict[str, object] = {"append": {"offset": offset, "text": text[offset : offset + STEP], **part}}
        if offset + STEP >= length:
            step["status"] = "complete"
        send("PATCH", "/r", step)
    wire.sock.close()
