"""Purge: once a day, tombstones older than BLOTTER_RETENTION_DAYS go, children first.

Rate-limited by its shape: one bounded transaction a tick of the sweep, until one finds nothing left; then a day's rest.
A task that ran to the end would hold a worker process that flushes wait for.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final

from models.buffer.partitions import Partitions
from models.core.schedule import DAY_MS
from models.errors import BufferFull
from models.postgres.store import Store
from models.settings import Settings

log = logging.getLogger("blotter.purge")

#: Rows of one transaction.
PURGE_ROWS: Final = 500


class Purger:
    """Purges the store."""

    def __init__(self, partitions: Partitions, store: Store, settings: Settings) -> None:
        self._partitions = partitions
        self._store = store
        self._retention_ms = round(settings.retention_days * DAY_MS)

    def step(self, now_ms: int) -> int:
        """One transaction, if a purge is due; how many rows went. Raises StoreUnavailable, SchemaError, BufferUnavailable."""
        done_ms = int(self._partitions.chores().get("purge_done_ms", "0"))
        if 0 <= now_ms - done_ms < DAY_MS:
            return 0
        gone = self.batch(now_ms)
        if gone == 0:
            try:
                self._partitions.note_chore(purge_done_ms=now_ms)
            except BufferFull:
                log.warning("no room in the buffer to note the end of the purge; it is tried again")
        return gone

    def batch(self, now_ms: int) -> int:
        """One transaction now; 0: nothing is left."""
        before = datetime.fromtimestamp((now_ms - self._retention_ms) / 1000, UTC)
        return self._store.purge(before, PURGE_ROWS)
