"""The load generator: HTTP/1.1 over kept connections, requests made of bytes, one `select` loop, a process of its own.

About 20 µs of CPU a request, so that on two cores the servers, not the generator, are what is measured; its share of a
core comes with each result (`cpu`), and rows report it. Every answer's status is counted; an unexpected one ends the run,
since a refusal is quicker than a save.

`closed` keeps each connection busy. `open_loop` sends at set times, whether or not answers are slow, over as many
connections as are needed up to a bound; a latency counts from when a request should have left, waiting for a connection
included.
"""

from __future__ import annotations

import gc
import heapq
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from tests.bench.frame import percentile
from tests.bench.text import prose


class Result(NamedTuple):
    """``cpu``: share of a core that the generator used. Latencies in ms."""

    requests: int
    seconds: float
    p50: float
    p99: float
    most: float
    cpu: float
    latencies: tuple[float, ...] = ()

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


class Wish(NamedTuple):
    """What to send. ``kind``: a name in _KINDS; ``tag`` keeps runs apart."""

    url: str
    token: str
    kind: str
    tag: str
    path: str = "/api/conversations/{}/messages"
    size: int = 2048
    #: Of a sync: items a request.
    items: int = 50
    #: Saves to a conversation before the next one begins.
    per_conversation: int = 200
    status: int = 202


#: A connection that rested this long, s, is not used again: the server ends idle ones after ten.
STALE_S = 4.0


class Failed(AssertionError):
    """An answer that was not expected."""


class Wire:
    """One connection: sends bytes, collects an answer."""

    __slots__ = ("_got", "_length", "answer", "began", "session", "sock")

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port), timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got = b""
        self._length = -1
        self.began = 0.0
        self.session: Any = None
        #: The last whole answer, head and body.
        self.answer = b""

    def send(self, request: bytes) -> None:
        self.sock.sendall(request)

    def feed(self) -> int:
        """Read what is there; the status of a whole answer, else 0."""
        data = self.sock.recv(1 << 18)
        if not data:
            raise Failed("the server closed the connection")
        got = self._got + data if self._got else data
        if self._length < 0:
            end = got.find(b"\r\n\r\n")
            if end < 0:
                self._got = got
                return 0
            at = got.lower().find(b"\r\ncontent-length:", 0, end)
            self._length = end + 4 + (int(got[at + 17 : got.index(b"\r\n", at + 2)]) if at >= 0 else 0)
        if len(got) < self._length:
            self._got = got
            return 0
        self._got, self._length, self.answer = b"", -1, got
        return int(got[9:12])


def request(url: str, token: str, method: str, path: str, body: bytes = b"") -> bytes:
    host = urlsplit(url).netloc
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def _saves(wish: Wish, lane: int) -> Iterator[bytes]:
    """New messages, `size` bytes of JSON each."""
    text = prose(lane, wish.size)
    for turn in range(1 << 30):
        chat = f"{wish.tag}-{lane}-{turn // wish.per_conversation}"
        body = f'{{"id":"m{turn}","role":"user","content":"'.encode()
        body += text[: wish.size - len(body) - 2].encode() + b'"}'
        yield request(wish.url, wish.token, "POST", wish.path.format(chat), body)


def _syncs(wish: Wish, lane: int) -> Iterator[bytes]:
    """Full states of new messages, `items` of them of `size` bytes each."""
    for turn in range(1 << 30):
        chat = f"{wish.tag}-{lane}-{turn * wish.items // wish.per_conversation}"
        messages = [
            {"id": f"m{turn}-{n}", "role": "user", "content": prose(n, wish.size - 50)}
            for n in range(wish.items)
        ]
        body = orjson.dumps({"messages": messages})
        yield request(wish.url, wish.token, "POST", f"/api/conversations/{chat}/sync", body)


_KINDS: dict[str, Callable[[Wish, int], Iterator[bytes]]] = {"saves": _saves, "syncs": _syncs}


def closed(wish: Wish, connections: int, seconds: float) -> Result:
    """Keep ``connections`` busy for ``seconds``."""
    parts = urlsplit(wish.url)
    make = _KINDS[wish.kind]
    # Made beforehand: a request's bytes cost more than sending them. As many as a fast server could take.
    lanes = [make(wish, lane) for lane in range(connections)]
    wires = [Wire(str(parts.hostname), int(parts.port or 80)) for _ in range(connections)]
    selector = selectors.DefaultSelector()
    latencies: list[float] = []
    for wire, lane in zip(wires, lanes, strict=True):
        wire.session = lane
        selector.register(wire.sock, selectors.EVENT_READ, wire)
    gc.disable()
    cpu, began = time.process_time(), time.perf_counter()
    ends = began + seconds
    for wire in wires:
        wire.send(next(wire.session))
        wire.began = time.perf_counter()
    busy = connections
    clock = time.perf_counter
    try:
        while busy:
            for key, _ in selector.select(30):
                wire = key.data
                status = wire.feed()
                if not status:
                    continue
                now = clock()
                if status != wish.status:
                    raise Failed(f"{wish.kind}: {status} instead of {wish.status}: {wire.answer[-300:]!r}")
                latencies.append(now - wire.began)
                if now < ends:
                    piece = next(wire.session)
                    wire.began = clock()
                    wire.send(piece)
                else:
                    busy -= 1
        took = clock() - began
        cpu = time.process_time() - cpu
    finally:
        gc.enable()
        for wire in wires:
            wire.sock.close()
    return _result(latencies, took, cpu)


def _result(latencies: list[float], took: float, cpu: float) -> Result:
    ordered = sorted(latencies)
    return Result(
        len(ordered),
        took,
        percentile(ordered, 0.5) * 1000,
        percentile(ordered, 0.99) * 1000,
        ordered[-1] * 1000,
        round(cpu / took, 3),
        tuple(one * 1000 for one in ordered),
    )


class Step(NamedTuple):
    """A request of a session and when it should leave, s after the run began (not before the one before is answered)."""

    at_s: float
    request: bytes


def open_loop(url: str, sessions: Iterator[tuple[float, Iterator[Step]]], connections: int) -> Result:
    """Send each session's steps at their times. ``sessions``: (first time, steps), by time. Ends when all is answered."""
    parts = urlsplit(url)
    selector = selectors.DefaultSelector()
    idle: list[Wire] = []
    made = 0
    waiting: deque[tuple[float, Iterator[Step], bytes]] = deque()
    heap: list[tuple[float, int, Iterator[Step], bytes]] = []
    latencies: list[float] = []
    number = 0
    clock = time.perf_counter
    coming = next(sessions, None)
    gc.disable()
    cpu, began = time.process_time(), clock()
    busy = 0
    try:
        while coming or heap or waiting or busy:
            now = clock() - began
            while coming and coming[0] <= now:
                first = next(coming[1], None)
                if first is not None:
                    number += 1
                    heapq.heappush(heap, (first.at_s, number, coming[1], first.request))
                coming = next(sessions, None)
            while heap and heap[0][0] <= now:
                at_s, _, steps, piece = heapq.heappop(heap)
                waiting.append((at_s, steps, piece))
            while waiting and (idle or made < connections):
                at_s, steps, piece = waiting.popleft()
                wire = idle.pop() if idle else None
                if wire is not None and now - wire.began > STALE_S:
                    # The server is about to close those that rested, if it has not yet.
                    for old in (wire, *idle):
                        selector.unregister(old.sock)
                        old.sock.close()
                    made -= 1 + len(idle)
                    idle.clear()
                    wire = None
                if wire is None:
                    wire = Wire(str(parts.hostname), int(parts.port or 80))
                    selector.register(wire.sock, selectors.EVENT_READ, wire)
                    made += 1
                wire.began, wire.session = at_s, steps
                wire.send(piece)
                busy += 1
            until = min(heap[0][0] if heap else 1e9, coming[0] if coming else 1e9)
            pause = max(0.0, min(until - (clock() - began), 1.0))
            for key, _ in selector.select(pause):
                wire = key.data
                if wire.session is None:
                    selector.unregister(wire.sock)
                    wire.sock.close()
                    idle.remove(wire)
                    made -= 1
                    continue
                status = wire.feed()
                if not status:
                    continue
                if not 200 <= status < 300:
                    raise Failed(f"status {status}: {wire.answer[-300:]!r}")
                now = clock() - began
                latencies.append(now - wire.began)
                busy -= 1
                wire.began = now
                idle.append(wire)
                steps, wire.session = wire.session, None
                following = next(steps, None)
                if following is not None:
                    number += 1
                    # One late answer must not count for all steps behind it: those could not leave before it came.
                    due = max(following.at_s, now)
                    heapq.heappush(heap, (due, number, steps, following.request))
        took = clock() - began
        cpu = time.process_time() - cpu
    finally:
        gc.enable()
        for wire in idle:
            wire.sock.close()
    return _result(latencies, took, cpu)


def steady(url: str, token: str, tag: str, rate: float, seconds: float, size: int = 500) -> Result:
    """New messages at a steady ``rate`` a second, to conversations of 50 each."""

    def one(number: int) -> Iterator[Step]:
        body = orjson.dumps({"id": f"m{number}", "role": "user", "content": prose(number, size)})
        path = f"/api/conversations/{tag}-{number // 50}/messages"
        yield Step(number / rate, request(url, token, "POST", path, body))

    return open_loop(url, ((n / rate, one(n)) for n in range(int(rate * seconds))), 64)
