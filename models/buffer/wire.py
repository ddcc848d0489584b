"""A connection for each thread, for the scripts on the path of a save.

A pool hands every call a connection under locks and takes it back, with figures and retries around it: two fifths of web's
processor time for a save (tests/bench/README.md). Here a thread keeps its own. Connecting, TLS, AUTH, packing and parsing
are redis-py's; what is left out is what a thread that owns its connection does not need.

Laws: an error or an interruption in the middle closes the connection, so that no reply is taken for another's; one that
the server closed meanwhile is noticed before anything is sent on it, not after.
"""

from __future__ import annotations

import os
import re
import select
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import redis
from redis.exceptions import RedisError, ResponseError

from models.buffer.lane import Lane
from models.core import strands


class Wire:
    """``execute_command`` as redis.Redis has it, without its retries. Thread-safe, and safe to carry over a fork.

    The number of connections is that of the threads that call, and one for all strands (models/buffer/lane.py).
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        """``pool`` tells how to connect; its own connections are left alone."""
        self._pool: Any = pool
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._mine = threading.local()
        self._all: WeakSet[Any] = WeakSet()
        #: Of the strands; a process has one event loop that runs any.
        self._shared: Lane | None = None

    def execute_command(self, *command: Any) -> Any:
        """Send one command, return its reply. Raises redis.exceptions.RedisError."""
        strand = strands.current()
        if strand is not None:
            return strand.wait(self._lane().ask(command))
        connection = self._connection()
        connection.send_command(*command, check_health=False)
        return connection.read_response()

    def execute_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands together; the reply of each, errors of the server among them. Raises RedisError otherwise."""
        return _execute_all(self._connection(), commands)

    @property
    def has_lane(self) -> bool:
        """Whether strands may call: not over TLS, whose sockets an event loop cannot take over."""
        return not issubclass(self._pool.connection_class, redis.SSLConnection)

    def _lane(self) -> Lane:
        if self._pid != os.getpid():
            self._begin()
        if self._shared is None:
            self._shared = Lane(self._connected, self._pool.connection_kwargs["socket_timeout"])
        return self._shared

    def _connected(self) -> Any:
        connection = self._pool.connection_class(**self._pool.connection_kwargs)
        connection.connect()
        return connection

    def _connection(self) -> Any:
        if self._pid != os.getpid():
            self._begin()
        held: _Held | None = getattr(self._mine, "held", None)
        if held is None:
            connection = self._pool.connection_class(**self._pool.connection_kwargs)
            self._all.add(connection)
            self._mine.held = held = _Held(connection)
        elif not held.in_step():
            held.connection.disconnect()
        else:
            return held.connection
        held.connect()
        return held.connection

    def close(self) -> None:
        """Close the connections of all threads; one that calls again opens another."""
        for connection in list(self._all):
            connection.disconnect()
        if self._shared is not None:
            self._shared.close()


class _Held:
    """A thread's connection, closed when the thread ends (not by the garbage collector, some time later)."""

    __slots__ = ("connection", "poll", "sock")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.sock: Any = None
        self.poll: Any = None

    def __del__(self) -> None:
        with suppress(Exception):
            self.connection.disconnect()

    def connect(self) -> None:
        self.connection.connect()
        self.sock = self.connection._sock  # noqa: SLF001
        self.poll = select.poll()
        self.poll.register(self.sock, select.POLLIN | select.POLLHUP | select.POLLERR)

    def in_step(self) -> bool:
        """False where it was closed, by an error here or by the server; or bytes lie there that nobody asked for."""
        if self.sock is None or self.connection._sock is not self.sock:  # noqa: SLF001
            return False
        return not (self.poll.poll(0) and _unasked(self.connection))


class Greeting:
    """Asks each new connection's server who it is; tells of one that this process has not met, before anything else is
    asked of it. (Every server that was started anew, or took over, is met by a new connection.)
    """

    def __init__(self, met: Callable[[Any, str], None]) -> None:
        """``met(server, run_id)``: ``server.execute_command`` speaks to it. What it raises fails the connection."""
        self._met = met
        self._lock = threading.Lock()
        self._seen = ""

    def __call__(self, connection: Any) -> None:
        """What redis-py calls in place of its own greeting (``redis_connect_func``)."""
        connection.on_connect()
        server = Server(connection)
        found = re.search(rb"run_id:(\w+)", server.execute_command("INFO", "server"))
        run_id = "" if found is None else found[1].decode()
        with self._lock:
            if run_id != self._seen:
                self._met(server, run_id)
                self._seen = run_id


class Server:
    """The server at the other end of one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute_command(self, *command: Any) -> Any:
        self._connection.send_command(*command, check_health=False)
        return self._connection.read_response()

    def execute_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """As `Wire.execute_all`."""
        return _execute_all(self._connection, commands)


def _execute_all(connection: Any, commands: Sequence[Sequence[Any]]) -> list[Any]:
    connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    replies = []
    for _ in commands:
        try:
            replies.append(connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def replies_or_first_error(replies: list[Any]) -> list[Any]:
    """``replies``; raises the first that is an error."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies


def _unasked(connection: Any) -> bool:
    """There is more than TLS' own records to read, or the end."""
    try:
        return bool(connection.can_read(0))
    except RedisError:
        return True
