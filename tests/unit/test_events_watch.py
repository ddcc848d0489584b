"""A watched conversation: what a reader that enters is told, read by read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

from models.buffer.buffer import Place
from models.pipeline.follow import Changes, Question
from tests.unit.test_events_ledger import UID, message, seen
from web.events.offsets import START
from web.events.queues import Queue
from web.events.watch import Watcher

PLACE = Place("ann", "c", UID, UID.hex, cast(Any, SimpleNamespace()))


def watcher(ask: Callable[[Question], Awaitable[Changes]]) -> Watcher:
    async def ask_slowly(_: Question) -> Changes:
        return seen(message(1), unstored={})

    return Watcher(PLACE, ask, ask_slowly, lambda batch, readers: None)


def test_a_read_that_began_after_a_reader_came_but_left_something_is_not_as_good_as_its_own() -> None:
    """A conversation with much new is read in several steps; a reader may come to the lock between them."""

    async def main() -> None:
        gate: asyncio.Queue[Changes] = asyncio.Queue()
        watched = watcher(lambda _: gate.get())
        end = (await watched.enter(Queue(), START)).end
        # Before the reader: a read under way, and another that waits for its turn.
        steps = [asyncio.create_task(watched.step()) for _ in range(2)]
        await asyncio.sleep(0)
        entering = asyncio.create_task(watched.enter(Queue(), end))
        await asyncio.sleep(0)
        for found in (seen(version=1), seen(message(2), more=True), seen(message(3, id="n"))):
            gate.put_nowait(found)
        await asyncio.gather(*steps)
        entry = await asyncio.wait_for(entering, 5)
        assert (entry.attached, entry.end.version) == (True, 3)

    asyncio.run(main())
