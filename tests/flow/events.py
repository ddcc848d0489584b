"""Readers of events as an application would write them, and the real events process they read from.

`Fold` holds what a reader has; it is strict: an append that does not fit, a version told twice on a connection, or one
that lies at or below the offset the reader came with, fails the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import orjson

from tests.servers import eventually
from web.cli.folder import free_port
from web.cli.process import Command, spawn

SECRET = "a-secret-of-at-least-32-bytes-for-tests"
CHECKOUT = Path(__file__).resolve().parents[2]


def bearer(owner: str = "ann", *, seconds: float = 600, **claims: Any) -> dict[str, str]:
    """The header that proves ``owner``."""
    token = jwt.encode({"sub": owner, "exp": time.time() + seconds, **claims}, SECRET, algorithm="HS256")
    return {"Authorization": f"Bearer {token}"}


class EventsProcess:
    """The program as the Procfile starts it, to be killed and started again on its port."""

    def __init__(self, log: Path, **environ: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.environ = {
            "PATH": os.environ["PATH"],
            "BLOTTER_JWT_SECRET": SECRET,
            "BLOTTER_PARTITIONS": "4",
            "BLOTTER_STORE_CONNECT_MS": "2000",
            **environ,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = str(Path(sys.executable).with_name("granian"))
        argv = [
            program, "--interface", "asgi", "--factory", "--port", str(self.port), "--http", "1", "--no-ws",
            "--backpressure", "65536", "--workers-kill-timeout", "10", "web.events.app:create_app",
        ]  # fmt: skip
        command = Command(name="events", argv=argv, environ=self.environ, cwd=CHECKOUT)
        self._process = spawn(command, self.log)
        eventually(self.ready, within_s=20)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """SIGKILL, its workers included."""
        import psutil

        if self._process is not None:
            family = [*psutil.Process(self._process.pid).children(recursive=True), self._process]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> float:
        """SIGTERM; how long it took, s."""
        assert self._process is not None
        began = time.monotonic()
        self._process.terminate()
        self._process.wait(timeout=20)
        self._process = None
        return time.monotonic() - began

    def path(self, conversation: str) -> str:
        return f"{self.url}/api/conversations/{conversation}/events"


@contextlib.contextmanager
def events_process(log: Path, **environ: str) -> Iterator[EventsProcess]:
    process = EventsProcess(log, **environ)
    try:
        process.start()
        yield process
    finally:
        process.kill()


class Fold:
    """What a reader has after all events it was told."""

    def __init__(self, offset: str = "-1", *, strict: bool = True) -> None:
        """``strict=False``: as an application does it that cannot know where a connection began."""
        self._strict = strict
        self.items: dict[tuple[str, str], dict[str, Any]] = {}
        self.offset = offset
        self.closed = False
        self.epochs: list[str] = []
        #: One event of each type, as it came.
        self.examples: dict[str, dict[str, Any]] = {}
        self.told = 0
        #: Bytes of events, and characters of text that appends carried.
        self.bytes = 0
        self._came_with = -1
        self._told: dict[tuple[str, str], int] = {}

    def connect(self) -> None:
        """A connection begins here."""
        self._came_with = int(self.offset.split("_")[0]) if self.offset not in ("-1", "now") else -1
        self._told.clear()

    def apply(self, raw: bytes, offset: str, *, closed: bool = False) -> None:
        """One batch, and the offset behind it."""
        self.bytes += len(raw)
        events = orjson.loads(raw) if raw else []
        touched: dict[tuple[str, str], int] = {}
        for event in events:
            self.told += 1
            self.examples[event["type"]] = orjson.loads(orjson.dumps(event))
            getattr(self, f"_{event['type']}")(event, touched)
        self._told |= touched
        assert self.offset in ("-1", "now") or offset >= self.offset, (self.offset, offset)
        self.offset = offset
        self.closed = closed

    def _stale(self, key: tuple[str, str], event: dict[str, Any]) -> bool:
        """An older version than what we have: a batch that was told again after a break."""
        return not self._strict and event["version"] < self.items.get(key, event)["version"]

    def _fresh(self, key: tuple[str, str], version: int, touched: dict[tuple[str, str], int]) -> None:
        if not self._strict:
            return
        assert version > self._came_with, f"{key} at {version} was known at {self._came_with}"
        assert version > self._told.get(key, -1), f"{key} at {version} was told before"
        touched[key] = version

    def _item(self, event: dict[str, Any], touched: dict[tuple[str, str], int]) -> None:
        key = event["kind"], event["item"]["id"]
        if self._stale(key, event):
            return
        assert event["version"] == event["item"]["version"]
        assert not event.get("partial")
        assert touched.get(key, -1) < event["version"]
        self._fresh(key, event["version"], touched)
        self.items[key] = event["item"]
        if event["kind"] == "conversation" and "deletedAt" in event["item"]:
            self.items = {key: event["item"]}

    def _append(self, event: dict[str, Any], touched: dict[tuple[str, str], int]) -> None:
        key = event["kind"], event["id"]
        if self._stale(key, event):
            return
        self._fresh(key, event["version"], touched)
        item = self.items[key]
        holder, field = (item, "content") if "part" not in event else (item["parts"][event["part"]], "text")
        before = (holder[field] or "").encode("utf-16-le")
        if event["text"]:
            if not self._strict:
                before = before[: 2 * event["offset"]]
            assert len(before) == 2 * event["offset"], (key, event, len(before) // 2)
            holder[field] = (before + event["text"].encode("utf-16-le")).decode("utf-16-le")
        item.update(event["set"])
        assert (item["status"], item["version"]) == (event["status"], event["version"])

    def _stored(self, event: dict[str, Any], touched: dict[tuple[str, str], int]) -> None:
        item = self.items[event["kind"], event["id"]]
        if not self._strict and item["version"] != event["version"]:
            return
        assert item["version"] == event["version"]
        assert not (self._strict and item["stored"])
        item["stored"] = True

    def _epoch(self, event: dict[str, Any], touched: dict[tuple[str, str], int]) -> None:
        self.epochs.append(event["bufferEpoch"])
        unstored = {(one["kind"], one["id"]): one["version"] for one in event["unstored"]}
        for key, item in self.items.items():
            if item["version"] <= event["version"]:
                item["stored"] = unstored.get(key) != item["version"]

    def view(self) -> dict[str, list[bytes]]:
        """As the API would show it: living items in order, byte for byte."""
        names = {"message": "messages", "toolResult": "toolResults", "artifact": "artifacts"}
        shown: dict[str, list[bytes]] = {
            "conversation": [],
            "messages": [],
            "toolResults": [],
            "artifacts": [],
        }
        living = [(key[0], item) for key, item in self.items.items() if "deletedAt" not in item]
        for kind, item in sorted(living, key=lambda entry: (entry[1].get("position", ""), entry[1]["id"])):
            shown[names.get(kind, kind)].append(orjson.dumps(item))
        return shown


def shown(body: dict[str, Any]) -> dict[str, list[bytes]]:
    """What GET answered, in the shape of Fold.view."""
    lists = {
        name: [orjson.dumps(item) for item in body[name]] for name in ("messages", "toolResults", "artifacts")
    }
    return {"conversation": [orjson.dumps(body["conversation"])], **lists}


class Refused(Exception):
    """A stream that was refused; args: status, body."""


class Sse:
    """One connection, read chunk by chunk."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._buffer = b""
        self.bytes = 0
        self.heartbeats = 0

    @classmethod
    async def open(
        cls,
        url: str,
        conversation: str,
        offset: str,
        headers: dict[str, str] | None = None,
        cursor: str = "",
        kernel_bytes: int = 0,
    ) -> Sse:
        """``kernel_bytes``: what the kernel may receive ahead (0: what it likes, 32 MB and more). Raises Refused, OSError."""
        parts = urlsplit(url)
        own = socket.socket()
        if kernel_bytes:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kernel_bytes)
        own.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(own, (parts.hostname, parts.port))
            reader, writer = await asyncio.open_connection(sock=own)
        except BaseException:
            own.close()
            raise
        try:
            query = f"offset={offset}&live=sse" + (f"&cursor={cursor}" if cursor else "")
            lines = [
                f"GET /api/conversations/{conversation}/events?{query} HTTP/1.1",
                f"Host: {parts.netloc}",
            ]
            lines += [f"{name}: {value}" for name, value in (headers or bearer()).items()]
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split()[1])
            if status != 200:
                length = next(
                    (
                        int(one.split(b":")[1])
                        for one in head.lower().split(b"\r\n")
                        if one.startswith(b"content-length")
                    ),
                    0,
                )
                body = await reader.readexactly(length)
                raise Refused(status, body)  # noqa: TRY301 (closed below like any failure)
        except BaseException:
            writer.transport.abort()
            raise
        return cls(reader, writer)

    async def events(self) -> AsyncIterator[tuple[str, bytes]]:
        """(event, data) until the server ends the stream. Raises OSError, asyncio.IncompleteReadError."""
        while True:
            size = int(await self._reader.readline() or b"0", 16)
            if size == 0:
                return
            chunk = await self._reader.readexactly(size + 2)
            self.bytes += size
            self._buffer += chunk[:-2]
            while b"\n\n" in self._buffer:
                block, self._buffer = self._buffer.split(b"\n\n", 1)
                fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
                if b"event" in fields:
                    yield fields[b"event"].decode(), fields[b"data"]
                else:
                    self.heartbeats += 1

    async def batches(self) -> AsyncIterator[tuple[bytes, dict[str, Any]]]:
        """(events, control), as the protocol pairs them."""
        data = b""
        async for event, body in self.events():
            if event == "data":
                data = body
            else:
                yield data, orjson.loads(body)
                data = b""

    def close(self) -> None:
        """Break off, as a tab that is closed does."""
        self._writer.transport.abort()


async def follow(
    url: str,
    conversation: str,
    fold: Fold,
    *,
    until: Any = None,
    batches: int | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Read one connection into ``fold`` until it ends, ``until(fold, control)``, or so many batches; the last control."""
    connection = await Sse.open(url, conversation, fold.offset, headers)
    fold.connect()
    control: dict[str, Any] = {}
    try:
        async for data, control in connection.batches():
            fold.apply(data, control["streamNextOffset"], closed=control.get("streamClosed", False))
            if batches is not None:
                batches -= 1
            if (until is not None and until(fold, control)) or batches == 0:
                break
    finally:
        connection.close()
    return control
