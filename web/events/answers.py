"""What a reader is answered: a JSON array, 204, or a stream of server-sent events. Headers as the protocol names them.

Nothing may be kept by a cache: answers are one owner's, and a stream is told as it is now.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final

from flask import Response as FlaskResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.errors import BlotterError
from web.events.offsets import Position
from web.events.queues import Queue
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
    """Server-sent events. ``chunks`` is ended, and ``queue`` with it, when the reader goes away."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes], queue: Queue, told: Mapping[str, str]) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self._chunks, self._queue = chunks, queue
        # X-Accel-Buffering: nginx holds streams back otherwise.
        self.init_headers({**told, "X-Accel-Buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_until_gone(receive))
        gone.add_done_callback(lambda _: self._queue.end())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for chunk in self._chunks:
                if gone.done():
                    return
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            with suppress(Exception):
                await self._close()

    async def _close(self) -> None:
        close: Any = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
