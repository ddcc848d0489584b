"""Reading: whole conversations in one statement, keyset lists from the index, versions, what is in flight."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import psycopg
import pytest
from sqlalchemy.engine import Engine

from models.core.records import Conversation, Record, Snapshot
from models.postgres import queries
from models.postgres.queries import Base
from models.postgres.rows import RecordKey, key_of
from models.postgres.store import Store
from models.postgres.transactions import reading, transaction
from models.postgres.upserts import upsert
from tests.postgres.examples import (
    CREATED_MS,
    artifact,
    artifact_version,
    conversation,
    message,
    new_uid,
    tool_result,
)

# Snapshots


def test_a_snapshot_holds_every_field_of_every_record(store: Store) -> None:
    common = {"revision": 3, "version": 9, "deleted_ms": CREATED_MS + 5}
    item = {"status": "interrupted", "status_reason": "stale", "settled_from": "streaming", **common}
    owner = conversation(
        title="t",
        metadata='{"a":1}',
        archived=True,
        head_id="m1",
        last_message_ms=CREATED_MS + 1,
        revision=1,
        version=9,
    )
    uid = owner.conversation_uid
    rows = Snapshot(
        conversation=owner,
        messages=(
            message(
                uid,
                role="assistant",
                content="c",
                parts="[1]",
                metadata='{"m":1}',
                parent_id="m0",
                tool_result_ids=("t1", "t2"),
                artifact_ids=("a1",),
                **item,
            ),
        ),
        tool_results=(
            tool_result(
                uid,
                message_id="m1",
                tool_call_id="call",
                tool_name="search",
                state="output-error",
                input="{}",
                output="null",
                error_text="e",
                **item,
            ),
        ),
        artifacts=(
            artifact(
                uid,
                message_id="m1",
                kind="code",
                title="t",
                language="python",
                media_type="text/x-python",
                content="print()",
                metadata='{"k":[]}',
                head_number=4,
                head_hash="ab",
                **item,
            ),
        ),
    )
    records: list[Record] = [owner, *rows.messages, *rows.tool_results, *rows.artifacts]
    # No field may be left at its default, or a column mixed up with another would go unnoticed.
    for record in records:
        unset = {name for name in record.__struct_fields__ if not getattr(record, name)}
        assert unset <= ({"deleted_ms"} if isinstance(record, Conversation) else set()), record
    store.write(records)
    assert store.snapshot(uid) == rows


def test_a_snapshot_is_one_statement(store: Store, statements: list[str]) -> None:
    assert store.snapshot(new_uid()) == Snapshot(conversation=None)
    assert len(statements) == 1


def test_items_come_in_bytewise_order_of_position(store: Store) -> None:
    uid = new_uid()
    positions = ["0001", "0002", "0002.5", "00020", "1", "A", "a", "~"]
    names = random.Random(4).sample(range(len(positions)), len(positions))
    rows = [(f"x{n}", position) for n, position in zip(names, positions, strict=True)]
    store.write(
        [
            make(uid, name, position=position)
            for name, position in rows
            for make in (message, tool_result, artifact)
        ]
    )
    snapshot = store.snapshot(uid)
    for items in (snapshot.messages, snapshot.tool_results, snapshot.artifacts):
        assert [item.position for item in items] == positions == sorted(positions)


def test_of_a_deleted_conversation_only_its_row_is_read(store: Store) -> None:
    owner = conversation(deleted_ms=CREATED_MS)
    uid = owner.conversation_uid
    store.write([owner, message(uid), tool_result(uid), artifact(uid)])
    assert store.snapshot(uid) == Snapshot(conversation=owner)


def test_conversations_do_not_see_each_other(store: Store) -> None:
    one, other = conversation(), conversation(owner="bob")
    for owner in (one, other):
        store.write([owner, message(owner.conversation_uid, content=owner.owner)])
    assert [row.content for row in store.snapshot(one.conversation_uid).messages] == ["ada"]


def test_a_snapshot_never_shows_half_of_a_transaction(store: Store, engine: Engine) -> None:
    uid = new_uid()
    with transaction(engine) as connection:
        upsert(connection, [message(uid), tool_result(uid)])
        assert store.snapshot(uid) == Snapshot(conversation=None)
        upsert(connection, [artifact(uid)])
    snapshot = store.snapshot(uid)
    assert len(snapshot.messages) == len(snapshot.tool_results) == len(snapshot.artifacts) == 1


def test_the_base_of_an_adoption_is_the_snapshot_and_the_horizon(
    store: Store, sql: psycopg.Connection
) -> None:
    owner = conversation()
    uid = owner.conversation_uid
    assert store.base(uid) == Base(Snapshot(conversation=None), 0)
    store.write([owner])
    sql.execute("UPDATE conversations SET purge_horizon = 77")
    assert store.base(uid) == Base(Snapshot(conversation=owner), 77)
    assert store.purge_horizon(uid) == 77
    assert store.purge_horizon(new_uid()) == 0


def test_the_last_version_is_the_highest_of_all_rows(store: Store, sql: psycopg.Connection) -> None:
    owner = conversation(version=3)
    uid = owner.conversation_uid
    assert store.last_version(uid) == 0
    # An item may be there before its conversation is.
    for version, row in enumerate([tool_result(uid), message(uid), artifact(uid)], start=4):
        store.write([msgspec.structs.replace(row, version=version)])
        assert store.last_version(uid) == version
    store.write([owner, message(new_uid(), version=99)])
    assert store.last_version(uid) == 6
    sql.execute("UPDATE conversations SET purge_horizon = 8")
    assert store.last_version(uid) == 8
    store.write([conversation(owner.id, version=9)])
    assert store.last_version(uid) == 9


# The list


def listed(store: Store, *, archived: bool = False, limit: int = 3, owner: str = "ada") -> list[Conversation]:
    """All pages, one after the other."""
    found: list[Conversation] = []
    after: tuple[int, UUID] | None = None
    while page := store.list_conversations(owner, archived=archived, after=after, limit=limit):
        assert len(page) <= limit
        found += page
        last = page[-1]
        after = (last.last_message_ms or last.created_ms, last.conversation_uid)
    return found


def by_activity(rows: list[Conversation]) -> list[Conversation]:
    return sorted(rows, key=lambda c: (c.last_message_ms or c.created_ms, c.conversation_uid), reverse=True)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_join_to_the_whole_list_latest_activity_first(store: Store, limit: int) -> None:
    randomly = random.Random(5)
    rows = [
        conversation(
            # Many at the same moment: the uid decides.
            last_message_ms=randomly.choice([None, CREATED_MS, CREATED_MS + 1, CREATED_MS + 2]),
            created_ms=CREATED_MS + randomly.choice([0, 2, 3]),
        )
        for _ in range(40)
    ]
    store.write(rows)
    assert listed(store, limit=limit) == by_activity(rows)


def test_the_list_leaves_out_the_deleted_the_archived_and_the_others(store: Store) -> None:
    mine, archived, deleted = conversation(), conversation(archived=True), conversation(deleted_ms=CREATED_MS)
    store.write([mine, archived, deleted, conversation(owner="bob"), conversation(owner="ada2")])
    assert listed(store) == [mine]
    assert listed(store, archived=True) == [archived]


def test_the_list_is_read_from_its_index(store: Store, sql: psycopg.Connection) -> None:
    store.write([conversation(owner=f"owner-{n % 4}", last_message_ms=CREATED_MS + n) for n in range(2000)])
    sql.execute("ANALYZE conversations")
    for statement, cursor in (
        (queries._LIST_FIRST, ()),
        (queries._LIST_AFTER, (CREATED_MS + 1000, new_uid())),
    ):
        plan = "\n".join(r[0] for r in sql.execute("EXPLAIN " + statement, ("owner-3", False, *cursor, 20)))
        assert "Index Scan Backward using conversations_activity" in plan
        assert "Sort" not in plan
        assert "Filter" not in plan


# Artifact versions


def test_artifact_versions_are_paged_by_number(store: Store) -> None:
    uid = new_uid()
    rows = [artifact_version(uid, number=n) for n in range(5)]
    store.write([*rows, artifact_version(uid, "a2"), artifact_version(new_uid())])
    assert store.artifact_versions(uid, "a1", after=None, limit=2) == rows[:2]
    assert store.artifact_versions(uid, "a1", after=1, limit=2) == rows[2:4]
    assert store.artifact_versions(uid, "a1", after=4, limit=2) == []


# In flight


def in_flight(store: Store, before: datetime, limit: int) -> list[RecordKey]:
    found: list[RecordKey] = []
    after: RecordKey | None = None
    for _ in range(200):
        page = store.in_flight(before=before, after=after, limit=limit)
        found += page.keys
        after = page.after
        if after is None:
            return found
    raise AssertionError("the walk does not end")


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
def test_the_walk_finds_every_old_open_item_once(store: Store, limit: int) -> None:
    noon = datetime(2025, 11, 22, 12, tzinfo=UTC)
    noon_ms = int(noon.timestamp() * 1000)
    wanted: list[RecordKey] = []
    for make in (message, tool_result, artifact):
        for status in ("pending", "streaming", "complete", "interrupted", "error"):
            for age_ms, deleted in ((1, False), (0, False), (5000, True), (5000, False)):
                row = make(
                    new_uid(),
                    f"x-{age_ms}",
                    status=status,
                    updated_ms=noon_ms - age_ms,
                    deleted_ms=CREATED_MS if deleted else None,
                )
                store.write([row])
                if status in {"pending", "streaming"} and age_ms and not deleted:
                    wanted.append(key_of(row))
    found = in_flight(store, noon, limit)
    assert sorted(found) == sorted(wanted)
    assert in_flight(store, noon - timedelta(days=1), limit) == []


def test_the_walk_passes_over_what_is_open_in_a_deleted_conversation(store: Store) -> None:
    living, deleted = conversation(), conversation(deleted_ms=CREATED_MS)
    for own in (living, deleted):
        uid = own.conversation_uid
        store.write([own, message(uid, status="streaming"), tool_result(uid, status="pending")])
    found = in_flight(store, datetime.now(UTC), 10)
    assert {key.conversation_uid for key in found} == {living.conversation_uid}
    assert len(found) == 2


def test_a_step_of_the_walk_examines_only_its_rows(store: Store, sql: psycopg.Connection) -> None:
    store.write([message(new_uid()) for _ in range(3000)])
    sql.execute("ANALYZE messages")
    now = datetime.now(UTC)
    for statement, parameters in (
        (queries._IN_FLIGHT_FIRST["m"], (now, 10)),
        (queries._IN_FLIGHT_AFTER["m"], (now, new_uid(), "x", 10)),
    ):
        plan = "\n".join(r[0] for r in sql.execute("EXPLAIN " + statement, parameters))
        assert "Index Scan using messages_pkey" in plan
        assert "Sort" not in plan


def test_readers_outside_a_transaction_leave_none_behind(engine: Engine) -> None:
    with reading(engine) as connection:
        queries.load_snapshot(connection, new_uid())
        driver = connection.connection.driver_connection
        assert driver is not None
        assert driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
