"""How records become rows and rows become records: derived from the record classes and the tables, once, at import.

A field ``x_ms`` (integer milliseconds) is the column ``x_at`` (timestamptz). JSON fields travel as text in both directions,
so that not a byte changes. Everything else keeps its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, DateTime, Table, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from models.core.records import (
    Artifact,
    ArtifactVersion,
    Conversation,
    Kind,
    Message,
    Record,
    ToolResult,
)
from models.postgres import tables
from models.postgres.arrays import Array, array

RecordClass: TypeAlias = (
    type[Conversation] | type[Message] | type[ToolResult] | type[Artifact] | type[ArtifactVersion]
)


class RecordKey(NamedTuple):
    """Which row. ``id`` is the item's, empty for the conversation's own row, as in the buffer; ``number`` is an artifact
    version's, 0 for all others. Of one kind, they sort as the store's keys do.
    """

    kind: Kind
    conversation_uid: UUID
    id: str
    number: int = 0


class Field(NamedTuple):
    """One column.

    ``name`` is the record's field, ``type`` the column's (as `arrays` knows it), ``carrier`` the type in which it is read,
    ``reading`` the SQL that reads it.
    """

    name: str
    column: str
    type: str
    carrier: str
    reading: str


class Shape(NamedTuple):
    """One table with its record class.

    ``key`` are the primary key's columns; ``names`` and ``lists`` the names of all fields and of those that are lists.
    """

    kind: Kind
    table: str
    record: RecordClass
    key: tuple[str, ...]
    fields: tuple[Field, ...]
    names: tuple[str, ...]
    lists: tuple[str, ...]


def _field(table: Table, name: str) -> Field:
    column = f"{name.removesuffix('_ms')}_at" if name.endswith("_ms") else name
    type_ = next((sql for class_, sql in _TYPES.items() if isinstance(table.c[column].type, class_)), "text")
    if type_ == "json":
        return Field(name, column, type_, "text", f"{column}::text")
    if type_ == "timestamptz":
        return Field(name, column, type_, "bigint", f"(extract(epoch from {column}) * 1000)::bigint")
    return Field(name, column, type_, type_, column)


_TYPES: Final[Mapping[type[Any], str]] = {
    JSON: "json",
    DateTime: "timestamptz",
    Uuid: "uuid",
    BigInteger: "bigint",
    Boolean: "boolean",
    ARRAY: "text[]",
}


def _shape(kind: Kind, table: Table, record: RecordClass) -> Shape:
    fields = tuple(_field(table, name) for name in record.__struct_fields__)
    key = tuple(column.name for column in table.primary_key)
    lists = tuple(field.name for field in fields if field.carrier == "text[]")
    return Shape(kind, table.name, record, key, fields, record.__struct_fields__, lists)


#: Items before their conversation, versions before their artifact: the order in which every writer takes its locks.
SHAPES: Final[Mapping[Kind, Shape]] = {
    shape.kind: shape
    for shape in (
        _shape("v", tables.artifact_versions, ArtifactVersion),
        _shape("a", tables.artifacts, Artifact),
        _shape("t", tables.tool_results, ToolResult),
        _shape("m", tables.messages, Message),
        _shape("c", tables.conversations, Conversation),
    )
}
_KINDS: Final[Mapping[type[Record], Kind]] = {shape.record: shape.kind for shape in SHAPES.values()}


def key_of(record: Record) -> RecordKey:
    """The key of a record."""
    if isinstance(record, Conversation):
        return RecordKey("c", record.conversation_uid, "")
    number = record.number if isinstance(record, ArtifactVersion) else 0
    return RecordKey(_KINDS[type(record)], record.conversation_uid, record.id, number)


def key_of_row(kind: Kind, row: Sequence[Any]) -> RecordKey:
    """The key of a row that holds the columns of the table's primary key."""
    if kind == "c":
        return RecordKey("c", row[0], "")
    return RecordKey(kind, row[0], row[1], row[2] if kind == "v" else 0)


def reading(shape: Shape) -> str:
    """The select list that `record_of` takes."""
    return ", ".join(field.reading for field in shape.fields)


def record_of(shape: Shape, row: Sequence[Any]) -> Any:
    """The record that a row selected by `reading` holds."""
    values = dict(zip(shape.names, row, strict=True))
    for name in shape.lists:
        values[name] = tuple(values[name])
    return shape.record(**values)


def arrays_of(shape: Shape, records: Sequence[Record]) -> tuple[Array, ...]:
    """The records' columns, one array for each of the shape's fields. Raises as `arrays.array`."""
    columns = zip(*map(attrgetter(*shape.names), records), strict=True)
    return tuple(array(field.type, values) for field, values in zip(shape.fields, columns, strict=True))
