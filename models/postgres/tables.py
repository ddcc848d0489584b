"""The tables of the store, one a record class of models/core/records.py.

Laws:
- Every key leads with ``conversation_uid``, there are no foreign keys (results may arrive before their message) and no
  unique index besides the primary keys: the tables can be hash-partitioned, or distributed by Citus, as they are.
- What streams rewrites rows over and over, so no index stands on a column that such an update changes: updates of
  messages, tool results and artifacts stay HOT. ``fillfactor`` leaves them room on their page.
- JSON is ``json``, not ``jsonb``: the text comes back as it went in, key order and ``1.0`` included.
- A check may only refuse what the API never accepts: here a refusal comes after the acknowledgement.
- Names compare bytewise (COLLATE "C"): the order of keys, and so of locks, is the same in Python and in every database.

TOAST compression is left to the server (``default_toast_compression``): not every build has lz4.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON

#: Per cent of a page that inserts fill; the rest is for updates on the same page.
FILLFACTOR: Final = 85

metadata: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

_NAME: Final = Text(collation="C")
_TIME: Final = DateTime(timezone=True)
_STATUSES: Final = "'pending', 'streaming', 'complete', 'interrupted', 'error'"


def _common() -> tuple[Column[Any], ...]:
    return (
        Column("revision", BigInteger),
        Column("version", BigInteger, nullable=False),
        Column("created_at", _TIME, nullable=False),
        Column("updated_at", _TIME, nullable=False),
        Column("deleted_at", _TIME),
    )


def _item(name: str, *columns: Column[Any]) -> Table:
    """A table of items of a conversation: keyed (conversation_uid, id), ordered by position, with a status."""
    return Table(
        name,
        metadata,
        Column("conversation_uid", Uuid, nullable=False),
        Column("id", _NAME, nullable=False),
        *columns,
        Column("position", _NAME, nullable=False),
        Column("status", Text, nullable=False),
        Column("status_reason", Text),
        Column("settled_from", Text),
        *_common(),
        PrimaryKeyConstraint("conversation_uid", "id"),
        # Tombstones of items that never were need no status.
        CheckConstraint(f"deleted_at IS NOT NULL OR status IN ({_STATUSES})", name="status"),
        # Purge looks for old tombstones. Only a delete changes the column: updates stay HOT.
        Index(
            f"{name}_deleted",
            "deleted_at",
            postgresql_where=text("deleted_at IS NOT NULL"),
        ),
        postgresql_with={"fillfactor": FILLFACTOR},
    )


def _ids(name: str) -> Column[Any]:
    return Column(name, ARRAY(Text), nullable=False, server_default=text("'{}'"))


#: No unique index on (owner, id): ``conversation_uid`` is a 128-bit hash of both, so the primary key implies it, and a
#: unique index without the distribution column is what neither a hash-partitioned nor a Citus table can have.
#:
#: ``purge_horizon`` and ``emptied`` belong to purge; the upsert of whole rows leaves them alone.
conversations: Final = Table(
    "conversations",
    metadata,
    Column("conversation_uid", Uuid, nullable=False),
    Column("owner", _NAME, nullable=False),
    Column("id", _NAME, nullable=False),
    Column("title", Text),
    Column("metadata", JSON),
    Column("archived", Boolean, nullable=False, server_default=text("false")),
    Column("head_id", Text),
    Column("last_message_at", _TIME),
    *_common(),
    Column("purge_horizon", BigInteger, nullable=False, server_default=text("0")),
    Column("emptied", Boolean, nullable=False, server_default=text("false")),
    PrimaryKeyConstraint("conversation_uid"),
    postgresql_with={"fillfactor": FILLFACTOR},
)

#: When something last happened in a conversation: what the list is ordered by.
activity: Final = func.coalesce(conversations.c.last_message_at, conversations.c.created_at)

# Serves the keyset list read backwards, filter, order and cursor from one index range. It does stand on a column that
# updates change, but only on the conversation's own row and only when a message is *created*: one index tuple a message,
# while everything that streams leaves the row, or at least these columns, alone. Rejected: a table of its own for
# activity (a second row to write, lock and fence per message), sorting an owner's conversations at read time (linear in
# what heavy users have).
Index(
    "conversations_activity",
    conversations.c.owner,
    conversations.c.archived,
    activity,
    conversations.c.conversation_uid,
    postgresql_where=conversations.c.deleted_at.is_(None),
)
# Purge: deleted conversations whose items are still there. The two columns change at most once each.
Index(
    "conversations_deleted",
    conversations.c.deleted_at,
    postgresql_where=text("deleted_at IS NOT NULL AND NOT emptied"),
)

messages: Final = _item(
    "messages",
    Column("role", Text, nullable=False),
    Column("content", Text),
    Column("parts", JSON),
    Column("metadata", JSON),
    Column("parent_id", Text),
    _ids("tool_result_ids"),
    _ids("artifact_ids"),
)

tool_results: Final = _item(
    "tool_results",
    Column("message_id", Text),
    Column("tool_call_id", Text),
    Column("tool_name", Text),
    Column("state", Text),
    Column("input", JSON),
    Column("output", JSON),
    Column("error_text", Text),
)

artifacts: Final = _item(
    "artifacts",
    Column("message_id", Text),
    Column("kind", Text),
    Column("title", Text),
    Column("language", Text),
    Column("media_type", Text),
    Column("content", Text),
    Column("metadata", JSON),
    Column("head_number", BigInteger, nullable=False, server_default=text("0")),
    Column("head_hash", Text),
)

#: Immutable: rows are inserted once and never updated, pages are filled whole.
artifact_versions: Final = Table(
    "artifact_versions",
    metadata,
    Column("conversation_uid", Uuid, nullable=False),
    Column("id", _NAME, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("content", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", _TIME, nullable=False),
    PrimaryKeyConstraint("conversation_uid", "id", "number"),
)
