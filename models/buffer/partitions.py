"""Partitions as the pipeline's rounds see them: what is overdue, stale, idle, blind, dead or on trial; and who is alive.

Where ``Buffer`` speaks of one conversation, this speaks of many at once, pipelined. Times in ms, of the server's clock.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from redis.exceptions import RedisError

from models.buffer import keys as names
from models.buffer.audit import Audit, decode as decode_audit
from models.buffer.buffer import BELL_MS, Buffer, Place
from models.buffer.cluster import Cluster
from models.buffer.codec import Header, Row
from models.buffer.keys import PartitionKeys
from models.buffer.scripts import call, call_many, translate

#: What a trial nobody ended is worth after this: its row is long gone.
TRIAL_MS: Final = 86_400_000
#: Entries of `due` made due in one script.
PULL_ENTRIES: Final = 1_000
#: What was touched this far ahead was touched under another clock (AHEAD_MS in lua/common.lua).
AHEAD_MS: Final = 300_000

_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(Header).decode
_decode_row = msgspec.msgpack.Decoder(Row).decode


class Look(NamedTuple):
    """A partition from outside. ``late_ms``: how late the most overdue is, -1 where nothing is due."""

    number: int
    rung: bool
    late_ms: int
    now_ms: int
    laid_out: bool
    free: bool


class Counts(NamedTuple):
    """Sizes of one partition. ``late_ms``: of the most overdue row; ``first``: its ref; ``blind_ms``: since the oldest blind save."""

    number: int
    due: int
    dead: int
    blind: int
    hot: int
    open: int
    leased: bool
    paused: bool
    first: str | None
    first_due_ms: int
    blind_since_ms: int


class DeadLetter(NamedTuple):
    """``why``: JSON, as it was buried."""

    ref: str
    why: str


class Partitions:
    """All partitions of a buffer. Thread-safe. Every method raises BufferUnavailable."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._client: Any = buffer.client
        self._all = buffer.partitions
        self._autosave_ms = round(buffer.settings.autosave_seconds * 1000)

    # ------------------------------------------------------------------ what is overdue
    def look(self, numbers: Iterable[int] | None = None, *, ring: bool = False) -> list[Look]:
        """Each partition from outside. ``ring``: set the bell where something is overdue and nobody is at it; whoever
        is told ``rung`` must send the doorbell.
        """
        chosen = self._all if numbers is None else [self._all[number] for number in numbers]
        args = [self._autosave_ms, BELL_MS if ring else 0]
        calls = [([k.meta, k.due, k.blind, k.bell, k.lease, k.hold], args) for k in chosen]
        found = call_many(self._client, "overdue", calls)
        return [
            Look(k.number, rung == 1, late_ms, now_ms, laid_out == 1, free == 1)
            for k, (rung, late_ms, now_ms, laid_out, free) in zip(chosen, found, strict=True)
        ]

    def pull(self, keys: PartitionKeys, most: int = PULL_ENTRIES) -> int:
        """Make due now what is scheduled for later; how many. Again while it is ``most``."""
        return int(call(self._client, "pull", [keys.due], [most], retries=1))

    # ------------------------------------------------------------------ trial
    def trials(self, keys: PartitionKeys, refs: Sequence[str]) -> dict[str, int]:
        """How often a transaction with each of ``refs`` began and never ended; those with none are left out."""
        if not refs:
            return {}
        found = self._do("HMGET", keys.trial, *refs)
        return {ref: int(count) for ref, count in zip(refs, found, strict=True) if count is not None}

    def note_trial(self, keys: PartitionKeys, counts: Mapping[str, int]) -> None:
        """A transaction with these rows begins."""
        flat = [part for pair in counts.items() for part in pair]
        call(self._client, "trial", [keys.trial], [TRIAL_MS, *flat], retries=1)

    def end_trial(self, keys: PartitionKeys, refs: Sequence[str]) -> None:
        """It came to an end, whichever."""
        if refs:
            self._do("HDEL", keys.trial, *refs)

    # ------------------------------------------------------------------ is it stored still
    def resting(self, most: int) -> list[tuple[PartitionKeys, str]]:
        """Of a few partitions, hot conversations: half of ``most`` whose last save lies back the longest, half the least."""
        chosen = random.sample(self._all, min(len(self._all), 16))
        pipe = self._client.pipeline(transaction=False)
        for keys in chosen:
            pipe.zrange(keys.idle, 0, 0, withscores=True)
            pipe.zrange(keys.idle, -1, -1, withscores=True)
        found = self._execute(pipe)
        by_age = [
            sorted(
                ((at, uid, k) for k, ends in zip(chosen, some, strict=True) for uid, at in ends),
                key=itemgetter(0, 1),
            )
            for some in (found[::2], found[1::2])
        ]
        ends = (*by_age[0][: most // 2], *by_age[1][-(most // 2) :])
        return [(k, uid.decode()) for _, uid, k in ends]

    def clean_rows(self, keys: PartitionKeys, uid: str) -> dict[str, Row]:
        """The rows of a hot conversation by their names (K/I); none where it is not hot, or has a dirty or dead one."""
        found = self._do("HGETALL", keys.rows(uid))
        header = _decode_header(found[b"h"]) if b"h" in found else Header(dirty=1)
        if header.dirty or header.dead:
            return {}
        return {
            name.decode(): _decode_row(raw)
            for name, raw in found.items()
            if name[:2] in (b"c/", b"m/", b"t/", b"a/")
        }

    # ------------------------------------------------------------------ whose, which
    def place_of(self, keys: PartitionKeys, uid: str) -> Place | None:
        """The place of a hot or blind conversation; None where it is neither."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hget(keys.rows(uid), "h")
        pipe.hget(keys.image_rows(uid), "h")
        for raw in self._execute(pipe):
            if raw is not None:
                header = _decode_header(raw)
                return Place(header.owner, header.id, UUID(hex=uid), uid, keys)
        return None

    def is_suspect(self, keys: PartitionKeys, uid: str) -> bool:
        """A hot conversation that was adopted under another buffer epoch: Postgres may hold more of it."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hget(keys.rows(uid), "h").hget(keys.meta, "e")
        header, epoch = self._execute(pipe)
        return header is not None and _decode_header(header).be != (epoch or b"").decode()

    def version_of(self, keys: PartitionKeys, ref: str) -> int | None:
        """The version of a row, without its bodies; None where it is gone."""
        raw = self._do("HGET", keys.rows(ref[:32]), ref[33:])
        return None if raw is None else _decode_row(raw).v

    def dirty_since(self, refs: Mapping[int, str]) -> dict[int, int]:
        """When each partition's row became dirty, ms; clean and vanished ones are left out."""
        pipe = self._client.pipeline(transaction=False)
        for number, ref in refs.items():
            pipe.hget(self._all[number].rows(ref[:32]), ref[33:])
        rows = self._execute(pipe) if refs else []
        out = {}
        for number, raw in zip(refs, rows, strict=True):
            since = None if raw is None else _decode_row(raw).y
            if since is not None:
                out[number] = since
        return out

    # ------------------------------------------------------------------ what is stale, idle, blind
    def stale(self, now_ms: int, most: int) -> Iterator[tuple[PartitionKeys, str, list[str]]]:
        """Items in flight beyond their deadline, at most ``most`` a partition: (partition, uid, names) by conversation.

        A deadline further ahead than any can be was set under another clock: such items are among them.
        """
        ahead_ms = now_ms + max(self._buffer.stale) + AHEAD_MS
        pipe = self._client.pipeline(transaction=False)
        for keys in self._all:
            pipe.zrangebyscore(keys.open, "-inf", now_ms, 0, most)
            pipe.zrangebyscore(keys.open, ahead_ms, "+inf", 0, most)
        found = self._execute(pipe)
        for keys, past, ahead in zip(self._all, found[::2], found[1::2], strict=True):
            by_uid: dict[str, list[str]] = {}
            for ref in (*past, *ahead)[:most]:
                by_uid.setdefault(ref[:32].decode(), []).append(ref[33:].decode())
            for uid, items in by_uid.items():
                yield keys, uid, items

    def idle(self, now_ms: int, idle_ms: int, most: int) -> list[tuple[PartitionKeys, str]]:
        """Conversations whose last save lies ``idle_ms`` back: the oldest ``most`` of each partition, oldest first; and
        those whose last save lies ahead (the clock went back).
        """
        pipe = self._client.pipeline(transaction=False)
        for keys in self._all:
            pipe.zrangebyscore(keys.idle, "-inf", now_ms - idle_ms, 0, most, withscores=True)
            pipe.zrangebyscore(keys.idle, now_ms + AHEAD_MS, "+inf", 0, most, withscores=True)
        found = self._execute(pipe)
        both = zip(self._all, found[::2], found[1::2], strict=True)
        aged = [(at, uid, k) for k, past, ahead in both for uid, at in (*past, *ahead)[:most]]
        return [(k, uid.decode()) for _, uid, k in sorted(aged, key=lambda entry: entry[:2])]

    def blind(self, keys: PartitionKeys, most: int, skip: int = 0) -> list[str]:
        """Uids of conversations whose journal waits for its base, oldest first."""
        return [uid.decode() for uid in self._do("ZRANGE", keys.blind, skip, skip + most - 1)]

    # ------------------------------------------------------------------ figures, dead letters
    def counts(self) -> list[Counts]:
        """The sizes of all partitions, in one round trip."""
        pipe = self._client.pipeline(transaction=False)
        for k in self._all:
            pipe.zcard(k.due).hlen(k.dead).zcard(k.blind).zcard(k.idle).zcard(k.open)
            pipe.exists(k.lease).exists(k.hold)
            pipe.zrange(k.due, 0, 0, withscores=True).zrange(k.blind, 0, 0, withscores=True)
        found = self._execute(pipe)
        out = []
        for i, k in enumerate(self._all):
            due, dead, blind, hot, opened, leased, paused, first, blinded = found[9 * i : 9 * i + 9]
            ref, at = (first[0][0].decode(), int(first[0][1])) if first else (None, 0)
            since = int(blinded[0][1]) if blinded else 0
            out.append(
                Counts(k.number, due, dead, blind, hot, opened, bool(leased), bool(paused), ref, at, since)
            )
        return out

    def dead(self, keys: PartitionKeys, cursor: int, most: int) -> tuple[int, list[DeadLetter]]:
        """Some dead letters of a partition from ``cursor`` (0: the first); the next cursor, 0 at the end (HSCAN)."""
        following, found = self._do("HSCAN", keys.dead, cursor, "COUNT", most)
        return int(following), [DeadLetter(ref.decode(), why.decode()) for ref, why in found.items()]

    def dead_of(self, keys: PartitionKeys, uid: str) -> list[str]:
        """The dead letters of one conversation."""
        found = self._client.hscan_iter(keys.dead, match=f"{uid}/*", count=1_000)
        try:
            return sorted({ref.decode() for ref, _ in found})
        except RedisError as error:
            raise translate(error) from error

    def why_dead(self, keys: PartitionKeys, ref: str) -> str | None:
        """Why a row was buried; None where it is no dead letter."""
        raw = self._do("HGET", keys.dead, ref)
        return None if raw is None else raw.decode()

    # ------------------------------------------------------------------ for verify
    def conversations(self) -> dict[int, dict[str, set[str]]]:
        """Partition -> uid -> names (K/I) that its indexes hold: every conversation the buffer knows of, by its keys or
        only by an index. What comes or goes meanwhile may be in it or not.
        """
        found: dict[int, dict[str, set[str]]] = {k.number: {} for k in self._all}
        try:
            for k in self._all:
                known = found[k.number]
                for index in (k.idle, k.blind):
                    for uid, _ in self._client.zscan_iter(index, count=1_000):
                        known.setdefault(uid.decode(), set())
                for index in (k.due, k.open):
                    for ref, _ in self._client.zscan_iter(index, count=1_000):
                        known.setdefault(ref[:32].decode(), set()).add(ref[33:].decode())
                for ref, _ in self._client.hscan_iter(k.dead, count=1_000):
                    known.setdefault(ref[:32].decode(), set()).add(ref[33:].decode())
            for key in self._client.scan_iter(names.CONVERSATIONS, count=1_000):
                place = names.conversation_of(key.decode())
                if place is not None and place[0] in found:
                    found[place[0]].setdefault(place[1], set())
        except RedisError as error:
            raise translate(error) from error
        return found

    def audit(self, keys: PartitionKeys, uid: str, indexed: Iterable[str] = ()) -> Audit:
        """All that the buffer knows of one conversation, in one snapshot. ``indexed``: names an index was seen to hold."""
        key_list = [
            keys.meta, keys.rows(uid), keys.bodies(uid), keys.due, keys.open, keys.idle, keys.dead, keys.journal(uid),
            keys.blind, keys.image_rows(uid),
        ]  # fmt: skip
        return decode_audit(call(self._client, "audit", key_list, [uid, *indexed], retries=1))

    def mend(
        self,
        keys: PartitionKeys,
        uid: str,
        why: str,
        *,
        newer: Iterable[tuple[str, int]] = (),
        forget: Iterable[tuple[str, int]] = (),
        indexed: Iterable[str] = (),
    ) -> None:
        """Counters and index entries as the rows say. Of clean rows (name, version): ``newer`` are to be written to
        Postgres anew, ``forget`` to be taken from there. ``why``: JSON, for dead letters that lost their reason;
        ``indexed`` as in `audit`.
        """
        key_list = [
            keys.rows(uid), keys.bodies(uid), keys.due, keys.open, keys.idle, keys.dead, keys.journal(uid), keys.blind,
        ]  # fmt: skip
        request = {"uid": uid, "why": why, "newer": [*newer], "forget": [*forget], "indexed": [*indexed]}
        call(self._client, "mend", key_list, [_encode(request)], retries=1)

    # ------------------------------------------------------------------ who is alive, counters, chores
    def epoch(self) -> str:
        """The buffer epoch in force; empty before the first layout. Of a cluster, where each partition has its own, a word
        that is another one when any of them is.
        """
        if not isinstance(self._client, Cluster):
            raw = self._do("HGET", self._all[0].meta, "e")
            return "" if raw is None else raw.decode()
        pipe = self._client.pipeline(transaction=False)
        for keys in self._all:
            pipe.hget(keys.meta, "e")
        return blake2b(b",".join(raw or b"" for raw in self._execute(pipe)), digest_size=8).hexdigest()

    def now_ms(self) -> int:
        """The server's clock."""
        seconds, micros = self._do("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def alive(self, worker: str, for_ms: int) -> int:
        """A worker process lives; how many do."""
        return int(call(self._client, "alive", [names.WORKERS], [worker, for_ms], retries=1))

    def workers(self, now_ms: int) -> list[str]:
        """The worker processes alive at ``now_ms``."""
        return sorted(
            name.decode() for name in self._do("ZRANGEBYSCORE", names.WORKERS, f"({now_ms}", "+inf")
        )

    def gone(self, worker: str) -> None:
        """A worker process ends in order."""
        self._do("ZREM", names.WORKERS, worker)

    def claim(self, key: str, for_ms: int, *, over: bool = False) -> bool:
        """Say that something (keys.SWEEP, keys.BEAT) happens now. False: somebody else said so less than ``for_ms`` ago
        (never with ``over``).
        """
        return int(call(self._client, "claim", [key], [for_ms, "1" if over else "0"])) == 1

    def stands(self, key: str) -> bool:
        """A claim is in force."""
        return bool(self._do("EXISTS", key))

    def withdraw(self, key: str) -> None:
        """A claim is in force no longer."""
        self._do("DEL", key)

    def said_ms(self, *claims: str) -> list[int | None]:
        """When each of ``claims`` was last made; None where none is in force."""
        pipe = self._client.pipeline(transaction=False)
        for claim in claims:
            pipe.get(claim)
        return [None if raw is None else int(raw) for raw in self._execute(pipe)]

    def keep_sample(self, sample: bytes, most: int) -> None:
        """Keep a sample of the figures, at most ``most``."""
        call(self._client, "sample", [names.SAMPLES], [sample, most])

    def samples(self, most: int) -> list[bytes]:
        """The youngest ``most`` samples, the newest first."""
        found: list[bytes] = self._do("LRANGE", names.SAMPLES, 0, most - 1)
        return found

    def count(self, increments: Mapping[str, int]) -> None:
        """Add to the workers' counters."""
        flat = [part for pair in increments.items() for part in pair]
        if flat:
            call(self._client, "count", [names.STATS], flat)

    def counters(self) -> dict[str, int]:
        """The workers' counters since the buffer was last empty."""
        found = self._do("HGETALL", names.STATS)
        return {name.decode(): int(value) for name, value in found.items()}

    def chores(self) -> dict[str, str]:
        """How far the daily chores have come."""
        return {name.decode(): value.decode() for name, value in self._do("HGETALL", names.CHORES).items()}

    def note_chore(self, **fields: str | int) -> None:
        """Remember how far a chore has come. Raises BufferFull under memory pressure: it is done again then."""
        flat = [part for pair in fields.items() for part in pair]
        self._do("HSET", names.CHORES, *flat)

    def _do(self, *command: Any) -> Any:
        try:
            return self._client.execute_command(*command)
        except RedisError as error:
            raise translate(error) from error

    def _execute(self, pipe: Any) -> list[Any]:
        try:
            found: list[Any] = pipe.execute()
        except RedisError as error:
            raise translate(error) from error
        return found
