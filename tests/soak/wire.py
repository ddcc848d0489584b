"""The two ends of the campaign's wires: a client's HTTP connection, and a proxy in a process of its own.

The proxy carries every byte between Blotter and its servers; in this process its threads would fight the clients for the
interpreter. So it lives in another one, and is told what to do through a pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.managers import BaseManager
from typing import Any, NamedTuple

import orjson

from tests.faults.proxy import COMMIT, Proxy, Trap


class Unanswered(Exception):
    """Sent, at least in part, and no whole answer came: nobody knows what became of it."""


class Unsent(Exception):
    """No connection came about: the server never saw it."""


class Answer(NamedTuple):
    status: int
    body: Any


class Http:
    """One kept connection to ``port`` of this machine."""

    def __init__(self, port: int, timeout_s: float) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(
        self, method: str, path: str, token: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request. Raises Unsent, Unanswered."""
        text = b"" if body is None else orjson.dumps(body)
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {token}"]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(text)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        raw = "\r\n".join([*lines, "", ""]).encode() + text
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await self._connected()
                writer.write(raw)
                return await self._answer(reader)
        except Unsent:
            raise
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            self.close()
            raise Unanswered(type(error).__name__) from error

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._ends is None:
            try:
                self._ends = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
            except OSError as error:
                raise Unsent(type(error).__name__) from error
        return self._ends

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        at = head.find(b"\r\ncontent-length:")
        length = int(head[at + 17 : head.index(b"\r\n", at + 2)]) if at >= 0 else 0
        body = await reader.readexactly(length)
        if b"\r\nconnection: close" in head:
            self.close()
        return Answer(int(head[9:12]), orjson.loads(body) if body and b"json" in head else None)

    def close(self) -> None:
        if self._ends is not None:
            self._ends[1].close()
            self._ends = None


class Wire(Proxy):
    """A proxy as it is told through a pipe: plain values in and out."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._trap: Trap | None = None

    def listens_on(self) -> int:
        return self.port

    def slow(self, seconds: float) -> None:
        self.latency_s = seconds

    def lose_the_next_commits_answer(self) -> None:
        self._trap = self.cut_after(COMMIT)

    def lost(self) -> bool:
        return self._trap is not None and self._trap.sprung


class _Wires(BaseManager):
    pass


_Wires.register(
    "Wire",
    Wire,
    exposed=(
        "listens_on", "slow", "lose_the_next_commits_answer", "lost", "cut", "refuse", "accept", "freeze", "thaw",
    ),
)  # fmt: skip


def _end_with(parent: int) -> None:
    """Nobody is left to say goodbye where the campaign was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def wires(*ports: int) -> Iterator[list[Any]]:
    """A proxy for each port, all in one process of their own."""
    manager = _Wires(ctx=multiprocessing.get_context("spawn"))
    manager.start(initializer=_end_with, initargs=(os.getpid(),))
    try:
        yield [manager.Wire(port) for port in ports]  # type: ignore[attr-defined]
    finally:
        manager.shutdown()
