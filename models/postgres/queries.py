"""What is read from the store: whole conversations, an owner's list, artifact versions, what is in flight.

Each is one statement, hence one snapshot and one round trip on a connection without a transaction (`reading`).
JSON comes back as the text that was stored, times as integer milliseconds.
"""

# Statements are composed of names in this package; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy.engine import Connection

from models.core.records import Artifact, ArtifactVersion, Conversation, Kind, Message, Snapshot, ToolResult
from models.postgres.errors import translated
from models.postgres.rows import SHAPES, RecordKey, Shape, reading, record_of

_LIST_FIELDS: Final = reading(SHAPES["c"])
_ACTIVITY: Final = "coalesce(last_message_at, created_at)"
_CURSOR: Final = "timestamptz 'epoch' + %s::bigint * interval '1 millisecond'"
_LIST: Final = (
    f"SELECT {_LIST_FIELDS} FROM conversations"
    f" WHERE owner = %s AND archived = %s AND deleted_at IS NULL {{}}"
    f" ORDER BY {_ACTIVITY} DESC, conversation_uid DESC LIMIT %s"
)
_LIST_FIRST: Final = _LIST.format("")
_LIST_AFTER: Final = _LIST.format(f"AND ({_ACTIVITY}, conversation_uid) < ({_CURSOR}, %s::uuid)")
_ARTIFACT_VERSIONS: Final = (
    f"SELECT {reading(SHAPES['v'])} FROM artifact_versions"
    " WHERE conversation_uid = %s AND id = %s AND number > %s ORDER BY number LIMIT %s"
)


_LAST_VERSION: Final = (
    "SELECT greatest((SELECT greatest(version, purge_horizon) FROM conversations WHERE conversation_uid = %s)"
    + "".join(
        f", (SELECT max(version) FROM {SHAPES[kind].table} WHERE conversation_uid = %s)"
        for kind in ("m", "t", "a")
    )
    + ")"
)
_ROW_VERSIONS: Final = (
    "SELECT 'c/', version, purge_horizon, deleted_at IS NOT NULL FROM conversations WHERE conversation_uid = %s"
    + "".join(
        f" UNION ALL SELECT '{kind}/' || id, version, 0, false FROM {SHAPES[kind].table} WHERE conversation_uid = %s"
        for kind in ("m", "t", "a")
    )
)


class Base(NamedTuple):
    """A conversation as stored, and the version up to which its tombstones were purged (0: never)."""

    snapshot: Snapshot
    purge_horizon: int


class RowVersions(NamedTuple):
    """``stored``: name (K/I) -> version; tombstones up to ``horizon`` were purged, and where ``deleted`` all items may be."""

    stored: dict[str, int]
    horizon: int
    deleted: bool


class InFlightPage(NamedTuple):
    """``keys``: the open items among the rows examined; ``after``: where to go on, None at the end of the last table."""

    keys: tuple[RecordKey, ...]
    after: RecordKey | None


def load_snapshot(connection: Connection, uid: UUID) -> Snapshot:
    """All rows of a conversation, tombstones included, items in order of position; of a deleted one its row only."""
    return load_base(connection, uid).snapshot


def purge_horizon(connection: Connection, uid: UUID) -> int:
    """The highest version among the tombstones purged from a conversation; a ``since`` below it missed them. 0: none."""
    with translated():
        statement = "SELECT purge_horizon FROM conversations WHERE conversation_uid = %s"
        return connection.exec_driver_sql(statement, (uid,)).scalar() or 0


def last_version(connection: Connection, uid: UUID) -> int:
    """The highest version stored of a conversation and its items, purged tombstones included; 0 where there is none.

    For asking whether anything changed: reads no text.
    """
    with translated():
        return connection.exec_driver_sql(_LAST_VERSION, (uid,) * _LAST_VERSION.count("%s")).scalar() or 0


def row_versions(connection: Connection, uid: UUID) -> RowVersions:
    """What is stored of a conversation, without any text."""
    with translated():
        rows = connection.exec_driver_sql(
            _ROW_VERSIONS, (uid,) * _ROW_VERSIONS.count("conversation_uid = %s")
        ).fetchall()
    horizon = max((row[2] for row in rows), default=0)
    return RowVersions({row[0]: row[1] for row in rows}, horizon, any(row[3] for row in rows))


def load_base(connection: Connection, uid: UUID) -> Base:
    """`load_snapshot` and `purge_horizon` in one.

    One UNION ALL over four tables, their columns laid side by side by type: one statement is one snapshot without a
    transaction around it. Against four statements pipelined in a REPEATABLE READ transaction, records included, on
    loopback: 2 messages of 2 KB 0.15 ms to 0.37 ms, 20 0.3 to 0.5, 200 2.2 to 2.5, 2,000 equal (27 ms).
    Order is made here: Postgres would sort rows with all their text.
    """
    with translated():
        rows = connection.exec_driver_sql(_SNAPSHOT, (uid,) * _SNAPSHOT.count("%s")).fetchall()
    conversation: Conversation | None = None
    horizon = 0
    items: dict[Kind, list[Any]] = {"m": [], "t": [], "a": []}
    for row in rows:
        shape, pick = _LAYOUTS[row[0]]
        record = record_of(shape, (uid, *pick(row)))
        if shape.kind == "c":
            conversation = record
            horizon = row[_HORIZON_SLOT]
        else:
            items[shape.kind].append(record)
    for records in items.values():
        records.sort(key=_by_position)
    snapshot = Snapshot(
        conversation=conversation,
        messages=tuple(items["m"]),
        tool_results=tuple(items["t"]),
        artifacts=tuple(items["a"]),
    )
    return Base(snapshot, horizon)


def list_conversations(
    connection: Connection,
    owner: str,
    *,
    archived: bool,
    after: tuple[int, UUID] | None,
    limit: int,
) -> list[Conversation]:
    """``owner``'s conversations, latest activity first, at most ``limit``; deleted ones are left out.

    Activity is the last message's creation, or the conversation's own where there is none. ``after``: activity (ms) and
    uid of the last one of the page before.
    """
    statement, cursor = (_LIST_FIRST, ()) if after is None else (_LIST_AFTER, after)
    with translated():
        rows = connection.exec_driver_sql(statement, (owner, archived, *cursor, limit)).fetchall()
    return [record_of(SHAPES["c"], row) for row in rows]


def artifact_versions(
    connection: Connection, uid: UUID, artifact_id: str, *, after: int | None, limit: int
) -> list[ArtifactVersion]:
    """Versions of an artifact with a number above ``after``, in order, at most ``limit``."""
    with translated():
        parameters = (uid, artifact_id, -1 if after is None else after, limit)
        rows = connection.exec_driver_sql(_ARTIFACT_VERSIONS, parameters).fetchall()
    return [record_of(SHAPES["v"], row) for row in rows]


def in_flight(
    connection: Connection, *, before: datetime, after: RecordKey | None, limit: int
) -> InFlightPage:
    """Open (pending or streaming) items of living conversations, last updated before ``before``, found by walking the
    primary keys.

    Examines at most ``limit`` rows a call, so that each call is short whatever the size of the tables: call again with
    ``after`` until it is None. There is no index for it, because the status is what streaming changes; once a day, at
    a gentle rate, is enough (the sweep finds what is hot by itself).
    """
    kind: Kind = "m" if after is None else after.kind
    keys: list[RecordKey] = []
    with translated():
        if after is None or not after.id:
            parameters: tuple[object, ...] = (before, limit)
            statement = _IN_FLIGHT_FIRST[kind]
        else:
            parameters = (before, after.conversation_uid, after.id, limit)
            statement = _IN_FLIGHT_AFTER[kind]
        rows = connection.exec_driver_sql(statement, parameters).fetchall()
    for uid, item_id, is_open in rows:
        if is_open:
            keys.append(RecordKey(kind, uid, item_id))
    if len(rows) == limit:
        return InFlightPage(tuple(keys), RecordKey(kind, rows[-1][0], rows[-1][1]))
    following = _IN_FLIGHT_ORDER.get(kind)
    return InFlightPage(tuple(keys), RecordKey(following, UUID(int=0), "") if following else None)


_IN_FLIGHT: Final = (
    "SELECT conversation_uid, id, status IN ('pending', 'streaming') AND deleted_at IS NULL AND updated_at < %s"
    # Those of a deleted conversation lie as they were until it is purged.
    " AND NOT EXISTS (SELECT FROM conversations AS own"
    " WHERE own.conversation_uid = item.conversation_uid AND own.deleted_at IS NOT NULL)"
    " FROM {} AS item {} ORDER BY conversation_uid, id LIMIT %s"
)
#: The tables walked, each with its successor.
_IN_FLIGHT_ORDER: Final[Mapping[Kind, Kind | None]] = {"m": "t", "t": "a", "a": None}
_IN_FLIGHT_FIRST: Final = {kind: _IN_FLIGHT.format(SHAPES[kind].table, "") for kind in _IN_FLIGHT_ORDER}
_IN_FLIGHT_AFTER: Final = {
    kind: _IN_FLIGHT.format(SHAPES[kind].table, "WHERE (conversation_uid, id) > (%s, %s)")
    for kind in _IN_FLIGHT_ORDER
}


def _by_position(item: Message | ToolResult | Artifact) -> tuple[str, str]:
    return item.position, item.id


class _Layout(NamedTuple):
    """How to take the fields of a shape, all but the first (the uid), out of a row of the snapshot's statement."""

    shape: Shape
    pick: Callable[[Sequence[Any]], tuple[Any, ...]]


def _lay_out() -> tuple[str, dict[str, _Layout], int]:
    """The snapshot's statement, the layout of each kind, the slot of the purge horizon.

    Column 0 is the kind's letter; then come as many columns of each carrier type as any of the tables needs.
    """
    carriers = ("text", "bigint", "boolean", "text[]")
    #: kind -> carrier -> field name -> expression, in order.
    columns: dict[Kind, dict[str, dict[str, str]]] = {}
    for kind in _SNAPSHOT_KINDS:
        columns[kind] = {carrier: {} for carrier in carriers}
        for field in SHAPES[kind].fields[1:]:
            columns[kind][field.carrier][field.name] = field.reading
    columns["c"]["bigint"]["purge_horizon"] = "purge_horizon"
    blank: list[str] = ["''"]
    starts: dict[str, int] = {}
    for carrier in carriers:
        starts[carrier] = len(blank)
        blank += [f"NULL::{carrier}"] * max(len(of_kind[carrier]) for of_kind in columns.values())

    def slot(kind: Kind, carrier: str, name: str) -> int:
        return starts[carrier] + list(columns[kind][carrier]).index(name)

    selects = []
    layouts: dict[str, _Layout] = {}
    for kind in _SNAPSHOT_KINDS:
        shape = SHAPES[kind]
        row = [f"'{kind}'::text", *blank[1:]]
        for carrier, expressions in columns[kind].items():
            for name, expression in expressions.items():
                row[slot(kind, carrier, name)] = expression
        alive = "" if kind == "c" else _NOT_IF_DELETED
        selects.append(f"SELECT {', '.join(row)} FROM {shape.table} WHERE conversation_uid = %s{alive}")
        slots = [slot(kind, field.carrier, field.name) for field in shape.fields[1:]]
        layouts[kind] = _Layout(shape, itemgetter(*slots))
    return " UNION ALL ".join(selects), layouts, slot("c", "bigint", "purge_horizon")


_SNAPSHOT_KINDS: Final[tuple[Kind, ...]] = ("c", "m", "t", "a")
_NOT_IF_DELETED: Final = (
    " AND NOT EXISTS (SELECT FROM conversations WHERE conversation_uid = %s AND deleted_at IS NOT NULL)"
)
_SNAPSHOT, _LAYOUTS, _HORIZON_SLOT = _lay_out()
