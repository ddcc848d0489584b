"""Backfill: an export put back, row by row as it was, into Postgres; what is hot takes it over from there.

Laws:
- The whole file is read first (`check`); one bad line, and nothing is written.
- Whole rows with their own versions, behind the fence of every other write: a row that is there in this version or a newer
  one stays. So twice changes nothing, and an old export never replaces what came after it.
- A conversation that was deleted stays deleted: it is left alone, and told.
- The conversation's own row is written last. Broken off before, it is not there yet; the next run completes it.
- Then it is adopted over, as after a roll-back of the buffer: what was hot learns of the rows, and what somebody loaded
  before they were there is not installed after. What was cold leaves the buffer again.

Not restored: an item that was deleted so long ago that its tombstone was purged comes back with the file. A client that
follows by ``since`` from a later version than the file's learns of rows that come back when it reads the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from models.buffer.buffer import Buffer, Place
from models.buffer.partitions import Partitions
from models.core.records import Conversation, Record
from models.errors import RecordRejected
from models.pipeline import lines
from models.pipeline.adopt import Adopter
from models.pipeline.lines import BadLine
from models.postgres.rows import RecordKey, key_of
from models.postgres.store import Store

#: Of one transaction: rows, and characters of their lines.
_ROWS: Final = 256
_BYTES: Final = 4 * 1024 * 1024
#: Bad lines told; the rest are counted.
_TOLD: Final = 20


class Checked(NamedTuple):
    """What a file holds. ``bad``: (line, what is wrong), at most _TOLD of ``bad_lines``."""

    owner: str
    conversations: int
    lines: int
    bad: tuple[tuple[int, str], ...]
    bad_lines: int


class Backfilled(NamedTuple):
    """Rows by what became of them. ``deleted``: ids of conversations left alone; ``rejected``: (id, why), incomplete."""

    conversations: int
    written: int
    unchanged: int
    newer: int
    deleted: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]


class _Group(NamedTuple):
    """One conversation of a file; its records with the length of their lines, its own last."""

    id: str
    records: Iterable[tuple[Record, int]]


def check(path: Path, owner: str | None) -> Checked:
    """Read all of it, and write nothing. ``owner``: instead of the file's own. Raises OSError."""
    reading = _Reading(owner)
    told: list[tuple[int, str]] = []
    bad = number = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                reading.take(number, lines.document(raw))
            except BadLine as error:
                bad += 1
                if bad <= _TOLD:
                    told.append((number, str(error)))
                if number == 1:
                    break
    if number == 0:
        bad, told = 1, [(1, "the file is empty")]
    elif not reading.ended and not (number == 1 and bad):
        bad += 1
        told.append((number, "the file is cut off here: its last line has to be the end"))
    return Checked(reading.owner, reading.conversations, number, tuple(told), bad)


class _Reading:
    """How far a file was understood."""

    def __init__(self, owner: str | None) -> None:
        self.owner = owner or ""
        self.conversations = 0
        self.ended = False
        self._conversation: str | None = None
        self._known: set[str] = set()
        self._items: set[RecordKey] = set()
        self._now_us = time.time_ns() // 1000

    def take(self, number: int, document: dict[str, Any]) -> None:
        """The next line. Raises BadLine."""
        kind = document["type"]
        if number == 1:
            own = _header(document)
            self.owner = self.owner or own
        elif self.ended:
            raise BadLine("comes after the end")
        elif kind == "end":
            self.ended = True
            if (document.get("lines"), document.get("conversations")) != (number, self.conversations):
                raise BadLine("the end counts other lines than there are: some are missing")
        else:
            if kind == "conversation":
                self._begin(str(document.get("id")))
            if self._conversation is None:
                raise BadLine("an item before its conversation")
            key = key_of(lines.record(document, self.owner, self._conversation, self._now_us))
            if key in self._items:
                raise BadLine(f"{kind} {key.id[:60]} comes twice")
            self._items.add(key)

    def _begin(self, conversation: str) -> None:
        self._conversation = conversation
        self.conversations += 1
        if conversation in self._known:
            raise BadLine(f"conversation {conversation[:60]} comes twice")
        self._known.add(conversation)
        self._items.clear()


def _header(document: dict[str, Any]) -> str:
    if document["type"] != "blotter-export":
        raise BadLine("no export of Blotter: its first line has the type blotter-export")
    if document.get("format") != lines.FORMAT:
        raise BadLine(f"`format` is not {lines.FORMAT}, which is the one this version reads")
    owner = document.get("owner")
    if not isinstance(owner, str) or not owner.strip():
        raise BadLine("`owner` is missing")
    return owner


class Backfiller:
    """Puts a checked file back. Raises BufferUnavailable, BufferFull, StoreUnavailable, SchemaError, Contention."""

    def __init__(self, buffer: Buffer, partitions: Partitions, store: Store, adopter: Adopter) -> None:
        self._buffer = buffer
        self._partitions = partitions
        self._store = store
        self._adopter = adopter

    def backfill(
        self, path: Path, owner: str, progress: Callable[[Backfilled], object] = lambda so_far: None
    ) -> Backfilled:
        """Write what is missing of ``path`` as ``owner``'s; ``progress`` after each conversation."""
        so_far = Backfilled(0, 0, 0, 0, (), ())
        for group in _groups(path, owner):
            so_far = self._conversation(self._buffer.place(owner, group.id), group, so_far)
            progress(so_far)
        return so_far

    def _conversation(self, place: Place, group: _Group, so_far: Backfilled) -> Backfilled:
        stored = self._store.snapshot(place.uid).conversation
        if stored is not None and stored.deleted_ms is not None:
            for _ in group.records:
                pass
            return so_far._replace(
                conversations=so_far.conversations + 1, deleted=(*so_far.deleted, place.id)
            )
        written = unchanged = newer = 0
        rejected = so_far.rejected
        try:
            for batch in _batches(group.records):
                outcome = self._store.write(batch)
                written += len(outcome.written)
                for record in batch:
                    key = key_of(record)
                    if key not in outcome.written:
                        is_newer = key.kind != "v" and outcome.stored.get(key, 0) > record.version
                        newer += is_newer
                        unchanged += not is_newer
        except RecordRejected as error:
            rejected = (*rejected, (place.id, str(error)))
            for _ in group.records:
                pass
        hot = self._partitions.place_of(place.keys, place.hex) is not None
        if written or hot:
            self._adopter.adopt(place, force=True, keep_empty=True)
            if not hot:
                self._buffer.evict(place.keys, place.hex, 0)
        return Backfilled(
            so_far.conversations + 1,
            so_far.written + written,
            so_far.unchanged + unchanged,
            so_far.newer + newer,
            so_far.deleted,
            rejected,
        )


def _groups(path: Path, owner: str) -> Iterator[_Group]:
    """The conversations of a checked file, one after the other; each is to be read to its end before the next."""
    now_us = time.time_ns() // 1000
    with path.open("rb") as file:
        next(file)
        following: dict[str, Any] | None = lines.document(next(file))

        def records(own: dict[str, Any]) -> Iterator[tuple[Record, int]]:
            nonlocal following
            following = None
            for raw in file:
                document = lines.document(raw)
                if document["type"] in ("conversation", "end"):
                    following = document
                    break
                yield lines.record(document, owner, own["id"], now_us), len(raw)
            yield lines.record(own, owner, own["id"], now_us), 0

        while following is not None and following["type"] == "conversation":
            yield _Group(following["id"], records(following))


def _batches(records: Iterable[tuple[Record, int]]) -> Iterator[list[Record]]:
    """Records for one transaction each; the conversation's own row comes after all others are committed."""
    batch: list[Record] = []
    size = 0
    for record, length in records:
        own = isinstance(record, Conversation)
        if batch and (own or len(batch) >= _ROWS or size + length > _BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch
