"""The only writer of records: whole rows, in bulk, sorted, fenced by version.

    INSERT … SELECT … FROM json_to_recordset($1) ON CONFLICT (key) DO UPDATE SET … WHERE stored.version < excluded.version

Laws:
- Older never replaces newer: the fence stands in the statement, so a stalled worker that wakes up is harmless.
- Rows are written in the order of their keys, tables in the order of `rows.SHAPES`: two writers queue, they never
  deadlock. (A function scan yields rows in the order of the array, so sorting in Python is enough.)
- One statement a table and call, whatever the number of rows.
- The same key twice would be SQLSTATE 21000 for the whole batch; it is refused before.

Why JSON and not COPY: measured on two cores, Python 3.11, PostgreSQL 18.6 on loopback, fsync on, messages of 2 KB, a
transaction each, variants taking turns, the faster quartile (tests/postgres/bench_upserts.py):

    rows a call                                  1        10        50       256       500
    this                                    0.6 ms    1.1 ms    3.6 ms     14 ms     22 ms   22,700 rows/s
    COPY to a temp table, INSERT … SELECT   1.5 ms    2.3 ms    5.1 ms     17 ms     32 ms   15,800 rows/s
    unnest of arrays in binary form         0.7 ms    1.3 ms    3.5 ms     13 ms     22 ms   22,800 rows/s
    executemany in a pipeline               0.8 ms    2.0 ms    4.3 ms     15 ms     27 ms   18,300 rows/s
    plain COPY, unlogged table, no fence    0.5 ms    0.9 ms    3.0 ms     12 ms     23 ms   21,300 rows/s

So there is one path for all sizes. It also needs no temporary tables: no state in the session, nothing to break behind a
pooler, no truncation at each commit (0.7 ms), and one round trip a table instead of two. Binary unnest is as fast but
four times the code.
"""

# Statements are composed of names in this package; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy.engine import Connection

from models.core.records import Kind, Record
from models.postgres.errors import translated
from models.postgres.rows import SHAPES, RecordKey, Shape, encode, key_of, key_of_row


def upsert(connection: Connection, records: Sequence[Record]) -> set[RecordKey]:
    """Write ``records`` in the caller's transaction; return the keys of those that were written.

    A key that is missing was fenced out: an equal or newer version is stored (an artifact version: it exists).

    Raises ValueError when a key comes twice; StoreUnavailable, RecordRejected, SchemaError: then the transaction is
    lost, all of it.
    """
    batches: dict[Kind, dict[RecordKey, Record]] = {}
    for record in records:
        key = key_of(record)
        batch = batches.setdefault(key.kind, {})
        if key in batch:
            raise ValueError(f"the same key twice in one batch: kind {key.kind}")
        batch[key] = record
    written: set[RecordKey] = set()
    with translated():
        for kind, statement in _UPSERTS.items():
            if kind in batches:
                batch = batches[kind]
                text = encode([batch[key] for key in sorted(batch)])
                rows = connection.exec_driver_sql(statement, (text,)).fetchall()
                written.update(key_of_row(kind, row) for row in rows)
    return written


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
    values = ", ".join(field.writing.format(f"given.{field.name}") for field in shape.fields)
    carriers = ", ".join(f"{field.name} {field.carrier}" for field in shape.fields)
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
        f" FROM json_to_recordset(%s::json) AS given ({carriers})"
        f" ON CONFLICT ({key}) DO {resolution} RETURNING {returned}"
    )


def _versions_of(shape: Shape) -> str:
    carriers = {field.column: field.carrier for field in shape.fields}
    arrays = ", ".join(f"%s::{carriers[column]}[]" for column in shape.key)
    key = ", ".join(shape.key)
    return f"SELECT {key}, version FROM {shape.table} WHERE ({key}) IN (SELECT * FROM unnest({arrays}))"


_UPSERTS: Final[Mapping[Kind, str]] = {kind: _upsert_of(shape) for kind, shape in SHAPES.items()}
_VERSIONS: Final[Mapping[Kind, str]] = {kind: _versions_of(shape) for kind, shape in SHAPES.items()}
