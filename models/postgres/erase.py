"""Removing all that an owner has, for good: no tombstone stays. What asks for it is models/pipeline/erase.py.

Unlike purge, it takes living rows. Nothing remembers the versions that were handed out: whoever saves under the same id
again begins a new conversation. Items go before their conversation, so that a run that broke off finds the rest again.
"""

# Statements are composed of names in this package; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.engine import Connection

from models.postgres.errors import translated
from models.postgres.rows import SHAPES

#: In the order in which every writer takes its locks: items before their conversation.
TABLES: Final = tuple(str(shape.table) for shape in SHAPES.values())


def owned(connection: Connection, owner: str) -> list[UUID]:
    """The uids of an owner's conversations, deleted ones included (which no index serves: one walk of the table)."""
    with translated():
        rows = connection.exec_driver_sql(
            "SELECT conversation_uid FROM conversations WHERE owner = %s ORDER BY conversation_uid", (owner,)
        ).fetchall()
    return [row[0] for row in rows]


def count(connection: Connection, uids: Sequence[UUID]) -> dict[str, int]:
    """Table -> rows that belong to these conversations, in one snapshot."""
    counts = ", ".join(f"(SELECT count(*) FROM {table} WHERE conversation_uid = ANY(%s))" for table in TABLES)
    with translated():
        row = connection.exec_driver_sql(f"SELECT {counts}", (list(uids),) * len(TABLES)).fetchone()
    assert row is not None
    return dict(zip(TABLES, row, strict=True))


def erase(connection: Connection, uids: Sequence[UUID]) -> int:
    """Remove, in the caller's transaction, every row of these conversations; how many. Raises StoreUnavailable."""
    gone = 0
    with translated():
        for table in TABLES:
            statement = f"DELETE FROM {table} WHERE conversation_uid = ANY(%s)"
            gone += connection.exec_driver_sql(statement, (sorted(uids),)).rowcount
    return gone
