"""Set back: Postgres lacks what it had committed. A backup was restored, or a standby took over without the last commits.

Nobody tells us, and what is hot looks right to its readers; but each conversation that idles leaves the buffer, the only
place that still has it. So whatever is to leave is compared with Postgres before it does; and every sweep, so that it is known
early, compares a few conversations that are stored whole: of some partitions the ones that leave next, and the ones that were
saved last, which a backup is likeliest to lack.

    1. the header of a clean conversation says its last version; Postgres holds it, or a later one (the commit came before
       the row was clean, and what is purged leaves its version behind)
    2. where Postgres holds less, the rows are asked: a header's version may belong to a row that was dropped (a dead letter)
    3. found twice, a sweep apart (an erase takes rows from Postgres first, then from the buffer): it is noted in the buffer

From the first doubt on nothing is evicted, and once noted not until `blotter verify --repair` found nothing left to repair.
While Postgres is away, which is how a restore begins, conversations leave only where the buffer needs the room.

Rejected: a marker that both sides keep, raised now and then: a write a second for ever, and blind to what was lost since the
last one. The timeline of `pg_control_checkpoint()`: it changes where nothing was lost, and a restored dump does not change it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias
from uuid import UUID

from models.buffer import keys
from models.buffer.keys import PartitionKeys
from models.buffer.partitions import Partitions
from models.errors import StoreUnavailable
from models.postgres.errors import SchemaError
from models.postgres.store import Store

log = logging.getLogger("blotter.setback")

Standing: TypeAlias = Literal["whole", "away", "set back"]
#: Conversations compared in one look; of each end of the queue half of them.
SAMPLE: Final = 4
#: How long the note stands by itself, ms: for ever.
_NOTED_MS: Final = 100 * 365 * 86_400_000


class SetBack:
    """Looks whether Postgres still holds what it committed."""

    def __init__(self, partitions: Partitions, store: Store) -> None:
        self._partitions = partitions
        self._store = store
        self._doubted: dict[str, tuple[PartitionKeys, int]] = {}

    def look(self) -> Standing:
        """One look. Raises BufferUnavailable."""
        if self._partitions.stands(keys.SET_BACK):
            return "set back"
        doubted = self._doubted
        try:
            lost = self._lost([*self._partitions.resting(SAMPLE), *((k, u) for u, (k, _) in doubted.items())])
        except (StoreUnavailable, SchemaError):
            return "away"
        if lost.items() & doubted.items():
            self._partitions.claim(keys.SET_BACK, _NOTED_MS)
            log.error(
                "Postgres lacks what it had committed: nothing leaves the buffer until `blotter verify --repair`"
            )
        self._doubted = lost
        return "set back" if lost else "whole"

    def lacks(self, conversations: Sequence[tuple[PartitionKeys, str]]) -> bool:
        """Whether Postgres lacks something of these, which are about to leave; the next look comes back to it.

        Raises BufferUnavailable, StoreUnavailable, SchemaError.
        """
        lost = self._lost(conversations)
        self._doubted = {**self._doubted, **lost}
        return bool(lost)

    def _lost(
        self, conversations: Sequence[tuple[PartitionKeys, str]]
    ) -> dict[str, tuple[PartitionKeys, int]]:
        """Those that Postgres had, and has not: uid -> partition, version."""
        partitions = {uid: keys for keys, uid in conversations}
        # First the buffer, then Postgres: what is stored meanwhile is newer there.
        last = self._partitions.clean_versions(conversations)
        stored = self._store.last_versions([UUID(hex=uid) for uid in last]) if last else {}
        lost = {}
        for uid, version in last.items():
            if stored.get(UUID(hex=uid), 0) < version:
                newest = self._partitions.newest_clean(partitions[uid], uid)
                if self._store.last_version(UUID(hex=uid)) < newest:
                    lost[uid] = (partitions[uid], newest)
        return lost
