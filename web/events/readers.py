"""The three ways to read: catching up, a long poll, a stream of server-sent events."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

from starlette.responses import Response

from models.buffer.buffer import Place
from models.buffer.following import FollowRequest
from models.errors import Gone, StoreUnavailable
from models.pipeline.follow import Question
from models.settings import Settings
from web.events import answers, frames
from web.events.hub import Hub
from web.events.ledger import checkpoint, whole
from web.events.metrics import Metrics
from web.events.offsets import Position, next_cursor
from web.events.queues import Batch, Queue
from web.events.requests import Wish
from web.events.watch import Entry, Watcher, refuse_partial
from web.problems import Problem

#: What is told at once, in parts: of a batch that goes to many readers there is one copy.
Chunk: TypeAlias = Sequence[bytes]
#: A stream with nothing to tell says so this often, s.
HEARTBEAT_S: Final = 15.0
#: A version above all others: nothing lies beyond, only the place itself is asked for.
_TAIL: Final = 2**53


class Readers:
    """Answers readers, and counts them."""

    def __init__(self, settings: Settings, hub: Hub, metrics: Metrics) -> None:
        self._settings = settings
        self._hub = hub
        self._metrics = metrics
        self._most_of_owner = 0 if settings.embedded else settings.events_owner_connections
        self._of_owner: Counter[str] = Counter()

    # ------------------------------------------------------------------ once
    async def once(self, place: Place, wish: Wish, if_none_match: str | None) -> Response:
        """What there is beyond the offset, now. Raises as Follower.answer."""
        since = _TAIL if wish.asked == "now" else wish.asked.version
        changes = await self._hub.reads.ask_slowly(
            Question(FollowRequest(place=place, since=since, census=True))
        )
        if changes.state == "partial":
            raise StoreUnavailable("only what was saved lately is known, Postgres is away")
        unstored = changes.unstored or {}
        end = Position(changes.version, None if changes.more else len(unstored))
        events = [whole(change) for change in changes.changes if not changes.closed or change.name == "c/"]
        if wish.asked != "now":
            if changes.version < wish.asked.version:
                raise Gone("the offset lies above what is kept: read from the beginning")
            if not changes.more and not changes.closed and (events or wish.asked != end):
                events.append(checkpoint(place.id, changes.buffer_epoch, changes.version, unstored))
        told = answers.headers(
            end, changes.buffer_epoch, up_to_date=not changes.more, closed=changes.closed and not changes.more
        )
        return answers.array(frames.array(events), told, if_none_match, tag=wish.asked != "now")

    async def head(self, place: Place) -> Response:
        """Where the stream ends now. Raises as Follower.answer."""
        question = Question(FollowRequest(place=place, since=_TAIL, census=True))
        changes = await self._hub.reads.ask_slowly(question)
        if changes.state == "partial":
            raise StoreUnavailable("only what was saved lately is known, Postgres is away")
        end = Position(changes.version, len(changes.unstored or {}))
        told = answers.headers(end, changes.buffer_epoch, up_to_date=False, closed=changes.closed)
        return Response(headers=told, media_type="application/json")

    # ------------------------------------------------------------------ a long poll
    async def poll(self, place: Place, wish: Wish) -> Response:
        """What comes beyond the offset, as soon as something does; 204 after a while. Raises as Watcher.enter."""
        queue = Queue()
        with self._counted(wish):
            async with self._hub.reading(place, queue) as enter:
                entry = refuse_partial(await enter(wish.asked))
                watcher = self._hub.watcher(place)
                if entry.events or entry.due or entry.closed or not entry.attached:
                    marks = [one for one in (entry.events, entry.mark if entry.due else b"") if one]
                    return self._polled(wish, watcher, marks, entry.end, entry.attached, entry.closed)
                wait_s = min(self._settings.events_long_poll_seconds, wish.expires_at - time.time())
                await queue.wait(wait_s)
                batches = queue.take()
                if any(batch.end is None for batch in batches):
                    raise StoreUnavailable("only what was saved lately is known, Postgres is away")
                end = next((batch.end for batch in reversed(batches) if batch.end is not None), entry.end)
                last = batches[-1] if batches else None
                return self._polled(
                    wish,
                    watcher,
                    [batch.events for batch in batches if batch.events],
                    end,
                    up_to_date=last is None or last.up_to_date,
                    closed=last is not None and last.closed,
                )

    def _polled(
        self, wish: Wish, watcher: Watcher, events: list[bytes], end: Position, up_to_date: bool, closed: bool
    ) -> Response:
        told = answers.headers(
            end, watcher.epoch, up_to_date=up_to_date, closed=closed, cursor=self._cursor(wish)
        )
        if not events:
            return Response(status_code=204, headers=told)
        return answers.array(frames.joined(events), told, None)

    # ------------------------------------------------------------------ server-sent events
    async def stream(self, place: Place, wish: Wish) -> Response:
        """A stream until its time is up, the token expires, or the conversation is deleted.

        Raises as Watcher.enter, before anything is sent.
        """
        queue = Queue()
        chunks = self._chunks(place, wish, queue)
        # The first chunk decides between a refusal and a stream.
        first = await anext(chunks)

        async def all_chunks() -> AsyncGenerator[Chunk, None]:
            try:
                yield first
                async for chunk in chunks:
                    yield chunk
            finally:
                await chunks.aclose()

        told = {"Cache-Control": answers.CACHE_CONTROL}
        return answers.Stream(all_chunks(), queue, told, self._settings.events_stall_seconds)

    async def _chunks(self, place: Place, wish: Wish, queue: Queue) -> AsyncGenerator[Chunk, None]:
        loop = asyncio.get_running_loop()
        life_s = min(
            self._settings.events_sse_seconds * random.uniform(0.9, 1.1),  # noqa: S311 (spread, no secret)
            wish.expires_at - time.time(),
        )
        ends_at = loop.time() + life_s
        cursor = wish.cursor
        with self._counted(wish):
            try:
                async with self._hub.reading(place, queue) as enter:
                    asked = wish.asked
                    while True:
                        entry = await enter(asked)
                        cursor = next_cursor(cursor, time.time(), random.randint(1, 3600))  # noqa: S311
                        yield _first(entry, cursor, now=wish.asked == "now")
                        if entry.attached or entry.closed:
                            break
                        asked = entry.end
                    at = entry.end
                    while not entry.closed:
                        left_s = ends_at - loop.time()
                        if left_s <= 0 or (queue.ended and not queue.waiting):
                            break
                        if not await queue.wait(min(HEARTBEAT_S, left_s)):
                            yield [frames.HEARTBEAT]
                            continue
                        out: list[bytes] = []
                        closed = False
                        for batch in queue.take():
                            at = batch.end or at
                            closed = batch.closed
                            out += _told(batch, at, cursor)
                        if out:
                            yield out
                        if closed:
                            break
            finally:
                # Also where it is ended in the middle of a write that its reader never took.
                if queue.dropped:
                    self._metrics.dropped.inc()

    def _cursor(self, wish: Wish) -> str:
        return next_cursor(wish.cursor, time.time(), random.randint(1, 3600))  # noqa: S311 (spread, no secret)

    @contextmanager
    def _counted(self, wish: Wish) -> Iterator[None]:
        """Count a live reader. Raises Problem: too many, of this owner or altogether; or we are stopping."""
        if self._hub.closing or self._of_owner.total() >= self._settings.events_connections:
            raise Problem("unavailable", "This process takes no more readers.")
        if self._most_of_owner and self._of_owner[wish.owner] >= self._most_of_owner:
            raise Problem(
                "rate-limited",
                f"More than {self._most_of_owner} live readers.",
                headers={"Retry-After": "5"},
                limit=self._most_of_owner,
            )
        self._of_owner[wish.owner] += 1
        gauge = self._metrics.readers.labels(wish.live)
        gauge.inc()
        try:
            yield
        finally:
            gauge.dec()
            self._of_owner[wish.owner] -= 1
            if not self._of_owner[wish.owner]:
                del self._of_owner[wish.owner]


def _first(entry: Entry, cursor: str, *, now: bool) -> Chunk:
    """What a stream begins with; each stretch of data is followed by its control."""
    if entry.partial:
        data = frames.data(entry.events) if entry.events else []
        return [*data, frames.control(entry.end, cursor, up_to_date=False)]
    up_to_date = entry.attached or entry.closed
    control = frames.control(entry.end, cursor, up_to_date=up_to_date, closed=entry.closed)
    events = [one for one in (entry.events, entry.mark) if one]
    data = frames.data(frames.joined(events)) if events else []
    # A reader that asked for nothing but the future learns first where that begins.
    return [control, *data, control] if now and data else [*data, control]


def _told(batch: Batch, at: Position, cursor: str) -> Chunk:
    control = frames.control(at, cursor, up_to_date=batch.up_to_date, closed=batch.closed)
    return [*frames.data(batch.events), control] if batch.events else [control]
