"""Erase: everything of one owner leaves the buffer and Postgres, for good; and the proof that nothing is left.

    1. whose: uids from Postgres, from the owner's index, and from the header of every conversation in the buffer
    2. per partition, its lease held, so that no flusher brings back what it has read: rows in Postgres, then in one script a
       conversation all there is in the buffer. The script raises the partition's epoch: a base that somebody loaded before
       is not installed after
    3. again from the start, until two looks in a row, a pause apart, find nothing
    4. the append-only file is rewritten, so that the file holds no more than the buffer does

Owners are separate by construction: a uid is a hash of owner and id, so no key, entry or row that is touched here can be
another's. A header whose uid is not the one its own names make is left alone.

What can go wrong, and what then:
- Web accepts a save while this runs: the next look finds it. After the last look nobody looks: let the owner's tokens end
  first. With saves that never stop, the time is up and `Erased.left` says what was there.
- A flusher that was frozen for longer than its lease (10 s) may commit what it had read. Run it again: it is repeatable.
- Broken off anywhere: items go before their conversation in Postgres, and Postgres before the buffer, so each run finds
  what the last one left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from models.buffer import traces
from models.buffer.buffer import Buffer
from models.buffer.keys import PartitionKeys
from models.buffer.traces import Trace, Traces
from models.errors import Contention
from models.postgres.store import Store

#: Conversations of one transaction: far below the statement timeout, and the lease.
_CHUNK: Final = 20
#: Between two looks that have to agree on nothing, s.
_PAUSE_S: Final = 0.5
_POLL_S: Final = 0.05
#: The lease of a flusher that died runs out after 10 s.
_LEASE_WAIT_S: Final = 15.0
_REWRITE_WAIT_S: Final = 300.0


class Census(NamedTuple):
    """What is there of an owner. ``tables``: rows by table."""

    conversations: int
    tables: Mapping[str, int]
    keys: int
    indexed: int
    letters: int
    listed: int

    @property
    def nothing(self) -> bool:
        return not (any(self.tables.values()) or self.keys or self.indexed or self.letters or self.listed)


class Erased(NamedTuple):
    """``left``: what the last look found. ``rewritten``: None, or why the append-only file was not rewritten."""

    before: Census
    left: Census
    rounds: int
    rewrite_failed: str | None
    replicas: int

    @property
    def done(self) -> bool:
        return self.left.nothing and self.rewrite_failed is None


class Eraser:
    """Erases owners. Raises BufferUnavailable, StoreUnavailable, SchemaError, Contention."""

    def __init__(
        self,
        buffer: Buffer,
        store: Store,
        ring: Callable[[int], None],
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._buffer = buffer
        self._store = store
        self._ring = ring
        self._traces = Traces(buffer)
        self._pause = pause

    def census(self, owner: str) -> Census:
        """Count, and change nothing."""
        return self._look(owner, set())[1]

    def erase(
        self, owner: str, *, within_s: float, progress: Callable[[Census], None] = lambda census: None
    ) -> Erased:
        """Erase until nothing is found, for at most ``within_s`` seconds; ``progress`` after each look."""
        deadline_s = time.monotonic() + within_s
        known: set[UUID] = set()
        trace, before = self._look(owner, known)
        left, rounds, quiet = before, 0, 0
        while True:
            progress(left)
            quiet = quiet + 1 if left.nothing else 0
            if quiet == 2 or (quiet == 0 and rounds and time.monotonic() >= deadline_s):
                break
            # Also where nothing was found: a cold conversation's base may be under way to the buffer.
            self._round(owner, trace, known)
            rounds += 1
            self._pause(_PAUSE_S)
            trace, left = self._look(owner, known)
        failed = self._rewrite()
        trace, left = self._look(owner, known)
        return Erased(before, left, rounds, failed, self._replicas())

    # ------------------------------------------------------------------ one look, one round
    def _look(self, owner: str, known: set[UUID]) -> tuple[Trace, Census]:
        known |= set(self._store.owned(owner))
        trace = self._traces.find(owner, known)
        known |= {UUID(hex=uid) for uid in trace.entries}
        tables: dict[str, int] = {}
        for some in _chunks(sorted(known), 1_000):
            for table, rows in self._store.count(some).items():
                tables[table] = tables.get(table, 0) + rows
        census = Census(len(known), tables, trace.keys, trace.indexed, trace.letters, trace.listed)
        return trace, census

    def _round(self, owner: str, trace: Trace, known: Iterable[UUID]) -> None:
        by_partition: dict[int, list[UUID]] = {}
        for uid in sorted(known):
            by_partition.setdefault(self._buffer.keys_of(uid).number, []).append(uid)
        for number, uids in by_partition.items():
            keys = self._buffer.partitions[number]
            token = self._take(keys)
            try:
                for some in _chunks(uids, _CHUNK):
                    self._buffer.renew(keys, token)
                    self._store.erase(some)
                    for uid in some:
                        self._traces.wipe(keys, uid.hex, sorted(trace.entries.get(uid.hex, ())))
            finally:
                if self._buffer.release(keys, token):
                    self._ring(number)
        self._traces.wipe_rest(owner, [uid.hex for uid in known])

    def _take(self, keys: PartitionKeys) -> str:
        """The partition's lease, once whoever holds it is done."""
        token = traces.token()
        deadline_s = time.monotonic() + _LEASE_WAIT_S
        while self._buffer.begin(keys, token).state != "taken":
            if time.monotonic() >= deadline_s:
                raise Contention(f"partition {keys.number} is being flushed all the time; try again")
            self._pause(_POLL_S)
        return token

    # ------------------------------------------------------------------ the files
    def _rewrite(self) -> str | None:
        """Have the append-only file rewritten, and wait; None when it is, else why not."""
        if not self._traces.persistence().get("aof_enabled"):
            return None
        deadline_s = time.monotonic() + _REWRITE_WAIT_S
        # One that is under way began before the last deletion: it ends, then ours begins.
        if why := self._settled(deadline_s):
            return why
        self._traces.rewrite()
        if why := self._settled(deadline_s):
            return why
        status = self._traces.persistence().get("aof_last_bgrewrite_status")
        return None if status == "ok" else f"the buffer says {status}: its log tells why"

    def _settled(self, deadline_s: float) -> str | None:
        while True:
            found = self._traces.persistence()
            if not found.get("aof_rewrite_in_progress") and not found.get("aof_rewrite_scheduled"):
                return None
            if time.monotonic() >= deadline_s:
                return f"it was not done within {_REWRITE_WAIT_S:.0f} s"
            self._pause(_POLL_S)

    def _replicas(self) -> int:
        return int(self._traces.persistence().get("connected_slaves", 0))


def _chunks(uids: Sequence[UUID], size: int) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(uids), size):
        yield uids[start : start + size]
