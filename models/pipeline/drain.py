"""Drain: everything in the buffer goes to Postgres now, open replies included. Before maintenance, or to leave.

Makes due what is scheduled for later, flushes every partition, and goes on until nothing is dirty or the time is up.
Workers may run beside it: a partition they hold is theirs, and is looked at again. Dead letters are not waited for; they
are told. Saves that keep coming keep it busy: stop web first. The time is looked at after each partition, whose flush
ends itself after models.pipeline.flush.WORK_S.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from models.buffer.buffer import Buffer
from models.buffer.partitions import PULL_ENTRIES, Partitions
from models.pipeline.flush import Flusher

_PAUSE_S: Final = 0.05
#: Between two reports of progress within a round, s: each counts all partitions.
_TELL_S: Final = 0.2


class Drained(NamedTuple):
    """Where a drain stands: rows not yet committed, conversations whose journal waits, dead letters."""

    dirty: int
    blind: int
    dead: int

    @property
    def done(self) -> bool:
        """Nothing is left but dead letters."""
        return self.dirty == 0 and self.blind == 0

    @property
    def left(self) -> int:
        """What a drain still has to do; a journal counts as one row."""
        return self.dirty + self.blind


def standing(partitions: Partitions) -> Drained:
    """Where it stands now. Raises BufferUnavailable."""
    counts = partitions.counts()
    return Drained(sum(c.due for c in counts), sum(c.blind for c in counts), sum(c.dead for c in counts))


def drain(
    buffer: Buffer,
    partitions: Partitions,
    flusher: Flusher,
    *,
    within_s: float,
    progress: Callable[[Drained], None] = lambda drained: None,
) -> Drained:
    """Drain for at most ``within_s`` seconds; ``progress`` is called now and then, and at the end. Raises BufferUnavailable."""
    deadline_s = time.monotonic() + within_s
    while True:
        for keys in buffer.partitions:
            while partitions.pull(keys) == PULL_ENTRIES:
                pass
        told_s = time.monotonic()
        for count in partitions.counts():
            if time.monotonic() >= deadline_s:
                break
            if count.due or count.blind:
                flusher.flush(count.number)
            if time.monotonic() - told_s >= _TELL_S:
                progress(standing(partitions))
                told_s = time.monotonic()
        drained = standing(partitions)
        progress(drained)
        if drained.done or time.monotonic() >= deadline_s:
            return drained
        time.sleep(_PAUSE_S)
