"""Columns of a batch as Postgres arrays in binary form: how rows travel to the upsert.

One array a column, unnested side by side by the server. Binary, because then nothing is escaped or parsed on the way: a
JSON text goes over as its bytes, is validated once and stored. psycopg's own dumper of lists costs several times as much.

Layout (src/backend/utils/adt/arrayfuncs.c, array_recv), big endian: dimensions, has nulls, element type's OID, length,
lower bound; then each element as its length (-1: null) and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

from models.errors import RecordRejected

#: Microseconds from 1970 to 2000, where Postgres' timestamps begin.
_EPOCH_US: Final = 946_684_800_000_000

_length: Final = struct.Struct(">i").pack
_bigint: Final = struct.Struct(">iq").pack
_head: Final = struct.Struct(">iiIii").pack
_NULL: Final = _length(-1)
_TRUE: Final = _length(1) + b"\1"
_FALSE: Final = _length(1) + b"\0"
_UUID: Final = _length(16)


class Array:
    """A parameter: the array's bytes. Its type is named in the statement (``%b::bigint[]``)."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Array) -> Buffer | None:
        return obj.data


psycopg.adapters.register_dumper(Array, _ArrayDumper)


def array(type_: str, values: Sequence[Any]) -> Array:
    """``values`` as an array of ``type_``; None is null.

    ``json`` takes its text, ``timestamptz`` milliseconds since 1970, ``text[]`` tuples of texts, each as a literal: arrays
    of arrays would have to be rectangular.

    Raises UnicodeEncodeError where a text holds a lone surrogate, RecordRejected where a number is beyond 64 bits.
    """
    oid, encode = _ENCODERS[type_]
    count = len(values)
    # UUIDs compare in Python, slowly, and lead every key: none is null.
    nulls = 0 if type_ == "uuid" else values.count(None)
    head = _head(1, nulls > 0, oid, count, 1)
    if nulls and nulls == count:
        return Array(head + _NULL * count)
    try:
        return Array(head + b"".join(encode(values)))
    except struct.error:
        raise RecordRejected(None, "a number is beyond 64 bits") from None


def _texts(values: Sequence[str | None]) -> list[bytes]:
    pieces = []
    for value in values:
        if value is None:
            pieces.append(_NULL)
        else:
            encoded = value.encode()
            pieces += (_length(len(encoded)), encoded)
    return pieces


def _lists(values: Sequence[Sequence[str]]) -> list[bytes]:
    return _texts([_literal(value) for value in values])


def _literal(items: Sequence[str]) -> str:
    if not items:
        return "{}"
    return (
        "{" + ",".join(['"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items]) + "}"
    )


def _bigints(values: Sequence[int | None]) -> list[bytes]:
    return [_NULL if value is None else _bigint(8, value) for value in values]


def _times(values: Sequence[int | None]) -> list[bytes]:
    return [_NULL if value is None else _bigint(8, value * 1000 - _EPOCH_US) for value in values]


def _booleans(values: Sequence[bool]) -> list[bytes]:
    return [_TRUE if value else _FALSE for value in values]


def _uuids(values: Sequence[UUID]) -> list[bytes]:
    return [_UUID + value.bytes for value in values]


#: Type -> (OID of an element, encoder). OIDs of built-in types never change.
_ENCODERS: Final[Mapping[str, tuple[int, Callable[[Sequence[Any]], list[bytes]]]]] = {
    "text": (25, _texts),
    "json": (114, _texts),
    "text[]": (25, _lists),
    "bigint": (20, _bigints),
    "timestamptz": (1184, _times),
    "boolean": (16, _booleans),
    "uuid": (2950, _uuids),
}
