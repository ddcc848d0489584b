"""Purge: old tombstones go, children first, in bounded steps; what lives or was deleted lately stays."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy.engine import Engine

from models.core.records import Record, Snapshot
from models.postgres.purge import purge
from models.postgres.store import Store
from models.postgres.transactions import transaction
from tests.postgres.examples import CREATED_MS, artifact, artifact_version, conversation, message, tool_result

RETENTION_ENDS = datetime.fromtimestamp((CREATED_MS + 1000) / 1000, UTC)
OLD = CREATED_MS + 999
RECENT = CREATED_MS + 1000
TABLES = ("conversations", "messages", "tool_results", "artifacts", "artifact_versions")


def count(sql: psycopg.Connection) -> dict[str, int]:
    rows = {table: sql.execute(f"SELECT count(*) FROM {table}").fetchone() for table in TABLES}
    return {table: row[0] if row else 0 for table, row in rows.items()}


def purge_all(store: Store, limit: int) -> int:
    total = 0
    for _ in range(200):
        touched = store.purge(RETENTION_ENDS, limit)
        if not touched:
            return total
        total += touched
    raise AssertionError("purge does not end")


def full(deleted_ms: int | None, *, items_deleted_ms: int | None = None) -> list[Record]:
    owner = conversation(version=100, title="secret", metadata='{"s":1}', deleted_ms=deleted_ms)
    uid = owner.conversation_uid
    rows: list[Record] = [owner]
    for n in range(3):
        rows += [
            make(uid, f"x{n}", version=n + 1, deleted_ms=items_deleted_ms)
            for make in (message, tool_result, artifact)
        ]
        rows += [artifact_version(uid, f"x{n}", number) for number in (1, 2)]
    return rows


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_an_old_deleted_conversation_is_emptied_and_its_tombstone_kept(
    store: Store, sql: psycopg.Connection, limit: int
) -> None:
    rows = full(OLD)
    store.write(rows)

    assert purge_all(store, limit) == len(rows)

    assert count(sql) == {
        "conversations": 1,
        "messages": 0,
        "tool_results": 0,
        "artifacts": 0,
        "artifact_versions": 0,
    }
    owner = rows[0]
    left = store.base(owner.conversation_uid)
    assert left.snapshot.conversation is not None
    assert left.snapshot.conversation.version == 100
    assert left.snapshot.conversation.deleted_ms == OLD
    assert left.snapshot.conversation.title is None
    assert left.snapshot.conversation.metadata is None
    assert left.purge_horizon == 100


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_old_tombstones_in_a_living_conversation_go_and_raise_its_horizon(
    store: Store, sql: psycopg.Connection, limit: int
) -> None:
    rows = full(None, items_deleted_ms=OLD)
    uid = rows[0].conversation_uid
    store.write(
        [*rows, message(uid, "alive", version=50), message(uid, "recent", version=51, deleted_ms=RECENT)]
    )

    assert purge_all(store, limit) == len(rows) - 1

    base = store.base(uid)
    assert [row.id for row in base.snapshot.messages] == ["alive", "recent"]
    assert base.snapshot.artifacts == base.snapshot.tool_results == ()
    assert base.snapshot.conversation == rows[0]
    assert base.purge_horizon == 3
    assert count(sql)["artifact_versions"] == 0


def test_what_lives_or_was_deleted_lately_stays(store: Store, sql: psycopg.Connection) -> None:
    store.write([*full(None), *full(RECENT, items_deleted_ms=RECENT)])
    before = count(sql)
    assert purge_all(store, 1000) == 0
    assert count(sql) == before


def test_a_horizon_never_falls(store: Store) -> None:
    owner = conversation()
    uid = owner.conversation_uid
    store.write([owner, message(uid, version=9, deleted_ms=OLD)])
    purge_all(store, 10)
    store.write([message(uid, "m2", version=4, deleted_ms=OLD)])
    purge_all(store, 10)
    assert store.purge_horizon(uid) == 9


def test_the_upsert_of_the_conversation_leaves_the_horizon_alone(store: Store) -> None:
    owner = conversation(version=5)
    store.write([owner, message(owner.conversation_uid, version=3, deleted_ms=OLD)])
    purge_all(store, 10)
    store.write([conversation(owner.id, version=6, title="new")])
    assert store.purge_horizon(owner.conversation_uid) == 3


def test_a_purged_conversation_is_not_looked_at_again(store: Store, statements: list[str]) -> None:
    store.write(full(OLD))
    purge_all(store, 1000)
    del statements[:]
    assert store.purge(RETENTION_ENDS, 1000) == 0
    # Its list of candidates, then the four tables of items.
    assert len(statements) == 5


def test_rows_that_somebody_holds_wait_for_the_next_time(store: Store, sql: psycopg.Connection) -> None:
    rows = full(OLD)
    store.write(rows)
    with sql.transaction():
        sql.execute("SELECT FROM messages WHERE id = 'x1' FOR UPDATE")
        assert purge_all(store, 1000) == len(rows) - 2
        assert store.snapshot(rows[0].conversation_uid).conversation == rows[0]
    assert purge_all(store, 1000) == 2
    assert count(sql)["messages"] == 0


def test_a_call_stays_near_its_limit(store: Store, engine: Engine) -> None:
    for _ in range(5):
        store.write(full(OLD))
    with transaction(engine) as connection:
        assert 0 < purge(connection, RETENTION_ENDS, 3) <= 4 * 3 + 3


def test_a_late_save_still_meets_the_tombstone(store: Store) -> None:
    owner = conversation("late", version=100, deleted_ms=OLD)
    store.write([owner])
    purge_all(store, 10)
    assert store.write([conversation("late", version=50, title="back")]).written == frozenset()
    snapshot = store.snapshot(owner.conversation_uid)
    assert snapshot == Snapshot(conversation=owner)
