"""What a reader is answered: a JSON array, 204, or a stream of server-sent events. Headers as the protocol names them.

Nothing may be kept by a cache: answers are one owner's, and a stream is told as it is now.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from flask import Response as FlaskResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.errors import BlotterError
from web.events.offsets import Position
from web.events.queues import Queue
from web.events.sockets import cut, find, untaken
from web.problems import Problem, from_error

CACHE_CONTROL: Final = "private, no-store"
#: What the protocol's clients read, to be exposed to pages of other origins.
STREAM_HEADERS: Final = (
    "Stream-Next-Offset",
    "Stream-Cursor",
    "Stream-Up-To-Date",
    "Stream-Closed",
    "Blotter-Buffer-Epoch",
)


def headers(
    end: Position, epoch: str, *, up_to_date: bool, closed: bool = False, cursor: str | None = None
) -> dict[str, str]:
    """Where the reader stands after this answer."""
    told = {
        "Stream-Next-Offset": str(end),
        "Cache-Control": CACHE_CONTROL,
        "Blotter-Buffer-Epoch": epoch,
    }
    if up_to_date or closed:
        told["Stream-Up-To-Date"] = "true"
    if closed:
        told["Stream-Closed"] = "true"
    elif cursor is not None:
        told["Stream-Cursor"] = cursor
    return told


def array(events: bytes, told: Mapping[str, str], if_none_match: str | None, *, tag: bool = True) -> Response:
    """200 with events, or 304 where the reader has just these (they are not kept by caches, but may be by readers)."""
    body = events or b"[]"
    kept = dict(told)
    if tag:
        digest = blake2b(body + "/".join(kept.values()).encode(), digest_size=12).hexdigest()
        etag = f'"{digest}"'
        kept["ETag"] = etag
        if if_none_match is not None and etag in (
            one.strip().removeprefix("W/") for one in if_none_match.split(",")
        ):
            return Response(status_code=304, headers=kept)
    return Response(body, media_type="application/json", headers=kept)


def problem(error: Exception) -> Response:
    """A refusal, in the very words web uses."""
    if isinstance(error, Problem):
        return converted(error.answer())
    assert isinstance(error, BlotterError)
    return converted(from_error(error))


def converted(response: FlaskResponse) -> Response:
    kept = {name: value for name, value in response.headers.items() if name != "Content-Length"}
    kept["Cache-Control"] = "no-store"
    return Response(response.get_data(), response.status_code, headers=kept)


class Stream(Response):
    """Server-sent events. ``chunks`` is ended, and ``queue`` with it, when the reader goes away.

    Each chunk is sent by pieces, and each waits for the server to take it: so the process holds little for a reader that
    is slow, and one that lets a piece wait for ``stall_s`` is cut off. It reads the rest by its offset, when it reads.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        chunks: AsyncGenerator[Sequence[bytes], None],
        queue: Queue,
        told: Mapping[str, str],
        stall_s: float,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._chunks, self._queue, self._stall_s = chunks, queue, stall_s
        # X-Accel-Buffering: nginx holds streams back otherwise.
        self.init_headers({**told, "X-Accel-Buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_until_gone(receive))
        gone.add_done_callback(lambda _: self._queue.end())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for chunk in self._chunks:
                for piece in _pieces(chunk):
                    if gone.done():
                        return
                    async with asyncio.timeout(self._stall_s):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
            if self._queue.dropped:
                await self._let_go(scope, gone, self._stall_s)
            async with asyncio.timeout(self._stall_s):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self._queue.drop()
            await self._let_go(scope, gone, 0)
        finally:
            gone.cancel()
            await self._chunks.aclose()

    async def _let_go(self, scope: Scope, gone: asyncio.Future[None], within_s: float) -> None:
        """Return when the reader, which fell behind, has taken what it was sent; cut it off where it does not in time."""
        connection = find(scope.get("client"), scope.get("server"))
        if connection is None:
            return
        with connection:
            ends_at = asyncio.get_running_loop().time() + within_s
            while untaken(connection) and not gone.done():
                if asyncio.get_running_loop().time() >= ends_at:
                    cut(connection)
                    return
                await asyncio.wait([gone], timeout=_LOOK_S)


#: So often it is looked whether a reader has taken all, s.
_LOOK_S: Final = 0.1
#: Bytes sent at once.
_PIECE: Final = 64 * 1024


def _pieces(chunk: Sequence[bytes]) -> Iterator[bytes]:
    """``chunk`` in order: small parts together, large ones cut up; nothing large is copied whole."""
    if sum(map(len, chunk)) <= _PIECE:
        yield b"".join(chunk)
        return
    for part in chunk:
        for begin in range(0, len(part), _PIECE):
            yield part[begin : begin + _PIECE]


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
