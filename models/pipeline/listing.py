"""An owner's conversations, latest activity first: Postgres' pages with the buffer laid over them.

The owner's index in the buffer holds every conversation whose own row is dirty, so one created a moment ago is in the
list. It is read before Postgres: what is committed between the two is seen at least once. Laid over: a row that the
buffer holds newer wins, in order, in the archive and in being gone.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from models.buffer import codec
from models.buffer.buffer import Buffer
from models.core.records import Conversation
from models.errors import StoreUnavailable
from models.pipeline.views import ConversationPage, Item
from models.postgres.store import Store


class _Key(NamedTuple):
    """What the list is ordered by, descending."""

    activity_ms: int
    uid: UUID


def _key(record: Conversation) -> _Key:
    return _Key(
        record.last_message_ms if record.last_message_ms is not None else record.created_ms,
        record.conversation_uid,
    )


class Lister:
    """Pages of an owner's conversations. Thread-safe."""

    def __init__(self, buffer: Buffer, store: Store) -> None:
        self._buffer = buffer
        self._store = store

    def page(self, owner: str, *, archived: bool, after: str | None, limit: int) -> ConversationPage:
        """At most ``limit`` conversations after the cursor ``after``. Raises ValueError for a cursor that is none."""
        cursor = _parse(after)
        listed = self._buffer.listed(owner)
        found = self._overlay(owner, dict.fromkeys(listed))
        stale = [(uid, listed[uid]) for uid, item in found.items() if item is None or item.stored]
        if stale:
            self._buffer.unlist(owner, stale)
        candidates = {uid: item for uid, item in found.items() if item is not None}
        at, exhausted, degraded = cursor, False, False
        while not exhausted and not degraded:
            try:
                rows = self._store.list_conversations(owner, archived=archived, after=at, limit=limit + 1)
            except StoreUnavailable:
                degraded = True
                break
            exhausted = len(rows) <= limit
            fresh = {row.conversation_uid: row for row in rows if row.conversation_uid not in candidates}
            laid_over = self._overlay(owner, dict(fresh))
            candidates.update({uid: item for uid, item in laid_over.items() if item is not None})
            if rows:
                at = _key(rows[-1])
            if len(self._shown(candidates, archived, cursor, at if not exhausted else None)) > limit:
                break
        shown = self._shown(candidates, archived, cursor, at if not exhausted and not degraded else None)
        page = shown[:limit]
        more = len(shown) > limit or not (exhausted or degraded)
        last = _key(page[-1].record) if page and more else None
        return ConversationPage(
            conversations=tuple(page), after=f"{last[0]}-{last[1].hex}" if last else None, degraded=degraded
        )

    @staticmethod
    def _shown(
        candidates: dict[UUID, Item[Conversation]], archived: bool, cursor: _Key | None, floor: _Key | None
    ) -> list[Item[Conversation]]:
        """What belongs on the page; below ``floor`` Postgres was not read yet, so nothing there may be shown."""
        chosen = [
            item
            for item in candidates.values()
            if item.record.deleted_ms is None
            and item.record.archived == archived
            and (cursor is None or _key(item.record) < cursor)
            and (floor is None or _key(item.record) >= floor)
        ]
        return sorted(chosen, key=lambda item: _key(item.record), reverse=True)

    def _overlay(
        self, owner: str, rows: dict[UUID, Conversation | None]
    ) -> dict[UUID, Item[Conversation] | None]:
        """Each conversation as the buffer has it, else as Postgres does; None where neither does."""
        out: dict[UUID, Item[Conversation] | None] = {}
        buffered = self._buffer.conversation_rows(list(rows))
        for uid, stored in rows.items():
            hot = buffered.get(uid)
            if hot is not None and (stored is None or hot.view.row.v > stored.version):
                record = codec.record(uid, owner, hot.id, hot.view)
                assert isinstance(record, Conversation)
                out[uid] = Item(record, stored=(hot.view.row.z or 0) >= hot.view.row.v)
            else:
                out[uid] = Item(stored, stored=True) if stored is not None else None
        return out


def _parse(after: str | None) -> _Key | None:
    if after is None:
        return None
    activity, _, uid = after.partition("-")
    return _Key(int(activity), UUID(hex=uid))
