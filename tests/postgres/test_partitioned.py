"""Tables hash-partitioned by conversation_uid: the same tables, and every statement finds its partition by that column.

`make nightly` runs the tests of the store and the pipeline on such tables as well (tests/cluster/test_partitioned_suite.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from models.core import commands as c
from models.pipeline.erase import Eraser
from models.postgres.arrays import Array
from models.postgres.migrate import check
from models.postgres.rows import RecordKey
from tests.flow.crews import CrewRig
from tests.flow.rig import rig
from tests.postgres.partitioned import partition

TABLES = ("artifact_versions", "artifacts", "conversations", "messages", "tool_results")
PARTITIONS = 8
UUID_OID = 2950

#: The only statements that concern no conversation known beforehand, and so ask all partitions.
FAN_OUT = {
    "an owner's list": r"SELECT .* FROM conversations WHERE owner = %s AND archived",
    "the walk over what is in flight": r"SELECT .* FROM \w+ AS item .*ORDER BY conversation_uid, id LIMIT",
    "purge: deleted conversations": r"SELECT conversation_uid FROM conversations WHERE deleted_at IS NOT NULL AND NOT emptied",
    "purge: deleted items": r"DELETE FROM \w+ WHERE .*deleted_at < %s",
    "erase: whose": r"SELECT conversation_uid FROM conversations WHERE owner = %s ORDER BY",
    "is it there": r"SELECT FROM conversations LIMIT 0",
    "the schema's version": r"SELECT version_num FROM alembic_version|.*pg_catalog",
}


def columns(connection: psycopg.Connection) -> Any:
    return connection.execute(
        "SELECT table_name, column_name, column_default, is_nullable, data_type, collation_name"
        " FROM information_schema.columns WHERE table_name = ANY(%s) ORDER BY 1, ordinal_position",
        (list(TABLES),),
    ).fetchall()


def indexes(connection: psycopg.Connection) -> Any:
    found = connection.execute(
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s) ORDER BY 1, 2",
        (list(TABLES),),
    ).fetchall()
    return [(table, name, definition.replace(" ON ONLY ", " ON ")) for table, name, definition in found]


def test_the_tables_are_the_same_but_for_their_partitions(database_url: str, buffer_url: str) -> None:
    with rig(buffer_url, database_url) as made, psycopg.connect(database_url, autocommit=True) as sql:
        for number in range(20):
            made.say(f"c{number}", "m1", "stored before")
            made.flush(f"c{number}")
        before = columns(sql), indexes(sql)
        partition(database_url, PARTITIONS)
        assert (columns(sql), indexes(sql)) == before
        assert check(database_url) is None
        spread = sql.execute("SELECT count(DISTINCT tableoid), count(*) FROM messages").fetchone()
        assert spread is not None
        assert (spread[0] > 4, spread[1]) == (True, 20)
        options = sql.execute("SELECT reloptions FROM pg_class WHERE relname = 'messages_p0'").fetchone()
        assert options == (["fillfactor=85"],)
        for number in range(20):
            made.evict(f"c{number}")
            assert made.texts(f"c{number}") == [("m1", "stored before")]
        with pytest.raises(psycopg.errors.RaiseException, match="partitioned already"):
            partition(database_url, PARTITIONS)


def test_every_unique_key_holds_the_column(database_url: str) -> None:
    """Postgres refuses the contrary for a partitioned table; Citus as well."""
    with psycopg.connect(database_url) as sql:
        found = sql.execute(
            "SELECT i.indexrelid::regclass::text, array_agg(a.attname::text) FROM pg_index i"
            " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)"
            " WHERE i.indisunique AND i.indrelid::regclass::text = ANY(%s) GROUP BY 1",
            (list(TABLES),),
        ).fetchall()
    assert len(found) == len(TABLES)
    for name, held in found:
        assert "conversation_uid" in held, name


@pytest.fixture
def asked() -> Iterator[dict[str, Any]]:
    """Statement -> parameters, of all that is asked of any engine."""
    found: dict[str, Any] = {}

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        found.setdefault(statement, parameters)

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


def test_every_statement_finds_its_partition_by_the_column(
    database_url: str, buffer_url: str, asked: dict[str, Any]
) -> None:
    partition(database_url, PARTITIONS)
    with rig(buffer_url, database_url, BLOTTER_RETENTION_DAYS="0") as plain:
        made = CrewRig(plain.pipeline, database_url, plain.rung)
        fill(made, database_url)
        live(made)
    fanned: set[str] = set()
    with psycopg.connect(database_url) as sql:
        for statement, parameters in asked.items():
            reasons = [why for why, pattern in FAN_OUT.items() if re.match(pattern, statement, re.DOTALL)]
            if reasons:
                fanned.update(reasons)
                continue
            uids = set(uids_in(parameters))
            assert uids, f"names no conversation: {statement}"
            touched = partitions_touched(sql, statement, parameters)
            for table, numbers in touched.items():
                assert len(numbers) <= len(uids), (
                    f"{len(numbers)} partitions of {table} for {len(uids)}: {statement}"
                )
    assert fanned == set(FAN_OUT) - {"the schema's version"} or fanned == set(FAN_OUT)
    assert len(asked) > 25


def fill(made: CrewRig, database_url: str) -> None:
    """Rows of other conversations: with a handful of them, reading all would be the best plan."""
    made.save("seed", c.put("m", "m1", {"role": "user", "content": "x"}), owner="bob")
    made.save("seed", c.put("t", "t1", {"message_id": "m1"}), c.put("a", "a1", {"content": "x"}), owner="bob")
    made.flush("seed", owner="bob")
    with psycopg.connect(database_url, autocommit=True) as sql:
        for table in TABLES:
            rest = sql.execute(
                "SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns"
                " WHERE table_name = %s AND column_name <> 'conversation_uid'",
                (table,),
            ).fetchone()
            assert rest is not None
            sql.execute(
                f"INSERT INTO {table} (conversation_uid, {rest[0]})"  # type: ignore[arg-type]
                f" SELECT md5(n::text)::uuid, {rest[0]} FROM (SELECT * FROM {table} LIMIT 1), generate_series(1, 8000) AS n"
            )
            sql.execute(f"ANALYZE {table}")  # type: ignore[arg-type]


def live(made: CrewRig) -> None:
    """All that the pipeline asks Postgres in the life of one conversation; each statement gets one or few uids."""
    made.say("c", "m1", "hello")
    made.save("c", c.put("t", "t1", {"message_id": "m1", "output": {"a": 1}}))
    made.save("c", c.put("a", "a1", {"message_id": "m1", "title": "t", "content": "one"}))
    made.save("c", c.put("m", "m2", {"role": "assistant", "content": "x"}, status="streaming"))
    made.flush_once("c")
    made.flush("c")
    store = made.pipeline.store
    records = [item.record for item in made.pipeline.read("ann", "c").messages]
    store.write(records)  # fenced out: read back
    made.save("c", c.put("a", "a1", {"content": "two"}))
    made.flush("c")
    later = datetime.now(UTC) + timedelta(days=1)
    store.in_flight(before=later, after=None, limit=10)
    store.in_flight(before=later, after=RecordKey("m", made.place("c").uid, "m1"), limit=10)
    made.crew.verifier.verify()
    made.pipeline.artifact_versions("ann", "c", "a1", after=None, limit=10)
    made.save("c", c.put("m", "m2", {}, status="complete"))
    made.flush("c")
    made.evict("c")
    made.pipeline.read("ann", "c", since=1)
    made.pipeline.conversations("ann", archived=False, after=None, limit=1)
    store.list_conversations("ann", archived=False, after=(1, UUID(int=1)), limit=1)
    store.purge_horizon(made.place("c").uid)
    store.last_version(made.place("c").uid)
    store.ping()
    for kind, name in (("m", "m1"), ("t", "t1"), ("a", "a1")):
        made.save("c", c.Delete(kind, name))
    made.flush("c")
    while store.purge(later, 100):
        pass
    made.save("c", c.Delete("c", ""))
    made.flush("c")
    while store.purge(later, 100):
        pass
    Eraser(made.buffer, store, made.rung.append).erase("ann", within_s=10)


def uids_in(parameters: Any) -> Iterator[UUID]:
    for value in parameters.values() if isinstance(parameters, dict) else parameters:
        if isinstance(value, UUID):
            yield value
        elif isinstance(value, Array):
            # As it goes over the wire: the type of its elements at 8, from 20 on each with its length before it.
            if int.from_bytes(value.data[8:12]) == UUID_OID:
                yield from (UUID(bytes=value.data[at + 4 : at + 20]) for at in range(20, len(value.data), 20))
        elif isinstance(value, (list, tuple)):
            yield from (one for one in value if isinstance(one, UUID))


def partitions_touched(sql: psycopg.Connection, statement: str, parameters: Any) -> dict[str, set[str]]:
    """Table -> its partitions that running the statement really reads or changes; nothing is kept of it."""
    try:
        row = sql.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).fetchone()  # type: ignore[arg-type]
    finally:
        sql.rollback()
    assert row is not None
    found: dict[str, set[str]] = {}

    def walk(node: dict[str, Any]) -> None:
        name = re.fullmatch(r"(\w+)_p(\d+)", node.get("Relation Name", ""))
        if name is not None and node["Actual Loops"] > 0 and node["Node Type"] != "ModifyTable":
            found.setdefault(name[1], set()).add(name[2])
        for child in node.get("Plans", ()):
            walk(child)

    walk((row[0] if isinstance(row[0], list) else json.loads(row[0]))[0]["Plan"])
    return found
