"""Settle: what fell silent in flight is ended, so that no reader waits for ever.

    settle.1 a conversation's items past their deadline are known (a bounded number a partition)
    settle.2 they were looked at again and changed, in one script; the doorbell is rung

Between the two a save may come: the script looks again, and a deadline that moved is
kept. Ending a reply keeps its text, remembers where it stood (``settled_from``), and makes it due like any change.
A conversation adopted under another buffer epoch is merged with Postgres first: its row may be the older one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from models.buffer.buffer import Buffer, Settled
from models.buffer.keys import PartitionKeys
from models.buffer.partitions import Partitions
from models.errors import BufferFull, Contention, StoreUnavailable
from models.pipeline.adopt import Adopter
from models.pipeline.failpoints import reach
from models.postgres.errors import SchemaError

log = logging.getLogger("blotter.settle")

#: Items looked at in one partition and round.
ROUND_ITEMS: Final = 256
#: Items of one script call.
CALL_ITEMS: Final = 50


class Settler:
    """Settles all partitions."""

    def __init__(
        self, buffer: Buffer, partitions: Partitions, adopter: Adopter, ring: Callable[[int], None]
    ) -> None:
        self._buffer = buffer
        self._partitions = partitions
        self._adopter = adopter
        self._ring = ring

    def settle(self, now_ms: int) -> int:
        """One round; how many items were settled. Raises BufferUnavailable."""
        settled = 0
        store_away = False
        for keys, uid, names in self._partitions.stale(now_ms, ROUND_ITEMS):
            reach("settle.1")
            for start in range(0, len(names), CALL_ITEMS):
                some = names[start : start + CALL_ITEMS]
                try:
                    done = self._buffer.settle(keys, uid, some)
                    if done.suspect and not store_away:
                        done = self._merge_and_settle(keys, uid, some)
                except BufferFull:
                    log.warning("no room in the buffer to settle; the next sweep tries again")
                    return settled
                except (StoreUnavailable, SchemaError, Contention) as error:
                    log.debug("what an older buffer left waits: %s", error)
                    store_away = not isinstance(error, Contention)
                    continue
                settled += done.settled
                if done.ring:
                    self._ring(keys.number)
                reach("settle.2")
        return settled

    def _merge_and_settle(self, keys: PartitionKeys, uid: str, names: list[str]) -> Settled:
        place = self._partitions.place_of(keys, uid)
        if place is not None:
            self._adopter.adopt(place, keep_empty=True)
        return self._buffer.settle(keys, uid, names)
