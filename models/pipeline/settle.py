"""Settle: what fell silent in flight is ended, so that no reader waits for ever.

    settle.1 a conversation's items past their deadline are known (a bounded number a partition)
    settle.2 they were looked at again and changed, in one script; the doorbell is rung

Between the two a save may come: the script looks again, and a deadline that moved is
kept. Ending a reply keeps its text, remembers where it stood (``settled_from``), and makes it due like any change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from models.buffer.buffer import Buffer
from models.buffer.partitions import Partitions
from models.errors import BufferFull
from models.pipeline.failpoints import reach

log = logging.getLogger("blotter.settle")

#: Items looked at in one partition and round.
ROUND_ITEMS: Final = 256
#: Items of one script call.
CALL_ITEMS: Final = 50


class Settler:
    """Settles all partitions."""

    def __init__(self, buffer: Buffer, partitions: Partitions, ring: Callable[[int], None]) -> None:
        self._buffer = buffer
        self._partitions = partitions
        self._ring = ring

    def settle(self, now_ms: int) -> int:
        """One round; how many items were settled. Raises BufferUnavailable."""
        settled = 0
        for keys, uid, names in self._partitions.stale(now_ms, ROUND_ITEMS):
            reach("settle.1")
            for start in range(0, len(names), CALL_ITEMS):
                try:
                    count, ring = self._buffer.settle(keys, uid, names[start : start + CALL_ITEMS])
                except BufferFull:
                    log.warning("no room in the buffer to settle; the next sweep tries again")
                    return settled
                settled += count
                if ring:
                    self._ring(keys.number)
                reach("settle.2")
        return settled
