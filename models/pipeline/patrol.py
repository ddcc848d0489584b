"""Patrol: a worker process looks for work itself, so that a dead beat, or a dead broker, only slows things down.

One daemon thread in each worker process, beside the tasks. About once a second it says that its process lives, looks at
a sample of the partitions, and flushes the most overdue one if bells and beat have missed it for two seconds; while there
is more, it goes on. If nobody has swept lately, it sweeps. Nothing of this needs Celery, a message, or the broker.

Why a thread here and not a timer of the worker's event loop: that loop lives in the parent process, where blocking calls
delay every message and connections would be carried over forks.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
from collections.abc import Callable
from typing import Final

from models.buffer import keys
from models.buffer.partitions import Look, Partitions
from models.core.schedule import PATROL_EVERY_MS, PATROL_LATE_MS, PATROL_SAMPLE, sweep_claim_ms
from models.errors import BlotterError, BufferUnavailable
from models.pipeline.flush import Flusher
from models.pipeline.sweep import Sweeper

log = logging.getLogger("blotter.patrol")

#: A worker process that said nothing for this long counts as dead.
ALIVE_MS: Final = 15_000
#: How long an orderly end waits for the flush at hand: its batch's transaction.
STOP_S: Final = 8.0


class Patrol:
    """The patrol of this process."""

    def __init__(
        self,
        partitions: Partitions,
        flusher: Flusher,
        sweeper: Sweeper,
        numbers: int,
        sweep_ms: int,
        *,
        chance: Callable[[], float] = random.random,
        every_ms: int = PATROL_EVERY_MS,
        late_ms: int = PATROL_LATE_MS,
    ) -> None:
        self._partitions = partitions
        self._flusher = flusher
        self._sweeper = sweeper
        self._numbers = numbers
        self._claim_ms = sweep_claim_ms(sweep_ms)
        self._chance = chance
        self._every_s = every_ms / 1000
        self._late_ms = late_ms
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="blotter-patrol", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the batch at hand, release, and end; waits at most STOP_S."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_S)
        try:
            self._partitions.gone(self.name)
        except BlotterError:
            log.debug("the buffer is away; this process is forgotten by time")

    def _run(self) -> None:
        while not self._stop.wait(self._every_s * (0.75 + self._chance() / 2)):
            try:
                while not self._stop.is_set() and self.look():
                    pass
            except BufferUnavailable as error:
                log.warning("the patrol found no buffer: %s", error)
            except Exception:
                # The thread's boundary: what is wrong with one look is told, and the next one is made.
                log.exception("the patrol stumbled")

    def look(self) -> bool:
        """One look; True if a partition was flushed and there may be more. Raises as flush and sweep do."""
        self._partitions.alive(self.name, ALIVE_MS)
        if self._partitions.claim(keys.SWEEP, self._claim_ms):
            self._sweeper.sweep()
        late = most_overdue(self._partitions.look(self._sample()), self._late_ms)
        if late is None:
            return False
        return self._flusher.flush(late.number).state == "done"

    def _sample(self) -> list[int]:
        if self._numbers <= PATROL_SAMPLE:
            return list(range(self._numbers))
        return random.sample(range(self._numbers), PATROL_SAMPLE)


def most_overdue(looks: list[Look], late_ms: int) -> Look | None:
    """The free partition that is most overdue, if by more than ``late_ms``."""
    late = [look for look in looks if look.free and look.late_ms > late_ms]
    return max(late, key=lambda look: look.late_ms, default=None)
