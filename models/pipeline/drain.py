"""Drain: everything in the buffer goes to Postgres now, open replies included. Before maintenance, or to leave.

Makes due what is scheduled for later, flushes every partition, and goes on until nothing is dirty or the time is up.
Workers may run beside it: a partition they hold is theirs, and is looked at again. Dead letters are not waited for; they
are told. Saves that keep coming keep it busy: stop web first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from models.buffer.buffer import Buffer
from models.buffer.partitions import PULL_ENTRIES, Partitions
from models.pipeline.flush import Flusher

_PAUSE_S: Final = 0.05


class Drained(NamedTuple):
    """Where a drain stands: rows not yet committed, conversations whose journal waits, dead letters."""

    dirty: int
    blind: int
    dead: int

    @property
    def done(self) -> bool:
        """Nothing is left but dead letters."""
        return self.dirty == 0 and self.blind == 0


def drain(
    buffer: Buffer,
    partitions: Partitions,
    flusher: Flusher,
    *,
    within_s: float,
    progress: Callable[[Drained], None] = lambda drained: None,
) -> Drained:
    """Drain for at most ``within_s`` seconds; ``progress`` is called after each round. Raises BufferUnavailable."""
    deadline_s = time.monotonic() + within_s
    while True:
        for keys in buffer.partitions:
            while partitions.pull(keys) == PULL_ENTRIES:
                pass
        for count in partitions.counts():
            if count.due or count.blind:
                flusher.flush(count.number)
        counts = partitions.counts()
        drained = Drained(
            sum(c.due for c in counts), sum(c.blind for c in counts), sum(c.dead for c in counts)
        )
        progress(drained)
        if drained.done or time.monotonic() >= deadline_s:
            return drained
        time.sleep(_PAUSE_S)
