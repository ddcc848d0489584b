"""The faults: what is done to a running stack, for how long, and how it is taken back.

Each is a context manager over a stack and a source of chance: entering does it, leaving takes it back (starts what was
killed, thaws what was frozen). What a stack must have for it stands in ``needs``; a fault that cannot be had here says why
(``Skip``). Programs that are killed are started again by `blotter up`, servers by leaving.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import psutil
import psycopg
import redis

from tests.servers import Running, eventually
from tests.soak import disk
from tests.soak.stacks import Stack
from web.cli.process import Command, spawn

FAKETIME: Final = tuple(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
Act: TypeAlias = Callable[[Stack, random.Random], contextlib.AbstractContextManager[None]]


class Skip(Exception):
    """Why it cannot be done on this machine."""


class Fault(NamedTuple):
    """``hold_s``: for how long, at least and at most. ``empties``: what the buffer alone had may go."""

    name: str
    act: Act
    needs: frozenset[str]
    hold_s: tuple[float, float]
    empties: bool = False


FAULTS: Final[dict[str, Fault]] = {}


def fault(
    name: str, *needs: str, hold_s: tuple[float, float] = (0.0, 0.0), empties: bool = False
) -> Callable[[Callable[[Stack, random.Random], Iterator[None]]], Act]:
    """Enter it in the list. ``needs``: parts (web, worker, …) and servers (buffer, broker) of the stack."""

    def entered(function: Callable[[Stack, random.Random], Iterator[None]]) -> Act:
        act = contextmanager(function)
        FAULTS[name] = Fault(name, act, frozenset(needs), hold_s, empties)
        return act

    return entered


def possible(stack: Stack) -> list[Fault]:
    """Those that this stack has the parts for."""
    has = set(stack.parts)
    has |= {name for name in ("buffer", "broker") if getattr(stack, name) is not None}
    if stack.pipeline is not None:
        has.add("leases")
    return [one for one in FAULTS.values() if one.needs <= has]


# ---------------------------------------------------------------- programs
def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _one_child(stack: Stack, part: str, chance: random.Random) -> int:
    eventually(lambda: bool(stack.children(part)), within_s=30)
    return chance.choice(sorted(child.pid for child in stack.children(part)))


def _family(pid: int) -> list[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def _kill_child(part: str) -> Callable[[Stack, random.Random], Iterator[None]]:
    def act(stack: Stack, chance: random.Random) -> Iterator[None]:
        _signal([_one_child(stack, part, chance)], signal.SIGKILL)
        yield

    return act


def _stop_child(part: str) -> Callable[[Stack, random.Random], Iterator[None]]:
    def act(stack: Stack, chance: random.Random) -> Iterator[None]:
        pid = _one_child(stack, part, chance)
        _signal([pid], signal.SIGSTOP)
        try:
            yield
        finally:
            _signal([pid], signal.SIGCONT)

    return act


def _kill_part(part: str, *, whole: bool) -> Callable[[Stack, random.Random], Iterator[None]]:
    """``whole``: all its processes at the same moment; else the first one, and its supervisor ends the rest."""

    def act(stack: Stack, chance: random.Random) -> Iterator[None]:
        pid = stack.pid(part)
        _signal(_family(pid) if whole else [pid], signal.SIGKILL)
        yield
        eventually(lambda: stack.pid(part) not in (0, pid), within_s=60)

    return act


fault("kill -9 a worker child", "worker")(_kill_child("worker"))
fault("SIGSTOP a worker child", "worker", hold_s=(1, 12))(_stop_child("worker"))
fault("kill -9 the worker group", "worker")(_kill_part("worker", whole=True))
fault("kill -9 a web child", "web")(_kill_child("web"))
# Longer than clients wait: what they gave up comes to life again when they are further on.
fault("SIGSTOP a web child", "web", hold_s=(1, 8))(_stop_child("web"))
fault("kill -9 the web's first process", "web")(_kill_part("web", whole=False))
fault("kill -9 beat", "beat")(_kill_part("beat", whole=False))
fault("kill -9 events", "events")(_kill_part("events", whole=True))


@fault("two beats", "beat", hold_s=(2, 5))
def _two_beats(stack: Stack, chance: random.Random) -> Iterator[None]:
    argv = [
        "celery",
        "-A",
        "workers.app",
        "beat",
        "--schedule",
        stack.environ["BLOTTER_BEAT_SCHEDULE"],
        "--pidfile=",
    ]
    process = spawn(Command("beat2", argv, stack.environ, Path.cwd()), stack.folder / "beat2.log")
    try:
        yield
    finally:
        process.kill()
        process.wait()


# ---------------------------------------------------------------- servers
def _kill_server(name: str) -> Callable[[Stack, random.Random], Iterator[None]]:
    def act(stack: Stack, chance: random.Random) -> Iterator[None]:
        server: Running = getattr(stack, name)
        server.kill()
        try:
            yield
        finally:
            server.start()

    return act


def _stop_server(name: str) -> Callable[[Stack, random.Random], Iterator[None]]:
    def act(stack: Stack, chance: random.Random) -> Iterator[None]:
        server: Running = getattr(stack, name)
        server.pause()
        try:
            yield
        finally:
            server.resume()

    return act


fault("kill -9 the buffer", "buffer", hold_s=(0, 1.5))(_kill_server("buffer"))
fault("SIGSTOP the buffer", "buffer", hold_s=(0.5, 4))(_stop_server("buffer"))
fault("kill -9 the broker", "broker", hold_s=(0, 2))(_kill_server("broker"))
fault("SIGSTOP the broker", "broker", hold_s=(0.5, 4))(_stop_server("broker"))
fault("kill -9 Postgres", hold_s=(0, 3))(_kill_server("postgres"))
fault("SIGSTOP Postgres", hold_s=(0.5, 6))(_stop_server("postgres"))


@fault("the broker emptied", "broker")
def _broker_emptied(stack: Stack, chance: random.Random) -> Iterator[None]:
    assert stack.broker is not None
    with redis.Redis.from_url(stack.broker.url) as client:
        client.flushall()
    yield


@fault("the buffer back empty", "buffer", hold_s=(0, 1), empties=True)
def _buffer_emptied(stack: Stack, chance: random.Random) -> Iterator[None]:
    assert stack.buffer is not None
    stack.buffer.kill()
    data = stack.folder / "buffer"
    try:
        yield
    finally:
        for entry in data.glob("appendonly*"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        stack.buffer.start()


@fault("maxmemory reached", "buffer", hold_s=(1, 4))
def _memory_full(stack: Stack, chance: random.Random) -> Iterator[None]:
    """Either above the share that web refuses at, or so low that Valkey refuses itself."""
    assert stack.buffer is not None
    with redis.Redis.from_url(stack.buffer.url) as client:
        before = client.config_get("maxmemory")["maxmemory"]
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory", int(used * chance.choice((0.9, 1.1))))
        try:
            yield
        finally:
            client.config_set("maxmemory", before)


@fault("disk full under the append-only file", "buffer", hold_s=(0.5, 2))
def _disk_full(stack: Stack, chance: random.Random) -> Iterator[None]:
    """A file may grow no further, as on a full disk: the write is cut short and the server ends. Then there is room."""
    assert stack.buffer is not None
    if sys.platform != "linux":
        raise Skip("needs prlimit (Linux)")
    server = stack.buffer
    growing = max(
        (stack.folder / "buffer" / "appendonlydir").glob("*.incr.aof"), key=lambda file: file.stat().st_mtime
    )
    limit = growing.stat().st_size + 4096 + chance.randrange(4096)
    psutil.Process(server.pid).rlimit(psutil.RLIMIT_FSIZE, (limit, limit))
    process = server._process
    assert process is not None
    deadline = time.monotonic() + 15
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        yield
    finally:
        server.kill()
        server.start()


@fault("slow fsync with kill -9", "buffer", hold_s=(2, 5))
def _disk_slow(stack: Stack, chance: random.Random) -> Iterator[None]:
    """Each fsync takes 50 to 500 ms longer; then the server dies, most likely in one, and with it what was not fsynced."""
    assert stack.buffer is not None
    if stack.disk is None:
        raise Skip(disk.why_not())
    stack.disk.slow()
    try:
        yield
    finally:
        stack.buffer.kill()
        stack.disk.quick()
        stack.buffer.start()


@fault("wall clock of the buffer an hour off", "buffer", hold_s=(2, 4))
def _clock_off(stack: Stack, chance: random.Random) -> Iterator[None]:
    assert stack.buffer is not None
    if not FAKETIME:
        raise Skip("needs libfaketime (Debian: libfaketime)")
    server = stack.buffer
    plain = server._command
    hours = chance.choice(("+1h", "-1h"))
    preload = ":".join(filter(None, [str(FAKETIME[0]), plain.environ.get("LD_PRELOAD")]))
    false = {"LD_PRELOAD": preload, "FAKETIME": hours, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    server.kill()
    server._command = replace(plain, environ={**plain.environ, **false})
    server.start()
    try:
        yield
    finally:
        server.kill()
        server._command = plain
        server.start()


# ---------------------------------------------------------------- wires
def _wire(name: str, do: str, undo: str, *arguments: Any) -> Callable[[Stack, random.Random], Iterator[None]]:
    def act(stack: Stack, chance: random.Random) -> Iterator[None]:
        wire = getattr(stack, f"{name}_wire")
        getattr(wire, do)(*arguments)
        try:
            yield
        finally:
            if undo:
                getattr(wire, undo)(*((0.0,) if undo == "slow" else ()))

    return act


fault("connections to the buffer cut", "buffer")(_wire("buffer", "cut", ""))
fault("connections to Postgres cut")(_wire("postgres", "cut", ""))
fault("buffer refuses connections", "buffer", hold_s=(0.5, 3))(_wire("buffer", "refuse", "accept"))
fault("Postgres refuses connections", hold_s=(0.5, 5))(_wire("postgres", "refuse", "accept"))
fault("buffer half open", "buffer", hold_s=(0.5, 4))(_wire("buffer", "freeze", "thaw"))
fault("Postgres half open", hold_s=(0.5, 6))(_wire("postgres", "freeze", "thaw"))
fault("50 ms more to the buffer", "buffer", hold_s=(1, 4))(_wire("buffer", "slow", "slow", 0.05))
fault("200 ms more to Postgres", hold_s=(1, 4))(_wire("postgres", "slow", "slow", 0.2))


@fault("a COMMIT's answer lost", hold_s=(0.5, 1))
def _commit_lost(stack: Stack, chance: random.Random) -> Iterator[None]:
    wire = stack.postgres_wire
    for _ in range(3):
        wire.lose_the_next_commits_answer()
        deadline = time.monotonic() + 3
        while not wire.lost() and time.monotonic() < deadline:
            time.sleep(0.02)
    yield


# ---------------------------------------------------------------- others at work
@fault("row locks held by another session", hold_s=(2, 6))
def _row_locks(stack: Stack, chance: random.Random) -> Iterator[None]:
    table, latest = (
        ("messages", "updated_at DESC") if stack.name == "blotter" else ("saved", "status = 'streaming' DESC")
    )
    with psycopg.connect(stack.database_url) as connection:
        connection.execute(f"SELECT 1 FROM {table} ORDER BY {latest} LIMIT 300 FOR UPDATE")
        try:
            yield
        finally:
            connection.rollback()


@fault("two flushers on one partition", "leases", hold_s=(1, 3))
def _two_flushers(stack: Stack, chance: random.Random) -> Iterator[None]:
    """All leases go, again and again, while their holders are at work."""
    assert stack.buffer is not None
    assert stack.pipeline is not None
    leases = [keys.lease for keys in stack.pipeline.buffer.partitions]
    with redis.Redis.from_url(stack.buffer.url) as client:
        for _ in range(100):
            client.delete(*leases)
            time.sleep(0.01)
        yield
        client.delete(*leases)
