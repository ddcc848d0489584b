"""The only writer of records: whole rows, in bulk, sorted, fenced by version.

    INSERT … SELECT … FROM (SELECT unnest($1), unnest($2), …) ON CONFLICT (key) DO UPDATE SET …
    WHERE stored.version < excluded.version

Laws:
- Older never replaces newer: the fence stands in the statement, so a stalled worker that wakes up is harmless.
- Rows are written in the order of their keys, tables in the order of `rows.SHAPES`: two writers queue, they never
  deadlock. (Unnesting keeps the order of the arrays, so sorting in Python is enough.)
- One statement a table and call, whatever the number of rows.
- The same key twice would be SQLSTATE 21000 for the whole batch; it is refused before.

Why not COPY: CPU time of a batch in ms, client's and server's together, with the commit. PostgreSQL 18.6 on loopback, fsync
on, two cores that others used too (so times on the wall vary, these by a tenth), Python 3.11; messages of 2 KB of prose,
and of tool calls whose JSON holds JSON (tests/postgres/bench_upserts.py, `python -m tests.postgres.bench_upserts`):

                                                   prose                tool calls
    rows a call                               1    256    500       1    256    500
    Store.write: this                       1.0   14.9   28.5     1.1   22.3   42.6
    one JSON parameter, json_to_recordset   0.6   14.6   28.6     0.7   29.1   62.3
    COPY to a temp table, INSERT … SELECT   1.2   24.0   46.7     1.4   43.9   82.2
    executemany in a pipeline               0.8   21.9   47.5     0.8   31.4   58.7
    plain COPY, unlogged, no fence or key   0.4    9.7   19.7     0.5   18.6   34.4

    (The others are bare psycopg: SQLAlchemy's pool and transaction cost Store.write 0.3 ms a call.)

One path for all sizes, and no temporary tables: no state in the session, nothing to break behind a pooler, no truncation at
each commit (0.7 ms), one round trip a table instead of two. JSON escapes JSON twice over, which tool calls are full of.
"""

# Statements are composed of names in this package; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy.engine import Connection

from models.core.records import Kind, Record
from models.postgres.errors import translated
from models.postgres.rows import SHAPES, RecordKey, Shape, arrays_of, key_of, key_of_row


def upsert(connection: Connection, records: Sequence[Record]) -> set[RecordKey]:
    """Write ``records`` in the caller's transaction; return the keys of those that were written.

    A key that is missing was fenced out: an equal or newer version is stored (an artifact version: it exists).

    Raises ValueError when a key comes twice; StoreUnavailable, RecordRejected, SchemaError: then the transaction is
    lost, all of it.
    """
    return upsert_keyed(connection, keyed(records))


def keyed(records: Sequence[Record]) -> dict[RecordKey, Record]:
    """The records by their keys. Raises ValueError when a key comes twice."""
    batch = {key_of(record): record for record in records}
    if len(batch) < len(records):
        raise ValueError("the same key twice in one batch")
    return batch


def upsert_keyed(connection: Connection, batch: Mapping[RecordKey, Record]) -> set[RecordKey]:
    """`upsert` for one who has the keys already."""
    kinds: dict[Kind, list[RecordKey]] = {}
    for key in batch:
        kinds.setdefault(key.kind, []).append(key)
    written: set[RecordKey] = set()
    with translated():
        for kind, statement in _UPSERTS.items():
            keys = kinds.get(kind)
            if keys is None:
                continue
            keys.sort(key=_order)
            result = connection.exec_driver_sql(
                statement, arrays_of(SHAPES[kind], [batch[key] for key in keys])
            )
            if result.rowcount == len(keys):
                # The usual case: no need to look which.
                written.update(keys)
            else:
                written.update(key_of_row(kind, row) for row in result.fetchall())
    return written


def _order(key: RecordKey) -> tuple[int, str, int]:
    """As the primary keys sort; comparing UUIDs themselves is ten times slower."""
    return (key.conversation_uid.int, key.id, key.number)


def versions(connection: Connection, keys: Iterable[RecordKey]) -> dict[RecordKey, int]:
    """The stored version of each of ``keys`` that exists; 0 for artifact versions, of which existing is all there is.

    In the transaction of an upsert this sees what fenced the row out: the conflict waited for its commit.
    """
    batches: dict[Kind, list[RecordKey]] = {}
    for key in keys:
        batches.setdefault(key.kind, []).append(key)
    found: dict[RecordKey, int] = {}
    with translated():
        for kind, statement in _VERSIONS.items():
            if kind in batches:
                batch = batches[kind]
                width = len(SHAPES[kind].key)
                columns = zip(*(_stored_key(key)[:width] for key in batch), strict=True)
                rows = connection.exec_driver_sql(
                    statement, tuple(list(column) for column in columns)
                ).fetchall()
                for row in rows:
                    found[key_of_row(kind, row)] = 0 if kind == "v" else row[-1]
    return found


def _stored_key(key: RecordKey) -> tuple[object, ...]:
    return (key.conversation_uid, key.id, key.number)


def _upsert_of(shape: Shape) -> str:
    columns = ", ".join(field.column for field in shape.fields)
    # Lists travel as literals in an array of texts.
    types = {field.column: "text" if field.type == "text[]" else field.type for field in shape.fields}
    unnested = ", ".join(f"unnest(%b::{type_}[]) AS {column}" for column, type_ in types.items())
    values = ", ".join(
        f"given.{field.column}" + ("::text[]" if field.type == "text[]" else "") for field in shape.fields
    )
    key = ", ".join(shape.key)
    if shape.kind == "v":
        resolution = "NOTHING"
    else:
        others = (field.column for field in shape.fields if field.column not in shape.key)
        changes = ", ".join(f"{column} = excluded.{column}" for column in others)
        resolution = f"UPDATE SET {changes} WHERE stored.version < excluded.version"
    returned = ", ".join(f"stored.{column}" for column in shape.key)
    return (
        f"INSERT INTO {shape.table} AS stored ({columns}) SELECT {values}"
        f" FROM (SELECT {unnested}) AS given"
        f" ON CONFLICT ({key}) DO {resolution} RETURNING {returned}"
    )


def _versions_of(shape: Shape) -> str:
    types = {field.column: field.type for field in shape.fields}
    arrays = ", ".join(f"%s::{types[column]}[]" for column in shape.key)
    key = ", ".join(shape.key)
    return f"SELECT {key}, version FROM {shape.table} WHERE ({key}) IN (SELECT * FROM unnest({arrays}))"


_UPSERTS: Final[Mapping[Kind, str]] = {kind: _upsert_of(shape) for kind, shape in SHAPES.items()}
_VERSIONS: Final[Mapping[Kind, str]] = {kind: _versions_of(shape) for kind, shape in SHAPES.items()}
