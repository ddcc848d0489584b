"""Row 11: reading a conversation from the buffer and from Postgres; what the first save to a cold one costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import orjson

from tests.acceptance.webserver import token
from tests.bench.frame import Bench, Figure, at_most, ratio
from tests.bench.load import Wire, request
from tests.bench.stack import fill, stack
from tests.bench.store import drain_by

ROWS = (11,)
MESSAGES = 200
SIZE = 500


def run(bench: Bench, rows: set[int]) -> Iterator[Figure]:
    rounds, reads, adoptions = bench.pick((1, 3, 2), (9, 40, 10))
    messages = bench.pick(20, MESSAGES)
    with stack() as servers, servers.pipeline() as pipeline, servers.program("web") as web:
        cold = 1 + (rounds + 1) * adoptions
        chats = fill(pipeline, messages * (cold + 1), size=SIZE, per_conversation=messages, say=bench.say)
        drain_by(servers, 1)
        hot, icy, *others = chats
        for chat in (icy, *others):
            place = pipeline.buffer.place("ann", chat)
            assert pipeline.buffer.evict(place.keys, place.hex, 0) == 1
        pass_ = token("ann")
        parts = urlsplit(web.url)
        wire = Wire(str(parts.hostname), int(parts.port or 80))

        def call(method: str, path: str, body: bytes = b"") -> float:
            """Ms of one call over a connection that stays."""
            piece = request(web.url, pass_, method, f"/api/conversations/{path}", body)
            began = time.perf_counter()
            wire.send(piece)
            while not (status := wire.feed()):
                pass
            assert status in (200, 202), status
            return (time.perf_counter() - began) * 1000

        found = bench.in_turn(
            "row 11, reads",
            rounds,
            {
                "hot": lambda: statistics.median(call("GET", hot) for _ in range(reads)),
                "cold": lambda: statistics.median(call("GET", icy) for _ in range(reads)),
            },
        )
        place = pipeline.buffer.place("ann", icy)
        assert not pipeline.buffer.client.exists(place.keys.rows(place.hex)), "a read must not make it hot"
        yield ratio(
            11, f"read of {messages} messages of {SIZE} characters, hot / cold", found["hot"], found["cold"],
            labels=("hot ms", "cold ms"), target=at_most(1), notes={"reads a sample": reads, "connections": 1},
        )  # fmt: skip
        waiting = iter(others)
        number = iter(range(1 << 30))

        def save(chat: str) -> float:
            body = {"id": f"new{next(number)}", "role": "user", "content": "x" * SIZE}
            return call("POST", f"{chat}/messages", orjson.dumps(body))

        found = bench.in_turn(
            "row 11, first saves",
            rounds,
            {
                "cold": lambda: statistics.median(save(next(waiting)) for _ in range(adoptions)),
                "hot": lambda: statistics.median(save(hot) for _ in range(adoptions)),
            },
        )
        yield ratio(
            11, f"first save to a cold conversation of {messages} messages / to a hot one", found["cold"], found["hot"],
            labels=("cold ms", "hot ms"), notes={"saves a sample": adoptions},
        )  # fmt: skip
        wire.sock.close()
