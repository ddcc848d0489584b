"""Updates that stream rewrite the heap, not the indexes: they are HOT, as Postgres itself counts."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy.engine import Engine

from models.core.records import Record
from models.postgres.store import Store
from models.postgres.transactions import reading
from tests.postgres.examples import CREATED_MS, artifact, conversation, message, new_uid, tool_result


def updates(engine: Engine, table: str) -> tuple[int, int]:
    """All updates and the HOT ones. The pool hands out the connection that wrote, which first tells its counts."""
    with reading(engine) as connection:
        connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
        connection.exec_driver_sql("SELECT 1")
        row = connection.exec_driver_sql(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = %s", (table,)
        ).one()
    return row[0], row[1]


@pytest.mark.parametrize("make", [message, tool_result, artifact])
def test_a_reply_that_streams_updates_hot(store: Store, engine: Engine, make) -> None:
    uid = new_uid()
    table = {message: "messages", tool_result: "tool_results", artifact: "artifacts"}[make]
    for version in range(1, 101):
        status = "streaming" if version < 100 else "complete"
        store.write(
            [make(uid, version=version, revision=version, status=status, status_reason="x" * version)]
        )
    total, hot = updates(engine, table)
    assert total == 99
    assert hot >= 95


def test_a_conversation_row_updates_hot_unless_a_message_was_created(store: Store, engine: Engine) -> None:
    for version in range(1, 51):
        store.write([conversation("hot", version=version, title=f"title {version}")])
    total, hot = updates(engine, "conversations")
    assert (total, hot >= 47) == (49, True)

    for version in range(51, 61):
        store.write([conversation("hot", version=version, last_message_ms=CREATED_MS + version)])
    assert updates(engine, "conversations")[0] == 59
    assert updates(engine, "conversations")[1] == hot


def test_fenced_out_rows_are_not_written(store: Store, engine: Engine) -> None:
    rows: list[Record] = [message(new_uid()) for _ in range(20)]
    store.write(rows)
    store.write(rows)
    assert updates(engine, "messages") == (0, 0)


def test_every_index_stands_on_columns_that_streaming_leaves_alone(sql: psycopg.Connection) -> None:
    rows = sql.execute(
        "SELECT tablename, substring(indexdef FROM 'btree (.*)') FROM pg_indexes"
        " WHERE schemaname = 'public' AND indexdef NOT LIKE '%UNIQUE%'"
    ).fetchall()
    activity = "(owner, archived, COALESCE(last_message_at, created_at), conversation_uid)"
    assert set(rows) == {
        ("artifacts", "(deleted_at) WHERE (deleted_at IS NOT NULL)"),
        ("messages", "(deleted_at) WHERE (deleted_at IS NOT NULL)"),
        ("tool_results", "(deleted_at) WHERE (deleted_at IS NOT NULL)"),
        ("conversations", "(deleted_at) WHERE ((deleted_at IS NOT NULL) AND (NOT emptied))"),
        ("conversations", f"{activity} WHERE (deleted_at IS NULL)"),
    }
