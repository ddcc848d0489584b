"""Strays: replies in flight that only Postgres has. Nobody would ever settle them.

There are such rows when the buffer was lost after a flush of a streaming reply, or a conversation was evicted from it by
hand. So after each change of the buffer epoch, and once a day, the tables are walked by primary key, one page a tick of
the sweep; what is found open is adopted, which puts it where the sweep settles it in its time. However young: in flight
and not in the buffer is a stray by definition (nothing in flight is evicted), and the walk will not come by again today.

The walk's state (epoch it was made for, cursor, end) lies in the buffer: any sweeper goes on where another stopped, two at
once do harmless work twice. Adopting is bounded too; where the buffer has no room, the cursor stays.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final, cast
from uuid import UUID

from models.buffer.buffer import Buffer
from models.buffer.partitions import Partitions
from models.core.records import Kind
from models.core.schedule import DAY_MS
from models.errors import BufferFull, Contention
from models.pipeline.adopt import Adopter
from models.postgres.rows import RecordKey
from models.postgres.store import Store

log = logging.getLogger("blotter.strays")

#: Rows of one page: a few milliseconds for Postgres.
PAGE_ROWS: Final = 2_000
#: Conversations adopted for one page.
PAGE_CONVERSATIONS: Final = 32


class Strays:
    """The walk of one buffer's Postgres."""

    def __init__(self, buffer: Buffer, partitions: Partitions, store: Store, adopter: Adopter) -> None:
        self._buffer = buffer
        self._partitions = partitions
        self._store = store
        self._adopter = adopter

    def step(self, epoch: str, now_ms: int, *, page_rows: int = PAGE_ROWS) -> int:
        """One page, if a walk is due; how many conversations were adopted.

        Raises StoreUnavailable, BufferUnavailable, SchemaError; the walk goes on from where it was.
        """
        chores = self._partitions.chores()
        after: RecordKey | None = None
        if chores.get("scan_epoch") == epoch:
            if chores.get("scan_after"):
                after = _key_of(chores["scan_after"])
            elif 0 <= now_ms - int(chores.get("scan_done_ms", "0")) < DAY_MS:
                return 0
        before = datetime.fromtimestamp((now_ms + DAY_MS) / 1000, UTC)
        page = self._store.in_flight(before=before, after=after, limit=page_rows)
        adopted, last = self._adopt(page.keys)
        following = page.after if last is None else last
        done_ms = now_ms if following is None else 0
        cursor = "" if following is None else _text_of(following)
        try:
            self._partitions.note_chore(scan_epoch=epoch, scan_after=cursor, scan_done_ms=done_ms)
        except BufferFull:
            log.warning("no room in the buffer to note how far the walk has come; it repeats a page")
        return adopted

    def _adopt(self, keys: tuple[RecordKey, ...]) -> tuple[int, RecordKey | None]:
        """Adopt the conversations of ``keys``; how many, and the key to go on after if not all."""
        seen: set[UUID] = set()
        adopted = 0
        previous: RecordKey | None = None
        for key in keys:
            if key.conversation_uid not in seen:
                if adopted >= PAGE_CONVERSATIONS and previous is not None:
                    return adopted, previous
                seen.add(key.conversation_uid)
                try:
                    adopted += self._adopt_one(key.conversation_uid)
                except (BufferFull, Contention) as error:
                    log.warning("a conversation in flight waits: %s", error)
                    if previous is not None:
                        return adopted, previous
            previous = key
        return adopted, None

    def _adopt_one(self, uid: UUID) -> bool:
        keys = self._buffer.keys_of(uid)
        place = self._partitions.place_of(keys, uid.hex)
        if place is None:
            conversation = self._store.snapshot(uid).conversation
            if conversation is None or conversation.deleted_ms is not None:
                return False
            place = self._buffer.place(conversation.owner, conversation.id)
        elif not self._partitions.is_suspect(keys, uid.hex):
            # Hot: what is in flight there is in the open index already. Blind: the flush adopts it.
            return False
        # In a buffer that was set back, a hot conversation may lack what is in flight in Postgres.
        self._adopter.adopt(place)
        return True


def _text_of(key: RecordKey) -> str:
    return f"{key.kind}/{key.conversation_uid.hex}/{key.id}"


def _key_of(text: str) -> RecordKey:
    kind, uid, item_id = text.split("/", 2)
    return RecordKey(cast("Kind", kind), UUID(hex=uid), item_id)
