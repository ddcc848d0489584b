"""Rows to and from records, without a server: what the scripts would be given, and what is made of what they show."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest
from hypothesis import given

from models.buffer.codec import Row, StaleTimes, View, record, stage
from models.core.commands import utf16_units
from models.core.records import Artifact, ArtifactVersion, Conversation, Message, Record, Snapshot, ToolResult
from tests.buffer.strategies import UID, snapshots

STALE = StaleTimes(120_000, 900_000, 86_400_000)
COMMON = {"conversation_uid": UID, "position": "1", "version": 7, "created_ms": 1, "updated_ms": 1000}


def row_of(staged: object, name: str) -> Row:
    rows: dict[str, bytes] = dict(staged.rows)  # type: ignore[attr-defined]
    return msgspec.msgpack.decode(rows[name], type=Row)


def own(**fields: object) -> Conversation:
    base = {"conversation_uid": UID, "owner": "o", "id": "c", "version": 3, "created_ms": 1, "updated_ms": 1}
    return Conversation(**{**base, **fields})  # type: ignore[arg-type]


# ------------------------------------------------------------------ staging
@given(snapshots())
def test_the_header_counts_what_is_staged(snapshot: Snapshot) -> None:
    staged = stage("owner", "chat", snapshot, 5, STALE)
    items = (*snapshot.messages, *snapshot.tool_results, *snapshot.artifacts)
    assert snapshot.conversation is not None
    header = staged.header
    assert (header["n"], header["rows"], header["ph"]) == (len(items), len(staged.rows), 5)
    assert (
        header["last"]
        == header["mp"]
        == max(5, snapshot.conversation.version, *(i.version for i in items), 0)
    )
    skeletons = sum(row_of(staged, f"m/{m.id}").pb or 0 for m in snapshot.messages)
    texts = sum(len(value) for name, value in staged.bodies if "/#" not in name and "/=" not in name)
    parts = sum(row_of(staged, f"m/{m.id}").n or 0 for m in snapshot.messages)
    rows = [msgspec.msgpack.decode(row) for _, row in staged.rows]
    links = [item_id for row in rows for field in ("lr", "la") for item_id in row.get(field, ())]
    assert header["bytes"] == skeletons + texts + 256 * parts + sum(16 + len(item_id) for item_id in links)
    assert header["bytes"] == sum(row.get("b", 0) for row in rows)
    assert len({name for name, _ in staged.bodies}) == len(staged.bodies)


def test_nothing_in_postgres_is_staged_as_nothing() -> None:
    staged = stage("o", "c", Snapshot(conversation=None), 9, STALE)
    assert (staged.rows, staged.bodies, staged.open) == ([], [], [])
    assert staged.header == {
        "owner": "o",
        "id": "c",
        "n": 0,
        "bytes": 0,
        "last": 9,
        "mp": 9,
        "ph": 9,
        "rows": 0,
    }


def test_a_row_is_clean_at_the_version_postgres_has() -> None:
    message = Message(id="m1", role="user", content="a😀", status="complete", **COMMON)  # type: ignore[arg-type]
    row = row_of(stage("o", "c", Snapshot(conversation=own(), messages=(message,)), 0, STALE), "m/m1")
    assert (row.v, row.w, row.z, row.y, row.k, row.b) == (7, 7, 7, None, {"content": (3, 5)}, 5)


@pytest.mark.parametrize(
    ("status", "parts", "deadline"),
    [
        ("complete", None, None),
        ("streaming", None, 121_000),
        ("pending", "[]", 121_000),
        ("interrupted", None, None),
        ("streaming", '[{"type":"tool-x","toolCallId":"c","state":"input-available"}]', 901_000),
        ("complete", '[{"type":"tool-x","toolCallId":"c","state":"input-available"}]', 901_000),
        ("complete", '[{"type":"tool-x","toolCallId":"c","state":"approval-requested"}]', 86_401_000),
        ("complete", '[{"type":"tool-x","toolCallId":"c","state":"output-available"}]', None),
        ("complete", '[{"type":"tool-x","state":"input-available"}]', None),
        ("error", '[{"type":"tool-x","toolCallId":"c","state":"input-available"}]', None),
    ],
)
def test_what_is_in_flight_has_its_deadline(status: str, parts: str | None, deadline: int | None) -> None:
    message = Message(id="m1", role="assistant", parts=parts, status=status, **COMMON)  # type: ignore[arg-type]
    staged = stage("o", "c", Snapshot(conversation=own(), messages=(message,)), 0, STALE)
    assert row_of(staged, "m/m1").o == deadline
    assert staged.open == ([("m/m1", deadline)] if deadline else [])


@pytest.mark.parametrize(
    ("result_id", "fields", "answered"),
    [
        ("m1.c", {}, True),
        ("c", {}, True),
        ("c", {"message_id": "m1"}, True),
        ("c", {"message_id": "m0"}, False),
        ("r", {"tool_call_id": "c", "message_id": "m1"}, True),
        ("other", {"tool_call_id": "c"}, False),
        ("m1.c", {"state": "input-available"}, False),
        ("m1.c", {"status": "streaming"}, False),
        ("m1.c", {"deleted_ms": 5}, False),
    ],
)
def test_a_part_waits_for_a_final_result_of_its_call(
    result_id: str, fields: dict[str, object], answered: bool
) -> None:
    part = '[{"type":"tool-x","toolCallId":"c","state":"input-available"}]'
    message = Message(
        id="m1", role="assistant", parts=part, status="complete", tool_result_ids=("r",), **COMMON
    )  # type: ignore[arg-type]
    base = {"id": result_id, "state": "output-available", "status": "complete", **COMMON}
    result = ToolResult(**{**base, **fields})  # type: ignore[arg-type]
    snapshot = Snapshot(conversation=own(), messages=(message,), tool_results=(result,))
    assert (row_of(stage("o", "c", snapshot, 0, STALE), "m/m1").q is None) == answered


@pytest.mark.parametrize(
    ("state", "status", "settled_from", "rank"),
    [
        (None, "complete", None, None),
        ("output-available", "complete", None, None),
        ("output-available", "streaming", None, 4),
        ("output-available", "interrupted", "streaming", 4),
        ("output-available", "interrupted", None, None),
        ("approval-requested", "streaming", None, 2),
        ("input-available", "complete", None, 1),
    ],
)
def test_a_tool_results_rank_follows_from_its_row(
    state: str | None, status: str, settled_from: str | None, rank: int | None
) -> None:
    result = ToolResult(id="t1", state=state, status=status, settled_from=settled_from, **COMMON)  # type: ignore[arg-type]
    assert (
        row_of(stage("o", "c", Snapshot(conversation=own(), tool_results=(result,)), 0, STALE), "t/t1").rk
        == rank
    )


def test_links_wait_for_a_message_that_is_not_there() -> None:
    result = ToolResult(id="t1", message_id="m1", status="complete", **COMMON)  # type: ignore[arg-type]
    artifact = Artifact(id="a1", message_id="m1", status="complete", **COMMON)  # type: ignore[arg-type]
    staged = stage(
        "o", "c", Snapshot(conversation=own(), tool_results=(result,), artifacts=(artifact,)), 0, STALE
    )
    waiting = row_of(staged, "l/m1")
    assert (waiting.lr, waiting.la, waiting.v) == (["t1"], ["a1"], 0)


def test_of_a_deleted_conversation_only_the_tombstone_is_staged() -> None:
    message = Message(id="m1", role="user", content="x", status="streaming", **COMMON)  # type: ignore[arg-type]
    staged = stage("o", "c", Snapshot(conversation=own(deleted_ms=4), messages=(message,)), 0, STALE)
    assert [name for name, _ in staged.rows] == ["c/"]
    assert (staged.bodies, staged.open, staged.header["last"]) == ([], [], 7)


# ------------------------------------------------------------------ records
def test_a_row_without_bodies_gives_a_record_without_large_fields() -> None:
    view = View("m/m1", Row(st="complete", v=5, p="1", c=2, k={"content": (1, 1)}, n=1))
    kept = record(UID, "o", "c", view)
    assert isinstance(kept, Message)
    assert (kept.content, kept.parts, kept.role, kept.updated_ms) == (None, None, "assistant", 2)


def test_a_version_row_names_its_artifact_and_number() -> None:
    view = View("v/a.1/12", Row(v=5, hh="ff", c=2), {"content": "x"}, False)
    expected: Record = ArtifactVersion(
        conversation_uid=UUID(int=1), id="a.1", number=12, content="x", hash="ff", version=5, created_ms=2
    )
    assert record(UID, "o", "c", view) == expected


def test_units_in_a_staged_part_are_those_of_its_text() -> None:
    parts = '[{"type":"text","text":"a😀"},{"type":"file"}]'
    message = Message(id="m1", role="user", parts=parts, status="complete", **COMMON)  # type: ignore[arg-type]
    bodies = dict(stage("o", "c", Snapshot(conversation=own(), messages=(message,)), 0, STALE).bodies)
    assert msgspec.msgpack.decode(bodies["m/m1/#0"])[:3] == [
        '{"type":"text","text":""}',
        utf16_units("a😀"),
        5,
    ]
    assert msgspec.msgpack.decode(bodies["m/m1/#1"])[:3] == ['{"type":"file"}', -1, 0]
    assert bodies["m/m1/=0"] == "a😀".encode()
    assert "m/m1/=1" not in bodies
