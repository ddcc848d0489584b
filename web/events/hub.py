"""All watched conversations of the process: who looks when, and what becomes of readers when we stop.

A hint makes its watcher look at once, further ones within the gap are looked at together; besides, every watcher looks
every few seconds. A watcher whose last reader left is kept for a moment: a poll that comes back goes on with deltas.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Literal

from models.buffer.buffer import Place
from models.errors import BlotterError, BufferUnavailable
from models.pipeline.follow import Follower
from models.settings import Settings
from web.events.hints import Hint, Hints
from web.events.metrics import Metrics
from web.events.offsets import Position
from web.events.queues import Batch, Queue
from web.events.reads import Reads
from web.events.watch import Entry, Watcher

log = logging.getLogger("blotter.events")

#: Least time between two reads of a conversation, s: what is saved meanwhile is told together.
GAP_S: Final = 0.03
#: After a read that failed, s.
AGAIN_S: Final = 1.0
#: A watcher without readers is kept this long, s.
LINGER_S: Final = 15.0
_TICK_S: Final = 0.25


class _Watched:
    """A watcher and its times (the loop's clock, s)."""

    __slots__ = ("again", "looked_at", "next_look", "pending", "quiet_since", "running", "users", "watcher")

    def __init__(self, watcher: Watcher, now: float) -> None:
        self.watcher = watcher
        self.users = 0
        self.looked_at = 0.0
        self.next_look = now
        self.quiet_since = now
        self.pending = self.running = self.again = False


class Hub:
    """Belongs to one event loop; `start` it there."""

    def __init__(self, settings: Settings, follower: Follower, metrics: Metrics) -> None:
        self._settings = settings
        self._follower = follower
        self._metrics = metrics
        self._reads = Reads(follower)
        self._watched: dict[str, _Watched] = {}
        self._hints: Hints | None = None
        self._hinted: dict[str, list[Hint]] = {}
        self._hinted_lock = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.closing = False

    @property
    def listening(self) -> bool:
        """True while hints arrive."""
        return self._hints is not None and self._hints.listening

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        channels = [keys.live for keys in self._follower.buffer.partitions]
        self._hints = Hints(
            self._settings,
            channels,
            self._watched,
            self._hint,
            self._lost,
        )
        self._hints.start()
        self._spawn(self._tick())

    def end_readers(self) -> None:
        """End all readers, and let no more in; each was told where to go on."""
        self.closing = True
        for watched in self._watched.values():
            watched.watcher.end()

    async def stop(self) -> None:
        """End everything."""
        self.end_readers()
        if self._hints is not None:
            self._hints.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._reads.close()

    @property
    def watchers(self) -> int:
        return len(self._watched)

    @asynccontextmanager
    async def reading(
        self, place: Place, queue: Queue
    ) -> AsyncIterator[Callable[[Position | Literal["now"]], asyncio.Future[Entry]]]:
        """A function that enters ``queue`` at a position (see Watcher.enter), for the time of the block."""
        watched = self._watched.get(place.hex)
        if watched is None:
            watcher = Watcher(place, self._reads.ask, self._reads.ask_slowly, self._sent)
            watched = self._watched[place.hex] = _Watched(watcher, self._loop.time() + self._poll_s())
        watched.users += 1
        try:
            yield lambda asked: asyncio.ensure_future(watched.watcher.enter(queue, asked))
        finally:
            watched.users -= 1
            watched.watcher.leave(queue)
            watched.quiet_since = self._loop.time()

    def watcher(self, place: Place) -> Watcher:
        """The watcher of a conversation that is being read."""
        return self._watched[place.hex].watcher

    @property
    def reads(self) -> Reads:
        return self._reads

    # ------------------------------------------------------------------ when to look
    def _hint(self, hint: Hint) -> None:
        with self._hinted_lock:
            first = not self._hinted
            self._hinted.setdefault(hint.uid, []).append(hint)
        if first:
            self._loop.call_soon_threadsafe(self._take_hints)

    def _lost(self) -> None:
        self._loop.call_soon_threadsafe(self._look_everywhere)

    def _take_hints(self) -> None:
        with self._hinted_lock:
            hinted, self._hinted = self._hinted, {}
        for uid, hints in hinted.items():
            watched = self._watched.get(uid)
            if watched is not None:
                self._metrics.hints.inc(len(hints))
                for hint in hints:
                    watched.watcher.hint(hint)
                self._look(watched)

    def _look_everywhere(self) -> None:
        """Hints may have been lost, or the buffer's server is another one now."""
        self._spawn(self._initialise())
        now = self._loop.time()
        for watched in self._watched.values():
            watched.next_look = min(watched.next_look, now + random.uniform(0, 1))  # noqa: S311 (spread, no secret)

    async def _initialise(self) -> None:
        try:
            await self._loop.run_in_executor(None, self._follower.buffer.initialise)
        except BlotterError as error:
            log.warning("the buffer: %s", error)

    def _look(self, watched: _Watched) -> None:
        """Look now, or when the gap since the last look has passed."""
        if watched.running:
            watched.again = True
        elif not watched.pending:
            watched.pending = True
            delay = watched.looked_at + GAP_S - self._loop.time()
            if delay <= 0:
                self._spawn(self._run(watched))
            else:
                self._loop.call_later(delay, lambda: self._spawn(self._run(watched)))

    async def _run(self, watched: _Watched) -> None:
        watched.pending, watched.running = False, True
        watched.looked_at = self._loop.time()
        try:
            watched.again = await watched.watcher.step() or watched.again
            watched.next_look = self._loop.time() + self._poll_s()
        except BlotterError as error:
            self._metrics.faults.labels(type(error).__name__).inc()
            watched.next_look = self._loop.time() + AGAIN_S
            watched.again = False
            if not isinstance(error, BufferUnavailable):
                log.info("a conversation could not be looked at (%s)", type(error).__name__)
        finally:
            watched.running = False
        if watched.again and not self.closing:
            watched.again = False
            self._look(watched)

    def _poll_s(self) -> float:
        """With some spread, or all that came together would look together for ever."""
        return self._settings.events_poll_seconds * random.uniform(0.8, 1.2)  # noqa: S311 (spread, no secret)

    def _heed_signals(self) -> None:
        """Granian ends an application only when its last answer is complete, and a stream is not complete by itself.

        Its own handler is the loop's, which is woken by descriptor; what stands here runs before that, not instead.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) != self._asked_to_end:
                    signal.signal(number, self._asked_to_end)

    def _asked_to_end(self, number: int, frame: object) -> None:
        self._loop.call_soon_threadsafe(self.end_readers)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._heed_signals()
            now = self._loop.time()
            for uid, watched in list(self._watched.items()):
                if watched.users == 0 and now - watched.quiet_since > LINGER_S and not watched.running:
                    del self._watched[uid]
                elif now >= watched.next_look:
                    watched.next_look = now + self._poll_s()
                    self._look(watched)

    def _sent(self, batch: Batch, readers: int) -> None:
        self._metrics.sent(batch, readers)

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = self._loop.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("fault: %s", type(error).__name__, exc_info=error)
