"""Evict: conversations that idle, and are in Postgres whole, leave the buffer.

After BLOTTER_IDLE_SECONDS; above BLOTTER_EVICT_MEMORY_SHARE of maxmemory the oldest first, but none that idled less than
BLOTTER_MIN_IDLE_SECONDS. The script decides (nothing dirty, dead, in flight or journaled) and raises the partition's
epoch, so that a base loaded before is not installed after. What it keeps goes to the end of the queue. Nothing leaves of which
Postgres lacks something (models/pipeline/setback.py).

    evict.1 before each conversation that idled long enough
    evict.2 after it: gone, or kept and moved to the end of the queue
"""

from __future__ import annotations

from typing import Final

from models.buffer.buffer import Buffer
from models.buffer.partitions import Partitions
from models.core.schedule import evict_after_ms
from models.pipeline import pressure
from models.pipeline.failpoints import reach
from models.pipeline.setback import SetBack

#: Conversations of one partition and round: freeing is work for the server too.
ROUND_CONVERSATIONS: Final = 32
#: Evictions between two looks at Postgres, and at the memory figure.
_LOOK_EVERY: Final = 32


class Evictor:
    """Evicts from all partitions."""

    def __init__(self, buffer: Buffer, partitions: Partitions, set_back: SetBack) -> None:
        self._buffer = buffer
        self._partitions = partitions
        self._set_back = set_back
        settings = buffer.settings
        self._share = settings.evict_memory_share
        self._idle_ms = round(settings.idle_seconds * 1000)
        self._min_idle_ms = round(settings.min_idle_seconds * 1000)

    def evict(self, now_ms: int, *, away: bool = False) -> int:
        """One round; how many conversations left. ``away``: Postgres cannot be asked, so only where memory is short.

        Raises BufferUnavailable, StoreUnavailable, SchemaError.
        """
        after_ms = self._after_ms()
        pressed = after_ms < self._idle_ms
        if away and not pressed:
            return 0
        evicted = 0
        idle = self._partitions.idle(now_ms, after_ms, ROUND_CONVERSATIONS)
        for at in range(0, len(idle), _LOOK_EVERY):
            some = idle[at : at + _LOOK_EVERY]
            if not away and self._set_back.lacks(some):
                break
            for keys, uid in some:
                reach("evict.1")
                evicted += self._buffer.evict(keys, uid, after_ms) == 1
                reach("evict.2")
            if pressed:
                after_ms = self._after_ms()
                if after_ms >= self._idle_ms:
                    break
        return evicted

    def _after_ms(self) -> int:
        share = pressure.memory(self._buffer.client).share
        return evict_after_ms(
            share, evict_share=self._share, idle_ms=self._idle_ms, min_idle_ms=self._min_idle_ms
        )
