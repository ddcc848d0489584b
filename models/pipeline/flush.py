"""Flush: what became due in one partition goes to Postgres, and only what was committed is forgotten.

Read, write, then forget, and forget only what was written. Nothing is claimed or moved: until the acknowledgement every
row lies where it lay, so every step may run twice, late, or not at all. The lease is no lock, it only keeps two flushers
from doing the same work; the fences are the version in SQL and the version in the acknowledgement.

Steps, each reached after what it names:

    flush.1  begin: the lease is taken, the bell deleted           a save from here on rings again
    flush.2  a blind conversation is adopted, its journal replayed  a bounded number; the rest ring again
    flush.3  due refs are known                                    at most 256, most overdue first
    flush.4  their rows are read, whole                            at most 1 MiB, at least one; suspects alone
    flush.5  the trial is noted                                    before anything that a row could kill
    flush.6  one transaction is committed: bulk upsert, fenced; read back
    flush.bury a row that was rejected, or kills, is set aside     its batch is halved and goes on without it
    flush.7  committed conversations left their owner's index      by version; Postgres lists them from here on
    flush.8  acknowledged, by version; the trial ends with it      a row saved meanwhile stays dirty and due
    flush.9  what is newer in Postgres is adopted                  the buffer was rolled back
    flush.10 the trial is ended where nothing was committed        after any outcome that was lived to see
    flush.11 the lease is renewed                                  lost: stop, what is under way is harmless
    flush.12 released; something ripe: rung                        after a transient error: pause, longer each time

What can go wrong, and what then:
- Killed anywhere: the lease runs out (10 s), the rows are due as before; a trial stays counted if flush.5 was passed.
- COMMIT unknown, Postgres away, schema missing: nothing is forgotten, the partition pauses (0.25 s … 8 s, jitter).
- The buffer away: this flush ends; if rows were committed, the next one finds them equal in Postgres and acknowledges.
- The buffer lost between the look at rows and their commit: who adopted a conversation in between lacks them, so what is
  hot is adopted over, by version. A worker killed right there leaves that to the eviction.
- A rejected row: buried with its reason; its batch commits without it. It stays readable, and the next save frees it.
- A row that kills the worker, makes this code raise, or that the buffer cannot read in time though it answers after that:
  see models/core/batches.py. A bug counts like a death, because a partition that is stuck for ever is worse than a dead
  letter, which can be replayed.
- Rows whose journal is not replayed are passed over; they stay due and do not spin.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple
from uuid import UUID

from models.buffer.buffer import Buffer, Place, RipeRow
from models.buffer.keys import PartitionKeys
from models.buffer.partitions import Partitions
from models.core.batches import BATCH_BYTES, BATCH_ROWS, GROUP_TRIES, halves, plan_trial, verdict
from models.core.records import Conversation
from models.core.schedule import backoff_ms
from models.errors import (
    BlotterError,
    BufferFull,
    BufferSlow,
    BufferUnavailable,
    Contention,
    RecordRejected,
    StoreUnavailable,
)
from models.pipeline import pressure
from models.pipeline.adopt import Adopter
from models.pipeline.failpoints import reach
from models.pipeline.spans import Spans
from models.postgres.errors import SchemaError
from models.postgres.rows import key_of
from models.postgres.store import Store, WriteOutcome

log = logging.getLogger("blotter.flush")

#: One flush works at most this long before it releases and rings again: partitions take turns, shutdown is near.
WORK_S: Final = 5.0
#: A buffer that reads rows for longer than it may is asked this long whether it answers again.
ANSWER_S: Final = 15.0
#: Blind conversations adopted in one flush.
BLIND_MOST: Final = 32
#: Up to this share of maxmemory used, one that finds the buffer full is adopted and replayed all the same: where journals
#: fill the buffer, nothing else would ever make room. One base more (BLOTTER_MAX_CONVERSATION_BYTES) for each flush at work.
BEYOND_SHARE: Final = 1.1
#: What may end a worker in order; neither is a row's fault.
_ASKED_TO_LEAVE: Final = (SystemExit, KeyboardInterrupt)


class Flushed(NamedTuple):
    """What a flush did. ``state``: done; busy or paused (nothing was tried); failed (a transient error, pausing)."""

    state: Literal["done", "busy", "paused", "failed"]
    rows: int = 0
    batches: int = 0
    buried: int = 0
    healed: int = 0
    rung: bool = False


@dataclass
class _Work:
    """One flush under way."""

    keys: PartitionKeys
    token: str
    until_s: float
    rows: int = 0
    batches: int = 0
    buried: int = 0
    healed: int = 0
    replayed: int = 0
    #: Due entries that stay at the head of the index: waiting, or of conversations healed a moment ago.
    passed: int = 0
    blind_left: bool = False
    #: The buffer epoch in which the rows at hand were read.
    epoch: str = ""
    over: bool = False
    adopted: set[str] = field(default_factory=set)
    #: Refs in a transaction whose outcome is not known yet.
    tried: set[str] = field(default_factory=set)


class Flusher:
    """Flushes partitions. Thread-safe; make it after fork."""

    def __init__(
        self,
        buffer: Buffer,
        partitions: Partitions,
        store: Store,
        adopter: Adopter,
        ring: Callable[[int], None],
        *,
        stopping: Callable[[], bool] = lambda: False,
        clock_s: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``ring`` sends a partition's doorbell, never raises. ``stopping``: release after the batch at hand."""
        self._buffer = buffer
        self._partitions = partitions
        self._store = store
        self._adopter = adopter
        self._ring = ring
        self._spans = Spans(buffer)
        self._stopping = stopping
        self._clock_s = clock_s
        self._chance = chance
        self._pause = threading.Event()

    def flush(self, number: int) -> Flushed:
        """Flush partition ``number`` as the module says.

        Raises BufferUnavailable; anything unforeseen after the partition was set to pause.
        """
        keys = self._buffer.partitions[number]
        token = secrets.token_hex(8)
        started_s = self._clock_s()
        begun = self._buffer.begin(keys, token)
        if begun.state != "taken":
            return Flushed(begun.state)
        reach("flush.1")
        work = _Work(keys, token, started_s + WORK_S)
        failures = begun.failures + 1
        try:
            self._adopt_blind(work)
            self._work(work)
        except (StoreUnavailable, SchemaError) as error:
            pause_ms = backoff_ms(failures, self._chance())
            log.warning("partition %d pauses %d ms after error %d: %s", number, pause_ms, failures, error)
            self._buffer.release(keys, token, pause_ms=pause_ms, failures=failures)
            self._count(work, started_s, failed=1)
            return Flushed("failed", work.rows, work.batches, work.buried, work.healed)
        except (Exception, *_ASKED_TO_LEAVE) as error:
            orderly = isinstance(error, (BlotterError, *_ASKED_TO_LEAVE))
            pause_ms = 0 if orderly else backoff_ms(failures, self._chance())
            with contextlib.suppress(BufferUnavailable):
                self._buffer.release(keys, token, pause_ms=pause_ms, failures=failures)
            raise
        rung = self._buffer.release(keys, token)
        if not rung and work.blind_left:
            rung = any(look.rung for look in self._partitions.look([number], ring=True))
        if rung:
            self._ring(number)
        reach("flush.12")
        self._count(work, started_s)
        return Flushed("done", work.rows, work.batches, work.buried, work.healed, rung)

    # ------------------------------------------------------------------ blind
    def _adopt_blind(self, work: _Work) -> None:
        """Adopt and replay the oldest blind conversations. One that cannot be is passed over, whatever its fault."""
        if not (uids := self._partitions.blind(work.keys, BLIND_MOST + 1)):
            return
        work.blind_left = len(uids) > BLIND_MOST
        for uid in uids[:BLIND_MOST]:
            if self._must_stop(work):
                work.blind_left = True
                return
            place = self._partitions.place_of(work.keys, uid)
            if place is None:
                continue
            try:
                self._replay(place)
                work.replayed += 1
            except (StoreUnavailable, SchemaError, BufferUnavailable):
                raise
            except (BufferFull, Contention) as error:
                log.warning("a blind conversation waits: %s", error)
            except Exception:
                log.exception("a blind conversation could not be replayed")
            self._renew(work)
            reach("flush.2")

    def _replay(self, place: Place) -> None:
        try:
            self._adopter.replay(place)
        except BufferFull:
            if pressure.memory(self._buffer.client).share >= BEYOND_SHARE:
                raise
            self._adopter.replay(place, beyond=True)

    # ------------------------------------------------------------------ rounds
    def _work(self, work: _Work) -> None:
        while not self._must_stop(work):
            refs = self._buffer.ripe(work.keys, BATCH_ROWS, work.passed)
            reach("flush.3")
            if not refs:
                return
            begun = self._partitions.trials(work.keys, refs)
            trial = plan_trial(refs, begun)
            for ref in trial.dead:
                times = begun[ref] - GROUP_TRIES
                self._bury_unseen(
                    work, ref, f"killed the worker, or was not read in time, {times} times alone"
                )
            for group in (trial.together, *((ref,) for ref in trial.alone)):
                self._group(work, group, begun)

    def _group(self, work: _Work, refs: Sequence[str], begun: dict[str, int]) -> None:
        """Those who are tried together, as many at once as a batch takes."""
        while refs and not self._must_stop(work):
            work.epoch = self._buffer.buffer_epoch(work.keys)
            found = self._peek(work, refs, begun)
            reach("flush.4")
            served = {row.ref for row in found}
            refs = [ref for ref in refs if ref not in served]
            self._batch(work, found, begun)
            self._renew(work)
            reach("flush.11")

    def _must_stop(self, work: _Work) -> bool:
        return work.over or self._stopping() or self._clock_s() >= work.until_s

    def _renew(self, work: _Work) -> None:
        if not self._buffer.renew(work.keys, work.token):
            work.over = True

    def _peek(self, work: _Work, refs: Sequence[str], begun: dict[str, int]) -> list[RipeRow]:
        """The rows of ``refs``. One that this code cannot even read is found by halving and buried.

        One that the buffer cannot read in time counts like one that kills the worker. Noting that takes an answer of the
        buffer: while it is away, nothing is counted.
        """
        try:
            return self._buffer.rows(work.keys, refs, BATCH_BYTES)
        except BufferSlow:
            log.warning("%d rows of partition %d were not read in time", len(refs), work.keys.number)
            self._note_slow(work, {ref: begun.get(ref, 0) + 1 for ref in refs})
            raise
        except BlotterError:
            raise
        except Exception as error:
            if len(refs) > 1:
                return [row for half in halves(refs) for row in self._peek(work, half, begun)]
            if not self._bury_unseen(work, refs[0], type(error).__name__):
                raise
            log.exception("a row could not be read; it is set aside")
            return [RipeRow(refs[0], 0, None)]

    def _note_slow(self, work: _Work, counts: dict[str, int]) -> None:
        """Note the trial as soon as the buffer answers again; until then it may be at the rows still."""
        until_s = self._clock_s() + ANSWER_S
        while True:
            try:
                self._partitions.note_trial(work.keys, counts)
                return
            except BufferUnavailable:
                if self._clock_s() >= until_s:
                    raise
                self._pause.wait(0.1)

    def _bury_unseen(self, work: _Work, ref: str, why: str) -> bool:
        """Bury a row without looking at its texts. False: it is gone, or changed meanwhile."""
        version = self._partitions.version_of(work.keys, ref)
        if version is None:
            self._buffer.acknowledge(work.keys, [(ref, 0)])
            return False
        return self._bury(work, ref, version, None, why)

    def _batch(self, work: _Work, found: Sequence[RipeRow], begun: dict[str, int]) -> None:
        stale = [row.ref for row in found if row.record is None and not row.waits]
        if stale:
            self._buffer.acknowledge(work.keys, [(ref, 0) for ref in stale])
        work.passed += sum(row.waits for row in found)
        rows = [row for row in found if row.record is not None]
        if rows and not self._must_stop(work):
            self._try(work, rows, begun)

    def _try(self, work: _Work, rows: Sequence[RipeRow], begun: dict[str, int]) -> None:
        """Commit ``rows`` under trial: it ends with every outcome that is no row's fault, or is handled."""
        work.tried = {row.ref for row in rows}
        self._partitions.note_trial(work.keys, {ref: begun.get(ref, 0) + 1 for ref in work.tried})
        reach("flush.5")
        try:
            with self._spans.commit(work.keys, rows):
                self._commit(work, rows)
        except (BlotterError, *_ASKED_TO_LEAVE):
            with contextlib.suppress(BufferUnavailable):
                self._partitions.end_trial(work.keys, list(work.tried))
            raise
        self._partitions.end_trial(work.keys, list(work.tried))
        reach("flush.10")

    def _commit(self, work: _Work, rows: Sequence[RipeRow]) -> None:
        try:
            outcome = self._store.write([row.record for row in rows if row.record is not None])
        except RecordRejected as error:
            if len(rows) == 1:
                self._bury(work, rows[0].ref, rows[0].version, error.sqlstate, error.reason)
                return
            for half in halves(rows):
                self._commit(work, half)
            return
        work.batches += 1
        reach("flush.6")
        self._forget(work, rows, outcome)

    # ------------------------------------------------------------------ after the commit
    def _forget(self, work: _Work, rows: Sequence[RipeRow], outcome: WriteOutcome) -> None:
        committed: list[RipeRow] = []
        newer: list[RipeRow] = []
        again: list[RipeRow] = []
        for row in rows:
            assert row.record is not None
            key = key_of(row.record)
            answer = verdict(key.kind, row.version, outcome.stored.get(key))
            if answer == "committed":
                committed.append(row)
            elif answer == "newer":
                newer.append(row)
            else:
                again.append(row)
        by_owner: dict[str, list[tuple[UUID, int]]] = {}
        for row in committed:
            if isinstance(row.record, Conversation):
                by_owner.setdefault(row.record.owner, []).append((row.record.conversation_uid, row.version))
        for owner, listed in by_owner.items():
            self._buffer.unlist(owner, listed)
        # Before the acknowledgement: a crash between the two is made good by the next flush, the other way round the
        # entry would stay until its owner's next list.
        reach("flush.7")
        answers = [(row.ref, row.version) for row in committed]
        self._buffer.acknowledge(work.keys, [*answers, *((row.ref, 0) for row in (*newer, *again))])
        work.tried.difference_update(row.ref for row in rows)
        work.rows += len(committed)
        work.passed += len(again)
        reach("flush.8")
        if self._buffer.buffer_epoch(work.keys) != work.epoch:
            self._catch_up(work, committed)
        if newer:
            self._heal(work, newer)
            reach("flush.9")

    def _catch_up(self, work: _Work, rows: Sequence[RipeRow]) -> None:
        """The buffer was lost between the look at these rows and their commit. Whoever loaded a base in between has it
        without them: it is not installed any more, and what is hot already is adopted over. (A worker killed right here
        leaves it to the eviction.)
        """
        self._buffer.outdate(work.keys)
        for uid in sorted({row.ref[:32] for row in rows}):
            place = self._partitions.place_of(work.keys, uid)
            if place is not None:
                try:
                    self._adopter.adopt(place, force=True)
                    work.healed += 1
                except (BufferFull, Contention) as error:
                    log.warning("conversation %s waits: %s", uid, error)

    def _heal(self, work: _Work, rows: Sequence[RipeRow]) -> None:
        """Postgres holds these newer than we sent them. Where the buffer still stands at ours it was rolled back:
        adopt over it. Where it moved on, or another flusher was ahead, the next round sees.
        """
        ours = {row.ref: row.version for row in rows}
        # No bound on bytes: rows that are not shown would be taken for healthy.
        again = self._buffer.rows(work.keys, list(ours), 1 << 62)
        behind = {row.ref[:32] for row in again if row.record is not None and row.version == ours[row.ref]}
        for uid in sorted(behind):
            if uid in work.adopted:
                work.passed += sum(ref.startswith(uid) for ref in ours)
                continue
            place = self._partitions.place_of(work.keys, uid)
            if place is None:
                continue
            work.adopted.add(uid)
            log.warning("conversation %s is newer in Postgres than in the buffer: adopting it", uid)
            try:
                self._adopter.adopt(place, force=True)
                work.healed += 1
            except (BufferFull, Contention) as error:
                # Its rows stay dirty and due; the others must not wait for room.
                work.passed += sum(ref.startswith(uid) for ref in ours)
                log.warning("conversation %s waits: %s", uid, error)

    def _bury(self, work: _Work, ref: str, version: int, sqlstate: str | None, reason: str) -> bool:
        why = {"at_ms": time.time_ns() // 1_000_000, "reason": reason, "sqlstate": sqlstate}
        buried = self._buffer.bury(ref, version, json.dumps(why, sort_keys=True))
        work.tried.discard(ref)
        if buried:
            work.buried += 1
            log.error("a row is set aside as a dead letter: %s (conversation %s)", reason, ref[:32])
        reach("flush.bury")
        return buried

    def _count(self, work: _Work, started_s: float, *, failed: int = 0) -> None:
        from models.pipeline.figures import flush_counters

        with contextlib.suppress(BlotterError):
            self._partitions.count(
                flush_counters(
                    round((self._clock_s() - started_s) * 1_000_000),
                    rows=work.rows,
                    batches=work.batches,
                    buried=work.buried,
                    healed=work.healed,
                    replayed=work.replayed,
                    failed=failed,
                )
            )
