"""Verify: the buffer against itself and against Postgres, row by row, for everything hot; and how to put it right.

    verify.1 every conversation the buffer knows of, by its keys or only by an index
    verify.2 of each one snapshot: rows, counters, index entries (lua/audit.lua), and then its rows in Postgres
    verify.3 with --repair: counters and indexes are derived anew from the rows (lua/mend.lua); then what Postgres has
             newer is adopted, and what it lacks becomes dirty; then look again. With nothing left, what was noted of a
             Postgres that was set back (models/pipeline/setback.py) is done

What must hold: a clean row is in Postgres, equal; a dirty one is newer there than nothing, and due, or a dead letter;
what is in flight has a deadline; counters equal a recount; a conversation whose own row is dirty stands on its owner's
index. While saves, flushes and evictions go on: what a second look, a moment later, does not find again unchanged was
only on its way.

Not a fault: a conversation adopted under another buffer epoch (the server was restarted) that lies behind Postgres, for
its next use compares them first; saves kept blind while Postgres is away; tombstones that purge took from Postgres.

A row equal in version and different in content is decided for the buffer, with a new version: that is what readers see,
and what was acknowledged. Whoever changes rows in Postgres by hand has to raise their version. A clean row whose text is
missing or cut is taken from Postgres; of a dirty one it is only told: nobody has it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from models.buffer import codec
from models.buffer.audit import Audit, Fault, faults_within
from models.buffer.buffer import READ_WHOLE_BYTES, Buffer, Place
from models.buffer.keys import SET_BACK, PartitionKeys
from models.buffer.partitions import Partitions
from models.core.records import Record, Snapshot
from models.errors import BufferFull, Contention
from models.pipeline.adopt import Adopter
from models.pipeline.failpoints import reach
from models.postgres.rows import key_of
from models.postgres.store import Store

log = logging.getLogger("blotter.verify")

#: What is found wrong is looked at again after this, s; found again unchanged, it is a fault.
SECOND_LOOK_S: Final = 0.05
#: Looks at one conversation that changes all the time.
_LOOKS: Final = 5
#: Kinds that adopting over the conversation puts right.
_ADOPTED: Final = frozenset({"stored-newer", "row-lost", "row-missing", "not-stored", "lost-text"})


class Found(NamedTuple):
    """A fault, and where. ``owner`` and ``conversation`` are the client's names, None where nobody knows them."""

    uid: str
    owner: str | None
    conversation: str | None
    fault: Fault


class Verified(NamedTuple):
    """Conversations looked at and their rows compared with Postgres; those that wait for their base (blind), or for
    their next use (suspect); faults ``found``, and those still there after the repair (all of them without).
    """

    conversations: int
    rows: int
    blind: int
    suspect: int
    found: tuple[Found, ...]
    left: tuple[Found, ...]


class Verifier:
    """Verifies a whole buffer. Raises BufferUnavailable, StoreUnavailable, SchemaError."""

    def __init__(
        self,
        buffer: Buffer,
        partitions: Partitions,
        store: Store,
        adopter: Adopter,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._buffer = buffer
        self._partitions = partitions
        self._store = store
        self._adopter = adopter
        self._pause = pause

    def verify(
        self, *, repair: bool = False, progress: Callable[[int, int], None] = lambda done, of: None
    ) -> Verified:
        """Look at everything; ``progress(done, of)`` after each conversation."""
        known = self._partitions.conversations()
        reach("verify.1")
        of = sum(map(len, known.values()))
        done = rows = blind = suspect = 0
        found: list[Found] = []
        left: list[Found] = []
        progress(0, of)
        for keys in self._buffer.partitions:
            for uid, indexed in sorted(known[keys.number].items()):
                looked = _Looked(keys, uid, frozenset(indexed))
                faults = self._look(looked)
                reach("verify.2")
                found += faults
                if faults and repair:
                    self._repair(looked, [entry.fault for entry in faults])
                    reach("verify.3")
                    faults = self._look(looked)
                left += faults
                rows += looked.rows
                blind += looked.blind
                suspect += looked.suspect
                done += 1
                progress(done, of)
        if repair and not left:
            self._partitions.withdraw(SET_BACK)
        return Verified(done, rows, blind, suspect, tuple(found), tuple(left))

    # ------------------------------------------------------------------ looking
    def _look(self, looked: _Looked) -> list[Found]:
        """The faults that two looks in a row agree on."""
        before: set[Fault] = set()
        both: set[Fault] = set()
        for look in range(_LOOKS):
            faults = self._look_once(looked)
            if not faults:
                return []
            both = before & faults
            if both and both == faults:
                break
            before = faults
            if look < _LOOKS - 1:
                self._pause(SECOND_LOOK_S)
        owner, conversation = (looked.place.owner, looked.place.id) if looked.place else (None, None)
        return [Found(looked.uid, owner, conversation, fault) for fault in sorted(both)]

    def _look_once(self, looked: _Looked) -> set[Fault]:
        audit = self._partitions.audit(looked.keys, looked.uid, sorted(looked.indexed))
        looked.place = self._partitions.place_of(looked.keys, looked.uid)
        looked.blind, looked.suspect = audit.journal > 0, audit.suspect
        faults = set(faults_within(audit))
        place = looked.place
        if place is None or not isinstance(audit.header, codec.Header):
            return faults
        own = next((entry.row for entry in audit.rows if entry.name == "c/"), None)
        if own is not None and own.y is not None and audit.journal == 0:
            listed = self._buffer.listed_at(place)
            if listed is None or listed < own.v:
                detail = "dirty, and its owner's index does not have it: it is missing in the list"
                faults.add(Fault("not-listed", "c/", own.v, detail))
        looked.rows = len(audit.rows)
        if audit.journal == 0:
            faults.update(self._against_postgres(place, audit))
        return faults

    def _against_postgres(self, place: Place, audit: Audit) -> Iterator[Fault]:
        snapshot, horizon = self._store.base(place.uid)
        stored = {_name(record): record for record in _records(snapshot)}
        clean: list[tuple[str, int]] = []
        for entry in audit.rows:
            name, row = entry.name, entry.row
            if name[0] not in "cmta":
                continue
            theirs = stored.pop(name, None)
            if theirs is None:
                if (
                    row.y is None
                    and not (row.d is not None and row.v <= horizon)
                    and not _buried(snapshot, name)
                ):
                    yield Fault("row-lost", name, row.v, "clean, but Postgres does not have it")
            elif theirs.version > row.v:
                if not audit.suspect:
                    yield Fault("stored-newer", name, row.v, "Postgres has it newer: the buffer was set back")
            elif theirs.version < row.v:
                if row.y is None:
                    yield Fault("row-lost", name, row.v, "clean, but Postgres has only an older one")
            elif row.y is None:
                clean.append((name, row.b or 0))
                stored[name] = theirs
        unequal = set(self._unequal(place, audit, clean, stored))
        for name, theirs in stored.items():
            if name in unequal:
                yield Fault("unequal", name, theirs.version, "of one version, and different in Postgres")
            elif name not in {each for each, _ in clean} and not audit.suspect:
                yield Fault("row-missing", name, theirs.version, "in Postgres, but not in the buffer")

    def _unequal(
        self, place: Place, audit: Audit, clean: Sequence[tuple[str, int]], stored: dict[str, Record]
    ) -> Iterator[str]:
        """Names of clean rows whose content is another in Postgres."""
        assert isinstance(audit.header, codec.Header)
        for names in _portions(clean):
            reply = self._buffer.read(place, "names", names=names, trust=True, at=audit.header.last)
            if reply.head.s != "ok" or reply.head.partial:
                return  # it moved on; what is saved now is looked at another time
            for item in reply.items:
                ours = codec.record(place.uid, place.owner, place.id, item)
                if ours.version == stored[item.name].version and ours != stored[item.name]:
                    yield item.name

    # ------------------------------------------------------------------ repairing
    def _repair(self, looked: _Looked, faults: Sequence[Fault]) -> None:
        kinds = {fault.kind for fault in faults}
        log.warning("repairing conversation %s: %s", looked.uid, ", ".join(sorted(kinds)))
        cut = {(fault.name, fault.version) for fault in faults if fault.kind == "lost-text"}
        newer = {(fault.name, fault.version) for fault in faults if fault.kind == "unequal"} - cut
        why = json.dumps(
            {"at_ms": time.time_ns() // 1_000_000, "reason": "found by verify", "sqlstate": None}
        )
        self._partitions.mend(
            looked.keys,
            looked.uid,
            why,
            newer=sorted(newer),
            forget=sorted(cut),
            indexed=sorted(looked.indexed),
        )
        place = looked.place
        if place is not None and kinds & _ADOPTED:
            try:
                self._adopter.adopt(place, force=True, keep_empty=True)
            except (BufferFull, Contention) as error:
                log.warning("conversation %s cannot be adopted now: %s", looked.uid, error)
        if place is not None:
            row = self._buffer.conversation_rows([place.uid]).get(place.uid)
            if row is not None and row.view.row.y is not None:
                self._buffer.list_for_owner(place, row.view.row.v)


class _Looked:
    """A conversation under the glass."""

    def __init__(self, keys: PartitionKeys, uid: str, indexed: frozenset[str]) -> None:
        self.keys = keys
        self.uid = uid
        self.indexed = indexed
        self.place: Place | None = None
        self.rows = 0
        self.blind = self.suspect = False


def _records(snapshot: Snapshot) -> Iterator[Record]:
    if snapshot.conversation is not None:
        yield snapshot.conversation
    yield from snapshot.messages
    yield from snapshot.tool_results
    yield from snapshot.artifacts


def _name(record: Record) -> str:
    key = key_of(record)
    return f"{key.kind}/{key.id}"


def _buried(snapshot: Snapshot, name: str) -> bool:
    """An item of a conversation that is deleted in Postgres: its snapshot is the tombstone alone."""
    return name != "c/" and snapshot.conversation is not None and snapshot.conversation.deleted_ms is not None


def _portions(sized: Sequence[tuple[str, int]]) -> Iterator[tuple[str, ...]]:
    """Names, cut so that a portion's texts stay below READ_WHOLE_BYTES (one item may exceed)."""
    portion: list[str] = []
    size = 0
    for name, weight in sized:
        if portion and (size + weight > READ_WHOLE_BYTES or len(portion) >= 500):
            yield tuple(portion)
            portion, size = [], 0
        portion.append(name)
        size += weight
    if portion:
        yield tuple(portion)
