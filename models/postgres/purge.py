"""Removing what was deleted long ago: tombstones past retention, and everything in deleted conversations.

Laws:
- Children first: artifact versions before their artifact, items before their conversation is marked as empty.
- A conversation's own tombstone stays for ever, without title and metadata: its version must never be reached again, and
  a late save must still meet it.
- Readers by ``since`` learn that tombstones are gone: ``purge_horizon`` is the highest version among those removed.
- Rows are locked in the order of their keys, items before conversations, as the upsert does.
- Bounded: at most about ``limit`` rows a call. What another transaction holds is skipped and comes up next time.
"""

# Statements are composed of names in this package; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection

from models.core.records import Kind
from models.postgres.errors import translated
from models.postgres.rows import SHAPES

_DELETED_CONVERSATIONS: Final = (
    "SELECT conversation_uid FROM conversations WHERE deleted_at IS NOT NULL AND NOT emptied AND deleted_at < %s"
    " ORDER BY deleted_at LIMIT %s"
)
_EMPTY: Final = (
    "UPDATE conversations AS stored"
    " SET title = NULL, metadata = NULL, emptied = true, purge_horizon = greatest(purge_horizon, version)"
    " WHERE conversation_uid IN (SELECT conversation_uid FROM conversations"
    " WHERE conversation_uid = ANY(%s) AND deleted_at IS NOT NULL ORDER BY conversation_uid FOR UPDATE)"
    + "".join(
        f" AND NOT EXISTS (SELECT FROM {SHAPES[kind].table} AS item"
        " WHERE item.conversation_uid = stored.conversation_uid)"
        for kind in ("v", "a", "t", "m")
    )
)
#: The second condition keeps artifacts whose versions are more than one call may remove.
_CHILDLESS: Final = (
    " AND NOT EXISTS (SELECT FROM artifact_versions AS child"
    " WHERE child.conversation_uid = item.conversation_uid AND child.id = item.id)"
)
_RAISE_HORIZON: Final = (
    "UPDATE conversations AS stored SET purge_horizon = greatest(stored.purge_horizon, purged.version)"
    " FROM (SELECT locked.conversation_uid, given.version FROM conversations AS locked"
    " JOIN unnest(%s::uuid[], %s::bigint[]) AS given (conversation_uid, version) USING (conversation_uid)"
    " ORDER BY locked.conversation_uid FOR UPDATE OF locked) AS purged"
    " WHERE stored.conversation_uid = purged.conversation_uid"
)


def _delete(kind: Kind, condition: str) -> str:
    shape = SHAPES[kind]
    key = ", ".join(shape.key)
    return (
        f"DELETE FROM {shape.table} WHERE ({key}) IN (SELECT {key} FROM {shape.table} AS item WHERE {condition}"
        f" ORDER BY {key} LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING conversation_uid, version"
    )


_OF_CONVERSATION: Final = {
    kind: _delete(kind, "conversation_uid = ANY(%s)" + (_CHILDLESS if kind == "a" else ""))
    for kind in ("v", "a", "t", "m")
}


def purge(connection: Connection, before: datetime, limit: int) -> int:
    """Remove, in the caller's transaction, what was deleted before ``before``; return the number of rows touched.

    0: nothing is left. Call again otherwise. Raises StoreUnavailable, SchemaError.
    """
    with translated():
        touched = _purge_conversations(connection, before, limit)
        if touched < limit:
            touched += _purge_items(connection, before, limit - touched)
    return touched


def _purge_conversations(connection: Connection, before: datetime, limit: int) -> int:
    rows = connection.exec_driver_sql(_DELETED_CONVERSATIONS, (before, limit)).fetchall()
    uids: list[UUID] = [row[0] for row in rows]
    if not uids:
        return 0
    touched = 0
    for statement in _OF_CONVERSATION.values():
        touched += len(connection.exec_driver_sql(statement, (uids, limit)).fetchall())
    return touched + connection.exec_driver_sql(_EMPTY, (uids,)).rowcount


def _purge_items(connection: Connection, before: datetime, limit: int) -> int:
    """Tombstones of items in conversations that live on."""
    removed: list[tuple[UUID, int]] = []
    touched = len(connection.exec_driver_sql(_ITEM_VERSIONS, (before, limit)).fetchall())
    for statement in _ITEMS.values():
        removed += [
            (row[0], row[1]) for row in connection.exec_driver_sql(statement, (before, limit)).fetchall()
        ]
    highest: dict[UUID, int] = {}
    for uid, version in removed:
        highest[uid] = max(version, highest.get(uid, 0))
    if highest:
        uids = sorted(highest)
        connection.exec_driver_sql(_RAISE_HORIZON, (uids, [highest[uid] for uid in uids]))
    return touched + len(removed)


_OLD: Final = "deleted_at IS NOT NULL AND deleted_at < %s"
_ITEM_VERSIONS: Final = _delete(
    "v", f"(conversation_uid, id) IN (SELECT conversation_uid, id FROM artifacts WHERE {_OLD})"
)
_ITEMS: Final = {kind: _delete(kind, _OLD + (_CHILDLESS if kind == "a" else "")) for kind in ("a", "t", "m")}
