"""One conversation in the buffer, as tests drive it: every step is recounted, and a small store stands for Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.buffer.buffer import Buffer, SaveReply
from models.buffer.codec import View, record, stage
from models.core import commands
from models.core.commands import Append, Command, Delete, ItemKind, ItemOutcome, SetPart, utf16_units
from models.core.records import Artifact, ArtifactVersion, Conversation, Message, Record, Snapshot, ToolResult
from tests.buffer.checks import recount, recount_blind


def put(
    kind: ItemKind, item_id: str, /, *, rev: int | None = None, st: str | None = None, **fields: Any
) -> commands.Put:
    position = fields.pop("pos", None)
    return commands.put(kind, item_id, fields, revision=rev, status=st, position=position)


def append(
    item_id: str,
    offset: int,
    text: str,
    *,
    part: int | None = None,
    kind: ItemKind = "m",
    rev: int | None = None,
    st: str | None = None,
    reason: str | None = None,
) -> Append:
    return Append(kind, item_id, offset, text, utf16_units(text), part, rev, st, reason)


def set_part(
    item_id: str,
    index: int,
    value: Mapping[str, Any],
    *,
    rev: int | None = None,
    st: str | None = None,
    reason: str | None = None,
) -> SetPart:
    return SetPart("m", item_id, index, commands.split_part(value), rev, st, reason)


class Store:
    """What Postgres would hold: whole rows, fenced by version."""

    def __init__(self) -> None:
        self.rows: dict[str, Record] = {}

    def upsert(self, name: str, row: Record) -> int:
        """Keep ``row`` unless something as new is there; the version there afterwards."""
        held = self.rows.get(name)
        if held is None or held.version < row.version:
            self.rows[name] = row
            return row.version
        return held.version

    def snapshot(self) -> Snapshot:
        def of(wanted: type) -> list[Any]:
            return sorted(
                (row for row in self.rows.values() if isinstance(row, wanted)),
                key=lambda row: getattr(row, "position", ""),
            )

        own = of(Conversation)
        return Snapshot(
            conversation=own[0] if own else None,
            messages=tuple(of(Message)),
            tool_results=tuple(of(ToolResult)),
            artifacts=tuple(of(Artifact)),
        )

    def versions(self) -> list[ArtifactVersion]:
        return [row for row in self.rows.values() if isinstance(row, ArtifactVersion)]


class Chat:
    """A conversation. Steps raise unless the buffer takes them; what each item's fate was is in the outcomes."""

    def __init__(self, buffer: Buffer, owner: str, conversation_id: str, *, checked: bool = True) -> None:
        self.buffer = buffer
        self.place = buffer.place(owner, conversation_id)
        self.store = Store()
        self.checked = checked
        self.last = 0
        #: Blind saves superseded at replays.
        self.lost = 0

    @property
    def rows_key(self) -> str:
        return self.place.keys.rows(self.place.hex)

    @property
    def bodies_key(self) -> str:
        return self.place.keys.bodies(self.place.hex)

    def check(self) -> dict[str, Any]:
        """Recount; returns the raw rows."""
        rows = recount(self.buffer, self.place)
        recount_blind(self.buffer, self.place)
        return rows or {}

    def _checked(self) -> None:
        if self.checked:
            self.check()

    # ------------------------------------------------------------------ saves
    def send(self, *items: Command, **options: Any) -> SaveReply:
        """Save as the pipeline would: a cold conversation is adopted from the store first."""
        reply = self.buffer.save(self.place, items, **options)
        if reply.s == "cold" and options.get("mode", "hot") == "hot":
            assert self.adopt() == "ok"
            reply = self.buffer.save(self.place, items, **options)
        if reply.s == "done" and options.get("mode", "hot") != "blind":
            assert reply.v >= self.last, "the conversation's version went back"
            self.last = reply.v
        self._checked()
        return reply

    def save(self, command: Command, **options: Any) -> ItemOutcome:
        reply = self.send(command, **options)
        assert reply.s == "done", reply
        return reply.items[0]

    def put(self, kind: ItemKind, item_id: str, /, **fields: Any) -> ItemOutcome:
        return self.save(put(kind, item_id, **fields))

    def append(self, item_id: str, offset: int, text: str, **options: Any) -> ItemOutcome:
        return self.save(append(item_id, offset, text, **options))

    def part(self, item_id: str, index: int, value: Mapping[str, Any], **options: Any) -> ItemOutcome:
        return self.save(set_part(item_id, index, value, **options))

    def delete(self, kind: ItemKind, item_id: str = "") -> ItemOutcome:
        return self.save(Delete(kind, item_id))

    # ------------------------------------------------------------------ reads
    def views(self, **options: Any) -> dict[str, View]:
        reply = self.buffer.read(self.place, most=0, trust=True, **options)
        assert reply.head.s == "ok", reply.head
        return {item.name: item for item in reply.items}

    def record_of(self, name: str, **options: Any) -> Any:
        view = self.views(**options)[name]
        return record(self.place.uid, self.place.owner, self.place.id, view)

    def message(self, item_id: str) -> Message:
        found: Message = self.record_of(f"m/{item_id}")
        return found

    def row(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.check()[name]
        return found

    def header(self) -> dict[str, Any]:
        return self.row("h")

    # ------------------------------------------------------------------ pipeline
    def due(self) -> list[str]:
        """All refs of this conversation that wait for Postgres, ripe or not."""
        members = self.buffer.client.zrange(self.place.keys.due, 0, -1)
        return [m.decode() for m in members if m.decode().startswith(self.place.hex)]

    def peek(self, refs: Sequence[str] | None = None) -> list[tuple[str, Record]]:
        rows = self.buffer.rows(self.place.keys, self.due() if refs is None else refs, 1 << 30)
        return [(row.ref, row.record) for row in rows if row.record is not None]

    def commit(self, peeked: Sequence[tuple[str, Record]]) -> list[tuple[str, int]]:
        return [(ref, self.store.upsert(ref[33:], row)) for ref, row in peeked]

    def acknowledge(self, committed: Sequence[tuple[str, int]]) -> tuple[int, int]:
        answer = self.buffer.acknowledge(self.place.keys, committed) if committed else (0, 0)
        self._checked()
        return answer

    def flush(self) -> tuple[int, int]:
        """(made clean, still dirty)"""
        return self.acknowledge(self.commit(self.peek()))

    def settle(self, *names: str, at_ms: int) -> int:
        """Settle ``names`` as if it were ``at_ms`` now."""
        self.buffer.now_us = at_ms * 1000
        try:
            settled = self.buffer.settle(self.place.keys, self.place.hex, names).settled
        finally:
            self.buffer.now_us = 0
        self._checked()
        return settled

    def settle_stale(self, name: str) -> int:
        """Settle ``name`` just after its deadline."""
        return self.settle(name, at_ms=int(self.row(name)["o"]))

    def evict(self) -> int:
        answer = self.buffer.evict(self.place.keys, self.place.hex, 0)
        self._checked()
        return answer

    def adopt(self, *, force: bool = False, horizon: int = 0, beyond: bool = False) -> str:
        epoch = self.buffer.epoch(self.place)
        staged = stage(self.place.owner, self.place.id, self.store.snapshot(), horizon, self.buffer.stale)
        answer = self.buffer.adopt(self.place, staged, epoch, force=force, beyond=beyond)
        self._checked()
        return answer
