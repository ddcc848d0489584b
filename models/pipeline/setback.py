"""Set back: Postgres lacks what it had committed. A backup was restored, or a standby took over without the last commits.

Nobody tells us, and what is hot looks right to its readers; but each conversation that idles leaves the buffer, the only
place that still has it. So whatever is to leave is compared with Postgres before it does; and every sweep, so that it is known
early, compares a few conversations that are stored whole: of some partitions the ones that leave next, and the ones that were
saved last, which a backup is likeliest to lack.

    1. of a clean conversation Postgres holds every row in its version, or a later one (the commit came before the row was
       clean), but for tombstones that were purged. Every row: a conversation may have gone on since, so its last version
       is there and an earlier one is not
    2. found twice, a sweep apart (an erase takes rows from Postgres first, then from the buffer): it is noted in the buffer

From the first doubt on nothing is evicted, and once noted not until `blotter verify --repair` found nothing left to repair.
While Postgres is away, which is how a restore begins, conversations leave only where the buffer needs the room.

Rejected: a marker that both sides keep, raised now and then: a write a second for ever, and blind to what was lost since the
last one. The timeline of `pg_control_checkpoint()`: it changes where nothing was lost, and a restored dump does not change it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
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
        self, conversations: Iterable[tuple[PartitionKeys, str]]
    ) -> dict[str, tuple[PartitionKeys, int]]:
        """Those of which Postgres had something that it has not: uid -> partition, highest version lost."""
        lost = {}
        for partition, uid in dict.fromkeys(conversations):
            # First the buffer, then Postgres: what is stored meanwhile is newer there.
            rows = self._partitions.clean_rows(partition, uid)
            if rows:
                stored, horizon, deleted = self._store.row_versions(UUID(hex=uid))
                lacking = (
                    row.v
                    for name, row in rows.items()
                    if stored.get(name, 0) < row.v
                    and not (row.d is not None and row.v <= horizon)
                    and (name == "c/" or not deleted)
                )
                if version := max(lacking, default=0):
                    lost[uid] = (partition, version)
        return lost
