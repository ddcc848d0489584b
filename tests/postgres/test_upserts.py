"""Laws of the writer: never backwards, whole rows, one statement a table, no deadlocks, nothing of a rejected batch."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings as examples, strategies as st
from sqlalchemy.engine import Engine

from models.core.records import Record, Snapshot
from models.errors import RecordRejected
from models.postgres.queries import load_snapshot
from models.postgres.rows import key_of
from models.postgres.store import Store
from models.postgres.transactions import reading, transaction
from models.postgres.upserts import upsert, versions
from tests.postgres.examples import (
    CREATED_MS,
    artifact,
    artifact_version,
    conversation,
    message,
    new_uid,
    tool_result,
)


@pytest.fixture
def database_url(module_database_url: str) -> str:
    return module_database_url


def one_of_each(**given: Any) -> list[Record]:
    owner = conversation(**given)
    uid = owner.conversation_uid
    return [owner, message(uid, **given), tool_result(uid, **given), artifact(uid, **given)]


def stored(store: Store, record: Record) -> Any:
    snapshot = store.snapshot(record.conversation_uid)
    kinds = {
        "c": (snapshot.conversation,),
        "m": snapshot.messages,
        "t": snapshot.tool_results,
        "a": snapshot.artifacts,
    }
    return next((row for row in kinds[key_of(record).kind] if row is not None and row.id == record.id), None)


@pytest.mark.parametrize(("second", "wins"), [(4, False), (5, False), (6, True)])
def test_only_a_newer_version_replaces_what_is_stored(store: Store, second: int, wins: bool) -> None:
    for first in one_of_each(version=5):
        other = msgspec.structs.replace(first, version=second, updated_ms=CREATED_MS + 999, revision=7)
        assert key_of(first) in store.write([first]).written

        outcome = store.write([other])

        assert (key_of(first) in outcome.written) is wins
        assert outcome.stored == {key_of(first): max(5, second)}
        assert stored(store, first) == (other if wins else first)


@examples(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_order_of_arrival_ends_with_the_newest(store: Store, data: st.DataObject) -> None:
    uid = new_uid()
    arriving = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=12))
    batches = data.draw(st.lists(st.integers(1, 3), min_size=len(arriving), max_size=len(arriving)))
    highest = 0
    for version, items in zip(arriving, batches, strict=True):
        # The same version is always the same content.
        rows = [message(uid, f"m{n}", version=version, content=f"text of {version}") for n in range(items)]
        outcome = store.write(rows)
        highest = max(highest, version)
        assert outcome.stored[key_of(rows[0])] == highest
    final = store.snapshot(uid).messages
    assert final[0] == message(uid, "m0", version=highest, content=f"text of {highest}")
    for n, row in enumerate(final):
        assert row.version == max(v for v, items in zip(arriving, batches, strict=True) if items > n)


def test_whole_rows_are_replaced_nulls_included(store: Store) -> None:
    uid = new_uid()
    store.write([message(uid, content="x", parts="[]", metadata="{}", parent_id="p", tool_result_ids=("t",))])
    bare = message(uid, version=2)
    store.write([bare])
    assert store.snapshot(uid).messages == (bare,)


def test_artifact_versions_are_kept_as_first_written(store: Store) -> None:
    uid = new_uid()
    first = artifact_version(uid, content="first")
    assert store.write([first]).stored == {key_of(first): 0}

    outcome = store.write(
        [artifact_version(uid, content="another", version=99), artifact_version(uid, number=2)]
    )

    assert {key.number for key in outcome.written} == {2}
    assert set(outcome.stored.values()) == {0}
    assert store.artifact_versions(uid, "a1", after=None, limit=10) == [
        first,
        artifact_version(uid, number=2),
    ]


def test_one_statement_a_table_whatever_the_number_of_rows(store: Store, statements: list[str]) -> None:
    uid = new_uid()
    rows: list[Record] = [conversation()]
    for n in range(50):
        rows += [message(uid, f"m{n}"), tool_result(uid, f"t{n}"), artifact(uid, f"a{n}")]
        rows.append(artifact_version(uid, f"a{n}"))
    random.Random(1).shuffle(rows)

    store.write(rows)
    assert [statement.split()[2] for statement in statements] == [
        "artifact_versions",
        "artifacts",
        "tool_results",
        "messages",
        "conversations",
    ]

    del statements[:]
    store.write(rows)
    assert [statement.split()[0] for statement in statements] == ["INSERT"] * 5 + ["SELECT"] * 5


def test_rows_go_out_in_the_order_of_their_keys(engine: Engine, sql: psycopg.Connection) -> None:
    uids = [new_uid() for _ in range(20)]
    rows = [message(uid, name) for uid in uids for name in ("b", "A", "a.1", "_", "a-1")]
    random.Random(2).shuffle(rows)
    with transaction(engine) as connection:
        upsert(connection, rows)
    # Physical order is the order of insertion, hence of locks.
    select = "SELECT conversation_uid, id FROM messages WHERE conversation_uid = ANY(%s) ORDER BY "
    physical = sql.execute(select + "ctid", (uids,)).fetchall()
    assert physical == sorted(physical) == sql.execute(select + "1, 2", (uids,)).fetchall()
    assert len(physical) == len(rows)


def test_writers_in_opposite_orders_do_not_deadlock(new_engine: Callable[[], Engine]) -> None:
    uids = [new_uid() for _ in range(10)]
    rows = [message(uid, f"m{n}") for uid in uids for n in range(30)]
    rounds = 15
    barrier = Barrier(2)
    failures: list[BaseException] = []

    def write(backwards: bool) -> None:
        engine = new_engine()
        try:
            for number in range(rounds):
                batch = [msgspec.structs.replace(row, version=2 * number + backwards + 1) for row in rows]
                barrier.wait(10)
                with transaction(engine) as connection:
                    upsert(connection, batch[::-1] if backwards else batch)
        except Exception as error:  # noqa: BLE001 (reported below)
            failures.append(error)
            barrier.abort()

    threads = [Thread(target=write, args=(backwards,)) for backwards in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_key_twice_in_a_batch_is_refused_before_anything_is_sent(
    store: Store, statements: list[str]
) -> None:
    uid = new_uid()
    with pytest.raises(ValueError, match="twice"):
        store.write([message(uid), message(uid, version=2)])
    assert statements == []


def test_two_upserts_in_one_transaction_follow_the_fence(engine: Engine) -> None:
    uid = new_uid()
    with transaction(engine) as connection:
        upsert(connection, [message(uid, version=2)])
        assert upsert(connection, [message(uid, version=1)]) == set()
        assert upsert(connection, [message(uid, version=3)]) == {key_of(message(uid))}
    with reading(engine) as connection:
        assert load_snapshot(connection, uid).messages == (message(uid, version=3),)


def test_versions_are_read_back_for_what_exists(store: Store, engine: Engine) -> None:
    rows = [*one_of_each(version=8), artifact_version(new_uid(), number=3)]
    store.write(rows)
    absent = key_of(message(new_uid()))
    with reading(engine) as connection:
        found = versions(connection, [*(key_of(row) for row in rows), absent])
    assert found == {key_of(row): 0 if key_of(row).kind == "v" else 8 for row in rows}


def test_an_empty_write_asks_nobody(store: Store, statements: list[str]) -> None:
    assert store.write([]) == ({}, frozenset())
    assert statements == []


# Text and numbers

JSON_TEXTS = [
    '{"b":1,"a":2,"b":3}',
    '{"n":[1.0,1,1e2,-0.0,9223372036854775807,1.7976931348623157e308]}',
    '"just a string with \\"quotes\\", \\\\ and \\u00e9"',
    "null",
    "12",
    '{"text":"naïve 😀 \u200f\u05e9\u05dc\u05d5\u05dd e\u0301 \u2028 \x7f"}',
    '{ "spaced" : [ 1 , 2 ] }',
]


def test_json_comes_back_as_the_text_it_was(store: Store) -> None:
    for text in JSON_TEXTS:
        uid = new_uid()
        rows = (
            message(uid, parts=text, metadata=text),
            tool_result(uid, input=text, output=text),
            artifact(uid, metadata=text),
        )
        store.write(rows)
        assert store.snapshot(uid) == Snapshot(
            conversation=None, messages=rows[:1], tool_results=rows[1:2], artifacts=rows[2:]
        )


def test_big_and_odd_texts_come_back_unchanged(store: Store) -> None:
    uid = new_uid()
    odd = "".join(chr(n) for n in range(1, 256)) + "\\N \\. \t\r\n {} \"' NULL 😀\uffff\U0010ffff"
    rows = (
        message(
            uid, "m1", content=odd, status_reason=odd, tool_result_ids=("a,b", '"', "{}", "NULL", "\\", "")
        ),
        message(uid, "m2", content="x😀" * 2_000_000, parts='["' + "é" * 1_000_000 + '"]'),
    )
    store.write(rows)
    assert store.snapshot(uid).messages == rows


@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")))
def test_any_text_comes_back(store: Store, text: str) -> None:
    uid = new_uid()
    record = message(uid, content=text, tool_result_ids=(text, "x"))
    store.write([record])
    assert store.snapshot(uid).messages == (record,)


def test_times_are_exact_to_the_millisecond(store: Store, sql: psycopg.Connection) -> None:
    for ms in (0, 1, 999, CREATED_MS, 1_763_800_000_001, 4_102_444_799_999, 9_007_199_254_739):
        record = conversation(created_ms=ms, updated_ms=ms + 1, last_message_ms=ms + 2, deleted_ms=ms + 3)
        store.write([record])
        assert store.snapshot(record.conversation_uid).conversation == record
        row = sql.execute(
            "SELECT created_at FROM conversations WHERE conversation_uid = %s", (record.conversation_uid,)
        ).fetchone()
        assert row == (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms),)


def test_numbers_are_exact(store: Store) -> None:
    uid = new_uid()
    rows = (
        message(uid, version=2**63 - 1, revision=2**53 - 1, updated_ms=5),
        message(uid, "m2", version=1_763_800_000_123_457),
    )
    store.write(rows)
    assert store.snapshot(uid).messages == rows


# Rejection

REJECTED: list[tuple[str, dict[str, Any], str | None]] = [
    ("NUL in text", {"content": "a\0b"}, "22021"),
    ("lone surrogate", {"content": "a\ud800b"}, None),
    ("a status of no kind", {"status": "thinking"}, "23514"),
    ("broken JSON", {"parts": "[1,"}, "22P02"),
    ("NaN", {"parts": "[NaN]"}, "22P02"),
    ("a number beyond bigint", {"revision": 2**63}, None),
    ("a time beyond all", {"updated_ms": 2**60}, None),
    ("no role", {"role": None}, "23502"),
    (
        "a key too long for its index",
        {"id": "".join(random.Random(3).choices("0123456789abcdef", k=8192))},
        "54000",
    ),
    ("JSON too deep", {"parts": "[" * 100_000 + "]" * 100_000}, "54001"),
]


@pytest.mark.parametrize(
    ("given_", "sqlstate"), [case[1:] for case in REJECTED], ids=[case[0] for case in REJECTED]
)
def test_a_rejected_record_takes_its_batch_with_it_and_nobody_else(
    store: Store, engine: Engine, given_: dict[str, Any], sqlstate: str | None
) -> None:
    uid = new_uid()
    store.write([message(uid, "before")])
    secret = {"metadata": '{"secret":"hunter2"}', "parent_id": "hunter2"}
    bad = message(uid, **{"id": "bad", **secret, **given_})

    with pytest.raises(RecordRejected) as caught:
        store.write([conversation(owner=str(uid)), message(uid, "after"), bad])

    assert caught.value.sqlstate == sqlstate
    assert "hunter2" not in repr(caught.value) + str(caught.value)
    assert store.snapshot(uid).messages == (message(uid, "before"),)
    assert store.list_conversations(str(uid), archived=False, after=None, limit=10) == []
    assert store.write([message(uid, "after")]).written
    # The connection was good all along.
    assert engine.pool.checkedin() == 1  # type: ignore[attr-defined]


def test_tombstones_of_items_that_never_were_need_no_status(store: Store) -> None:
    uid = new_uid()
    record = message(uid, role="", status="", deleted_ms=CREATED_MS)
    store.write([record])
    assert store.snapshot(uid).messages == (record,)
