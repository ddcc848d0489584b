"""A reader's queue: batches wait here until its connection takes them.

Bounded by bytes: who falls behind is ended, and resumes by the offset it was told last. So a reader that does not read
costs a fixed sum, and never slows the others; its connection is cut when it has taken nothing for a while (answers.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, NamedTuple

from web.events.offsets import Position

#: What may wait for one reader; a single batch is let in whatever its size.
MOST_BYTES: Final = 1024 * 1024
MOST_BATCHES: Final = 256


class Batch(NamedTuple):
    """Events for every reader at ``start`` (None: wherever it stands, and it stays there); ``events``: a JSON array or b""."""

    start: Position | None
    end: Position | None
    events: bytes
    up_to_date: bool = True
    closed: bool = False


class Queue:
    """One reader's. Belongs to one event loop."""

    __slots__ = ("_batches", "_size", "_wake", "dropped", "ended")

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self.ended = False
        #: True where it was ended because it did not keep up.
        self.dropped = False

    def put(self, batch: Batch) -> None:
        """Let it wait; a reader too far behind is ended instead."""
        if self.ended:
            return
        if self._batches and (
            self._size + len(batch.events) > MOST_BYTES or len(self._batches) >= MOST_BATCHES
        ):
            self.drop()
            return
        self._batches.append(batch)
        self._size += len(batch.events)
        self._wake.set()

    def drop(self) -> None:
        """End a reader that did not keep up; what waits for it is forgotten."""
        self.dropped = True
        self._batches.clear()
        self.end()

    @property
    def waiting(self) -> bool:
        return bool(self._batches)

    def end(self) -> None:
        """Nothing follows what waits now."""
        self.ended = True
        self._wake.set()

    def take(self) -> list[Batch]:
        """All that waits, at once."""
        batches = list(self._batches)
        self._batches.clear()
        self._size = 0
        if not self.ended:
            self._wake.clear()
        return batches

    async def wait(self, timeout_s: float) -> bool:
        """True as soon as something waits or the end is reached, False after ``timeout_s``."""
        if self._wake.is_set():
            return True
        try:
            async with asyncio.timeout(max(timeout_s, 0.0)):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True
