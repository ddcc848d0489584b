"""One conversation as the buffer holds it, laid open for checking: what its rows say against what is counted and indexed.

Pure: `faults_within` takes the snapshot that lua/audit.lua made, so nothing found here is a save caught half way. The
rows are the truth; counters and index entries follow from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from models.buffer.codec import Header, Row
from models.core.records import OPEN_STATUSES

#: Sixteen chunks of a growing text become one of the next level (lua/common.lua).
_FAN: Final = 16


class Fault(NamedTuple):
    """``kind``: a word scripts may rely on. ``name``: the row (K/I), empty for the conversation. ``version``: its row's,
    0 where there is none. ``detail``: a sentence without chat text.
    """

    kind: str
    name: str
    version: int
    detail: str


class AuditedRow(msgspec.Struct, array_like=True, frozen=True):
    """A row, and what the indexes say of it."""

    name: str
    row: Row
    due: float | bool
    open: float | bool
    dead: int


class Stray(msgspec.Struct, array_like=True, frozen=True):
    """Index entries whose row is not there."""

    name: str
    due: float | bool
    open: float | bool
    dead: int


class Audit(msgspec.Struct, array_like=True, frozen=True):
    """What lua/audit.lua answers."""

    epoch: str
    header: Header | bool
    rows: list[AuditedRow]
    strays: list[Stray]
    idle: float | bool
    journal: int
    blind: float | bool
    image: int
    bodies: dict[str, int]
    expires: int

    @property
    def hot(self) -> bool:
        return isinstance(self.header, Header)

    @property
    def suspect(self) -> bool:
        """Adopted under another buffer epoch: its next use compares it with Postgres first."""
        return isinstance(self.header, Header) and self.header.be != self.epoch


decode: Final = msgspec.msgpack.Decoder(Audit).decode


def faults_within(audit: Audit) -> Iterator[Fault]:
    """What is wrong with a conversation by the buffer's own account."""
    if (audit.journal > 0) != (audit.blind is not False) or (audit.journal > 0) != bool(audit.image):
        yield Fault("blind-index", "", 0, "journal, its image and the index of journals do not go together")
    for stray in audit.strays:
        where = [name for name in ("due", "open", "dead") if getattr(stray, name) not in (False, 0)]
        yield Fault(
            "stray-entry", stray.name, 0, f"in the index {' and '.join(where)}, but there is no such row"
        )
    if not isinstance(audit.header, Header):
        if audit.rows:
            yield Fault("no-header", "", 0, f"{len(audit.rows)} rows without a header")
        elif audit.bodies:
            yield Fault("stray-text", "", 0, f"{len(audit.bodies)} texts of a conversation that is not here")
        if audit.idle is not False:
            yield Fault("stray-entry", "", 0, "in the index idle, but the conversation is not here")
        return
    if audit.expires:
        yield Fault("expires", "", 0, "its keys have a lifetime: what is in them would vanish")
    if audit.idle is False:
        yield Fault("not-idle", "", 0, "not in the index idle: it would never be evicted")
    yield from _counters(audit, audit.header)
    expected: set[str] = set()
    for entry in audit.rows:
        if not entry.name.startswith("l/"):
            yield from _indexes(entry)
            lost = 0
            for texts in _texts(entry.name, entry.row):
                expected.update(texts.fields)
                sizes = [audit.bodies.get(field) for field in texts.fields]
                there = sum(size for size in sizes if size is not None)
                lost += None in sizes and not texts.optional
                lost += texts.size is not None and None not in sizes and there != texts.size
            if lost:
                yield Fault("lost-text", entry.name, entry.row.v, f"{lost} of its texts are missing or cut")
        if entry.row.v > audit.header.last:
            yield Fault("version", entry.name, entry.row.v, "newer than its conversation's version")
    if stray_bodies := set(audit.bodies) - expected:
        yield Fault("stray-text", "", 0, f"{len(stray_bodies)} texts belong to no row")


def _counters(audit: Audit, header: Header) -> Iterator[Fault]:
    rows = [(entry.name[0], entry.row) for entry in audit.rows]
    recount = {
        "n": sum(kind in "mta" for kind, _ in rows),
        "bytes": sum(row.b or 0 for kind, row in rows if kind != "v"),
        "dirty": sum(row.y is not None for _, row in rows),
        "dead": sum(row.x is not None for _, row in rows),
        "open": sum(row.o is not None for _, row in rows),
    }
    wrong = [
        f"{name} says {getattr(header, name)}, is {count}"
        for name, count in recount.items()
        if getattr(header, name) != count
    ]
    if wrong:
        yield Fault("counters", "", 0, "; ".join(wrong))


def _indexes(entry: AuditedRow) -> Iterator[Fault]:
    row = entry.row

    def fault(kind: str, detail: str) -> Fault:
        return Fault(kind, entry.name, row.v, detail)

    due = row.y is not None and row.x is None
    if due and entry.due is False:
        yield fault("not-due", "dirty and in no index: nobody would ever flush it")
    if not due and entry.due is not False:
        yield fault("stray-entry", "due, but not dirty")
    if (row.o if row.o is not None else False) != entry.open:
        yield fault("open-index", "the index of what is in flight tells another deadline than the row")
    if (row.x is not None) != bool(entry.dead):
        yield fault("dead-index", "a dead letter in the row or in the list, not in both")
    if row.x is not None and row.y is None:
        yield fault("dead-index", "a dead letter that is not dirty")
    if row.y is None and not entry.name.startswith("v/") and row.z != row.v:
        yield fault("not-stored", "clean, but this version was never known to be in Postgres")
    if row.st in OPEN_STATUSES and row.d is None and row.o is None:
        yield fault("no-deadline", "open, but nobody would ever settle it")


class _Texts(NamedTuple):
    """Fields of the bodies that belong together: their bytes in all (None: not known), and whether they may be absent."""

    fields: tuple[str, ...]
    size: int | None = None
    optional: bool = False


def _texts(name: str, row: Row) -> Iterator[_Texts]:
    """The fields that hold a row's texts."""
    if name.startswith("v/"):
        yield _Texts((name,), row.b or 0)
        return
    grown = row.g or {}
    for field, (_, size) in (row.k or {}).items():
        yield _Texts((f"{name}/{field}",), size)
    for ref, (chunks, _, size) in grown.items():
        field = f"{name}/content" if ref == "c" else f"{name}/={ref}"
        base = (field,) if ref != "c" or "content" in (row.k or {}) else ()
        yield _Texts((*base, *_chunks(field, chunks)), size)
    for i in range(row.n or 0):
        yield _Texts((f"{name}/#{i}",))
        yield _Texts((f"{name}/={i}",), optional=True)


def _chunks(field: str, chunks: int) -> Iterator[str]:
    digits = []
    while chunks:
        chunks, digit = divmod(chunks, _FAN)
        digits.append(digit)
    for level in reversed(range(len(digits))):
        for digit in range(digits[level]):
            yield f"{field}+{level}.{digit}"
