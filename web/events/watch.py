"""A watched conversation: one read serves all its readers, each reader gets each batch once.

Everything that moves the ledger happens under one lock, entering readers included: a reader that catches up is attached
in the same step that brings the others to the version it was given, so it misses nothing and gets nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple

from models.buffer.buffer import Place
from models.buffer.following import FollowRequest
from models.errors import Gone, NotFound, StoreUnavailable
from models.pipeline.follow import Changes, Question
from web.events import frames
from web.events.hints import Hint
from web.events.ledger import Ledger, checkpoint, whole
from web.events.offsets import START, Position
from web.events.queues import Batch, Queue

log = logging.getLogger("blotter.events")

#: Past batches kept, so that a reader that was away for a moment goes on with deltas.
RING_BATCHES: Final = 128
RING_BYTES: Final = 64 * 1024
#: A version no conversation reaches: nothing lies above it.
_NO_SINCE: Final = 2**53

Ask = Callable[[Question], Awaitable[Changes]]


class Entry(NamedTuple):
    """What a reader gets first. ``attached``: its queue goes on from ``end``; else ask again from ``end``.

    ``mark``: the checkpoint at ``end``, a JSON array; ``due``: it tells something even where ``events`` is empty.
    """

    events: bytes
    end: Position
    attached: bool
    mark: bytes = b""
    due: bool = False
    closed: bool = False
    partial: bool = False


class Watcher:
    """One conversation's. Belongs to one event loop."""

    def __init__(self, place: Place, ask: Ask, ask_slowly: Ask, sent: Callable[[Batch, int], None]) -> None:
        """``sent(batch, readers)`` is told of every batch."""
        self.place = place
        self.queues: set[Queue] = set()
        self.epoch = ""
        self._ask, self._ask_slowly, self._sent = ask, ask_slowly, sent
        self._lock = asyncio.Lock()
        self._ledger: Ledger | None = None
        self._blind: Ledger | None = None
        self._cold = -1
        # Whether the last read left something above the ledger's version.
        self._more = False
        self._ring: deque[Batch] = deque()
        self._ring_bytes = 0
        # What hints told since the last read: how far they reach without a gap, and the rows they name.
        self._reach = 0
        self._names: set[str] | None = set()
        self._turn = 0

    @property
    def unstored(self) -> int:
        """Items not yet committed, as far as this watcher has come."""
        return len(self._ledger.unstored) if self._ledger is not None else 0

    def hint(self, hint: Hint) -> None:
        """Note what the next read has to look at."""
        if not hint.names:
            # A commit, or more rows than a hint names.
            if hint.version > self._reach:
                self._names = None
        elif self._names is not None:
            if hint.before == self._reach:
                self._names.update(hint.names)
                self._reach = hint.version
            elif hint.version > self._reach:
                self._names = None

    async def step(self) -> bool:
        """Look once and tell the readers. True: there is more, step again. Errors end readers or are raised.

        Raises StoreUnavailable, BufferUnavailable, Contention: nothing was lost, look again later.
        """
        async with self._lock:
            return await self._step()

    async def enter(self, queue: Queue, asked: Position | Literal["now"]) -> Entry:
        """Bring a reader up from where it stands, and attach its queue once it is up to date.

        Raises as Follower.answer.
        """
        turn = self._turn
        async with self._lock:
            if self._stands_at(asked):
                # A read that began after the reader came is as good as one of its own, if it reached the end.
                if self._turn < turn + 2 or self._more:
                    while await self._step():
                        pass
                entry = self._continued(queue, asked)
                if entry is not None:
                    return entry
            return await self._caught_up(queue, asked)

    def leave(self, queue: Queue) -> None:
        self.queues.discard(queue)

    def end(self) -> None:
        """End all readers."""
        for queue in self.queues:
            queue.end()
        self.queues.clear()

    # ------------------------------------------------------------------ entering
    def _stands_at(self, asked: Position | Literal["now"]) -> bool:
        """True where the ledger, or one of the last batches, begins where the reader stands."""
        if self._ledger is None or self._blind is not None:
            return False
        return asked in ("now", self._ledger.position) or self._ringed(asked) is not None

    def _ringed(self, asked: Position | Literal["now"]) -> int | None:
        return next((index for index, batch in enumerate(self._ring) if batch.start == asked), None)

    def _continued(self, queue: Queue, asked: Position | Literal["now"]) -> Entry | None:
        """The rest, where nothing but the last batches is missing."""
        ledger = self._ledger
        if ledger is None or not self._stands_at(asked):
            return None
        if asked in ("now", ledger.position):
            return self._attached(queue, b"", ledger)
        index = self._ringed(asked) or 0
        missed = [batch.events for batch in list(self._ring)[index:] if batch.events]
        return self._attached(queue, frames.joined(missed) if missed else b"", ledger)

    async def _caught_up(self, queue: Queue, asked: Position | Literal["now"]) -> Entry:
        since = _NO_SINCE if asked == "now" else asked.version
        awaited: dict[str, int] = {}
        if self._ledger is not None:
            since = min(since, self._ledger.version)
            awaited = dict(self._ledger.unstored)
        changes = await self._ask_slowly(
            Question(FollowRequest(place=self.place, since=since, awaited=awaited, census=True))
        )
        self.epoch = changes.buffer_epoch
        beyond = changes.changes
        if asked != "now":
            if changes.state == "whole" and changes.version < asked.version:
                raise Gone("the offset lies above what is kept: read from the beginning")
            beyond = tuple(change for change in beyond if change.item.record.version > asked.version)
        if changes.state == "partial":
            self._take_partial(changes)
            self.queues.add(queue)
            events = [whole(change, partial=True) for change in beyond]
            return Entry(
                frames.array(events), START if asked == "now" else asked, attached=True, partial=True
            )
        events = [whole(change) for change in beyond if not changes.closed or change.name == "c/"]
        if changes.more and not changes.closed:
            return Entry(frames.array(events), Position(changes.version), attached=False)
        if self._blind is not None:
            self._leave_partial()
        if self._ledger is None:
            self._ledger = Ledger(self.place.id, changes)
            self._cold = changes.cold
            self._restart_hints()
        else:
            self._take(changes)
            self._ledger.learn(beyond)
        due = asked != "now" and (bool(events) or asked != self._ledger.position)
        return self._attached(queue, frames.array(events), self._ledger, due=due)

    def _attached(self, queue: Queue, events: bytes, ledger: Ledger, *, due: bool = False) -> Entry:
        if ledger.closed:
            return Entry(events, ledger.position, attached=False, closed=True)
        self.queues.add(queue)
        mark = frames.array([checkpoint(self.place.id, ledger.epoch, ledger.version, ledger.unstored)])
        return Entry(events, ledger.position, attached=True, mark=mark, due=due)

    # ------------------------------------------------------------------ stepping
    async def _step(self) -> bool:
        ledger = self._blind or self._ledger
        if ledger is None or ledger.closed:
            return False
        question = self._question(ledger)
        try:
            changes = await self._ask(question)
        except (NotFound, Gone):
            self._ledger = self._blind = None
            self.end()
            return False
        except BaseException:
            # What hints had told is forgotten with the question: look at everything next time.
            self._names = None
            raise
        self._turn += 1
        self.epoch = changes.buffer_epoch
        if changes.state == "partial":
            self._take_partial(changes)
            return False
        if self._blind is not None:
            self._leave_partial()
            return self._ledger is not None
        self._take(changes)
        return changes.more

    def _question(self, ledger: Ledger) -> Question:
        names = self._names
        self._turn += 1
        reach = max(self._reach, ledger.version)
        self._names, self._reach = set(), reach
        blind = ledger is self._blind
        request = FollowRequest(
            place=self.place,
            since=ledger.version,
            at=reach,
            names=None if names is None or blind else tuple(names),
            known={} if blind else ledger.known(),
            awaited=dict(ledger.unstored),
            epoch=ledger.epoch,
        )
        return Question(request, cold=-1 if blind else self._cold)

    def _take(self, changes: Changes) -> None:
        """Go on, and tell every reader."""
        assert self._ledger is not None
        ledger, start = self._ledger, self._ledger.position
        self._cold, self._more = changes.cold, changes.more
        events = frames.array(ledger.absorb(changes))
        # Hints up to here have been answered; those that were given meanwhile may reach further.
        self._reach = max(self._reach, ledger.version)
        if not events and ledger.position == start:
            return
        batch = Batch(start, ledger.position, events, up_to_date=not changes.more, closed=ledger.closed)
        self._keep(batch)
        self._tell(batch)
        if ledger.closed:
            self.end()

    def _keep(self, batch: Batch) -> None:
        if batch.start == batch.end:
            return
        self._ring.append(batch)
        self._ring_bytes += len(batch.events)
        while len(self._ring) > RING_BATCHES or self._ring_bytes > RING_BYTES:
            self._ring_bytes -= len(self._ring.popleft().events)

    def _tell(self, batch: Batch) -> None:
        for queue in self.queues:
            queue.put(batch)
        gone = {queue for queue in self.queues if queue.ended}
        self.queues -= gone
        self._sent(batch, len(self.queues))

    def _restart_hints(self) -> None:
        assert self._ledger is not None
        self._reach, self._names = self._ledger.version, None

    # ------------------------------------------------------------------ Postgres away, and the conversation was cold
    def _take_partial(self, changes: Changes) -> None:
        if self._blind is None:
            empty = changes._replace(version=0, changes=())
            self._blind = Ledger(self.place.id, empty, partial=True)
        events = self._blind.absorb(changes)
        if events:
            self._tell(Batch(None, None, frames.array(events), up_to_date=False))

    def _leave_partial(self) -> None:
        """What lies below is known again: readers come back with the offset they were told, and get it whole."""
        self._blind = None
        self.end()
        if self._ledger is not None:
            self._restart_hints()


def refuse_partial(entry: Entry) -> Entry:
    """For polls, which have no connection on which a layer could be taken back. Raises StoreUnavailable."""
    if entry.partial:
        raise StoreUnavailable("only what was saved lately is known, Postgres is away")
    return entry
