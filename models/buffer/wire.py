"""A connection for each thread, for the scripts on the path of a save.

A pool hands every call a connection under locks and takes it back, with figures and retries around it: two fifths of web's
processor time for a save (tests/bench/README.md). Here a thread keeps its own. Connecting, TLS, AUTH, packing and parsing
are redis-py's; what is left out is what a thread that owns its connection does not need.

Laws: an error or an interruption in the middle closes the connection, so that no reply is taken for another's; one that
the server closed meanwhile is noticed before anything is sent on it, not after.
"""

from __future__ import annotations

import os
import select
import threading
from typing import Any
from weakref import WeakSet

import redis
from redis.exceptions import RedisError


class Wire:
    """``execute_command`` as redis.Redis has it, without its retries. Thread-safe, and safe to carry over a fork.

    The number of connections is that of the threads that call.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        """``pool`` tells how to connect; its own connections are left alone."""
        self._pool: Any = pool
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._mine = threading.local()
        self._all: WeakSet[Any] = WeakSet()

    def execute_command(self, *command: Any) -> Any:
        """Send one command, return its reply. Raises redis.exceptions.RedisError."""
        connection = self._connection()
        connection.send_command(*command, check_health=False)
        return connection.read_response()

    def _connection(self) -> Any:
        if self._pid != os.getpid():
            self._begin()
        found: tuple[Any, Any, Any] | None = getattr(self._mine, "found", None)
        if found is not None:
            connection, sock, poll = found
            if connection._sock is sock and not (poll.poll(0) and _unasked(connection)):  # noqa: SLF001
                return connection
            # It was closed, by an error here or by the server; or bytes lie there that nobody asked for.
            connection.disconnect()
        else:
            connection = self._pool.connection_class(**self._pool.connection_kwargs)
            self._all.add(connection)
        connection.connect()
        sock = connection._sock  # noqa: SLF001
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
        self._mine.found = connection, sock, poll
        return connection

    def close(self) -> None:
        """Close the connections of all threads; one that calls again opens another."""
        for connection in list(self._all):
            connection.disconnect()


def _unasked(connection: Any) -> bool:
    """There is more than TLS' own records to read, or the end."""
    try:
        return bool(connection.can_read(0))
    except RedisError:
        return True
