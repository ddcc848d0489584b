"""The one connection that all strands of an event loop share: commands leave as they come, replies return in their order.
(models/core/strands.py)

Requests that are under way at the same time so meet in one packet, one wake-up of the server and one write of its
append-only file, without anybody waiting for the other. (redis-py's asyncio client lends a connection to one call at a time.)

Laws: whoever asked before the connection broke, or before the server fell silent for ``timeout_s``, gets an error, never
another's reply; one that the server closed meanwhile is noticed before anything is sent on it. No more is on the way than the
server answers in time: of a burst that was sent at once, all would be carried out, and what came late told to nobody.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
from redis._parsers.base import BaseParser
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    InvalidResponse,
    TimeoutError as RedisTimeoutError,
)

_MORE: Final = object()
#: Commands on the way. More wait here, and their time begins when they leave; so many come back in some ten milliseconds.
MOST: Final = 64


class Lane:
    """For one event loop; everything is called on its thread."""

    def __init__(self, connect: Callable[[], Any], timeout_s: float) -> None:
        """``connect()``: a redis.Connection, connected and greeted; it may block (a thread calls it) and raise RedisError."""
        self._connect = connect
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._replies: _Replies | None = None
        self._opening: asyncio.Task[_Replies] | None = None

    def ask(self, command: tuple[Any, ...]) -> asyncio.Future[Any]:
        """The reply to ``command``, in time. Raises redis.exceptions.RedisError when awaited."""
        if self._replies is not None and self._replies.in_step():
            return self._replies.ask(command)
        return self._loop.create_task(self._ask_anew(command))

    async def _ask_anew(self, command: tuple[Any, ...]) -> Any:
        if self._opening is None:
            self._opening = self._loop.create_task(self._open())
        # Shielded: who gives up does not take the connection from the others.
        replies = await asyncio.shield(self._opening)
        return await replies.ask(command)

    async def _open(self) -> _Replies:
        try:
            connection = await self._loop.run_in_executor(None, self._connect)
            # From here on the loop has its socket.
            sock: socket.socket = connection._sock  # noqa: SLF001
            connection._sock = None  # noqa: SLF001
            sock.setblocking(False)
            replies = _Replies(self._loop, sock, self._timeout_s)
            await self._loop.create_connection(lambda: replies, sock=sock)
            self._replies = replies
            return replies
        finally:
            self._opening = None

    def close(self) -> None:
        """Close the connection; who waits gets an error, who asks again another connection. Of any thread."""
        replies = self._replies
        if replies is not None and not self._loop.is_closed():
            closed = RedisConnectionError("the connection was closed")
            self._loop.call_soon_threadsafe(replies.fail, closed)


class _Replies(asyncio.Protocol):
    """A connection's replies, handed to those who asked, in their order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, timeout_s: float) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
        self._reader: Any = hiredis.Reader(
            protocolError=InvalidResponse, replyError=BaseParser.parse_error, notEnoughData=_MORE
        )
        #: Who waits, and since when (the loop's s).
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        #: Who asked, and what, beyond MOST.
        self._later: deque[tuple[asyncio.Future[Any], tuple[Any, ...]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._broken: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def in_step(self) -> bool:
        """False where it broke, or the server closed it, or sent what nobody asked for."""
        if self._broken is None and not self._waiting and self._poll.poll(0):
            self.fail(RedisConnectionError("the server closed the connection"))
        return self._broken is None

    def ask(self, command: tuple[Any, ...]) -> asyncio.Future[Any]:
        answered: asyncio.Future[Any] = self._loop.create_future()
        if self._broken is not None:
            answered.set_exception(self._broken)
        elif len(self._waiting) < MOST:
            self._send(answered, command)
        else:
            self._later.append((answered, command))
        return answered

    def _send(self, answered: asyncio.Future[Any], command: tuple[Any, ...]) -> None:
        self._transport.write(hiredis.pack_command(command))
        self._waiting.append((answered, self._loop.time()))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._look)

    def _send_more(self) -> None:
        while self._later and len(self._waiting) < MOST and self._broken is None:
            answered, command = self._later.popleft()
            if not answered.done():
                self._send(answered, command)

    def _look(self) -> None:
        """The oldest has waited for ``timeout_s``, or will have at some later time."""
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][1] + self._timeout_s - self._loop.time()
        if left <= 0:
            self.fail(RedisTimeoutError("Timeout reading from socket"))
        else:
            self._timer = self._loop.call_later(left, self._look)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets(False)) is not _MORE:
                if isinstance(reply, hiredis.PushNotification):
                    continue
                if not self._waiting:
                    self.fail(RedisConnectionError("the server sent what nobody asked for"))
                    return
                answered, _ = self._waiting.popleft()
                if answered.done():
                    # Who asked gave up.
                    continue
                if isinstance(reply, Exception):
                    answered.set_exception(reply)
                else:
                    answered.set_result(reply)
            self._send_more()
        except InvalidResponse as error:
            self.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(RedisConnectionError("the server closed the connection"))

    def fail(self, error: Exception) -> None:
        """The connection is of no use any more; all who wait are told."""
        if self._broken is None:
            self._broken = error
            self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        told = [answered for answered, _ in (*self._waiting, *self._later)]
        self._waiting.clear()
        self._later.clear()
        for answered in told:
            if not answered.done():
                answered.set_exception(error)
