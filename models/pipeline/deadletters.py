"""Dead letters: rows Postgres rejected, or that killed their worker. Dirty, readable, never evicted, not due.

They are listed with their reason, replayed once its cause is mended, or purged (the row leaves the buffer; what Postgres
has of it stays). The next accepted save of the item frees it too.

    dead.1 before a replay or purge
    dead.2 the row is due again, or gone; its entry in the list with it, in one script
    dead.3 its trial is forgotten, the doorbell rung
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from models.buffer import codec
from models.buffer.buffer import Buffer
from models.buffer.keys import split_ref
from models.buffer.partitions import DeadLetter, Partitions
from models.core.records import Record
from models.pipeline.failpoints import reach

#: Entries asked for in one call of the server.
PAGE: Final = 100


class Letter(NamedTuple):
    """``ref`` names it in all commands; owner and conversation are the client's names (None: the conversation is gone)."""

    ref: str
    owner: str | None
    conversation: str | None
    kind: str
    id: str
    reason: str
    sqlstate: str | None
    at_ms: int


class DeadLetters:
    """The dead letters of all partitions. Every method raises BufferUnavailable."""

    def __init__(self, buffer: Buffer, partitions: Partitions, ring: Callable[[int], None]) -> None:
        self._buffer = buffer
        self._partitions = partitions
        self._ring = ring

    def all(self) -> Iterator[Letter]:
        """Every dead letter; one that comes or goes meanwhile may be seen or not, and one may be seen twice (HSCAN)."""
        for keys in self._buffer.partitions:
            cursor = 0
            while True:
                cursor, page = self._partitions.dead(keys, cursor, PAGE)
                yield from map(self._letter, page)
                if cursor == 0:
                    break

    def of(self, owner: str, conversation_id: str) -> Iterator[Letter]:
        """The dead letters of one conversation; only its own partition is looked into."""
        place = self._buffer.place(owner, conversation_id)
        for ref in self._partitions.dead_of(place.keys, place.hex):
            why = self._partitions.why_dead(place.keys, ref)
            if why is not None:
                yield self._letter(DeadLetter(ref, why))

    def show(self, ref: str) -> tuple[Letter, Record | None] | None:
        """A dead letter and the row as it lies in the buffer, content included; None where there is none."""
        keys = self._buffer.keys_of(UUID(hex=ref[:32]))
        why = self._partitions.why_dead(keys, ref)
        if why is None:
            return None
        letter = self._letter(DeadLetter(ref, why))
        place = self._partitions.place_of(keys, ref[:32])
        if place is None:
            return letter, None
        found = self._buffer.read(place, "names", names=[ref[33:]], trust=True).items
        return letter, codec.record(place.uid, place.owner, place.id, found[0]) if found else None

    def replay(self, ref: str) -> bool:
        """Make it due again; False where there is none (anymore)."""
        return self._revive(ref, "replay")

    def purge(self, ref: str) -> bool:
        """Drop it from the buffer; False where there is none (anymore)."""
        return self._revive(ref, "purge")

    def _revive(self, ref: str, action: Literal["replay", "purge"]) -> bool:
        keys = self._buffer.keys_of(UUID(hex=ref[:32]))
        reach("dead.1")
        done = self._buffer.revive(ref, action)
        reach("dead.2")
        # Whatever it did to workers before: it gets all its tries again.
        self._partitions.end_trial(keys, [ref])
        if action == "replay" and any(look.rung for look in self._partitions.look([keys.number], ring=True)):
            self._ring(keys.number)
        reach("dead.3")
        return done

    def _letter(self, dead: DeadLetter) -> Letter:
        uid, kind, item_id = split_ref(dead.ref)
        place = self._partitions.place_of(self._buffer.keys_of(UUID(hex=uid)), uid)
        why: dict[str, Any] = json.loads(dead.why)
        return Letter(
            dead.ref,
            place.owner if place else None,
            place.id if place else None,
            kind,
            item_id,
            str(why.get("reason", "")),
            why.get("sqlstate"),
            int(why.get("at_ms", 0)),
        )
