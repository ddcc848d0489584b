"""Tombstones: deletion is explicit, keeps nothing, and is final."""

from __future__ import annotations

from typing import Any

import pytest

from models.core.commands import Delete
from tests.buffer.chat import Chat, append, put, set_part

LATE = [
    put("m", "m1", content="late", rev=9),
    put("m", "m1", st="streaming"),
    put("m", "m1"),
    append("m1", 0, "late"),
    append("m1", 0, ""),
    set_part("m1", 0, {"type": "step-start"}, rev=9),
]


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("existed", [True, False])
def test_a_late_save_does_not_revive_what_was_deleted(chat: Chat, late: Any, existed: bool) -> None:
    chat.put("m", "m0", role="user")
    if existed:
        chat.put("m", "m1", st="streaming", content="text", parts=[{"type": "text", "text": "x"}])
        chat.append("m1", 4, " more")
    assert chat.delete("m", "m1").outcome == "accepted"
    before = chat.message("m1")
    assert before.deleted_ms is not None
    out = chat.save(late)
    assert (out.outcome, out.version) == ("gone", before.version)
    assert chat.message("m1") == before


def test_a_tombstone_holds_no_text(chat: Chat) -> None:
    chat.put(
        "m",
        "m1",
        role="user",
        st="streaming",
        content="secret",
        metadata={"s": 1},
        status_reason="secret",
        parent_id="m0",
    )
    chat.put("a", "a1", title="secret", kind="secret", language="s", content="secret", message_id="m1")
    chat.put(
        "t",
        "t1",
        tool_name="secret",
        input="secret",
        output="secret",
        error_text="secret",
        state="output-error",
    )
    for _ in range(20):
        chat.append("m1", 6, "")
    for kind, item_id in (("m", "m1"), ("a", "a1"), ("t", "t1")):
        chat.delete(kind, item_id)  # type: ignore[arg-type]
        view = chat.views()[f"{kind}/{item_id}"]
        assert (view.bodies, view.parts) == (False, False)
        assert "secret" not in str(view)
    kept = chat.message("m1")
    assert (kept.role, kept.parent_id) == ("user", "m0")
    # Its link is all that is left: "a1" and what a link counts beside.
    assert (chat.header().get("bytes", 0), chat.header()["n"]) == (18, 3)


def test_deleting_twice_is_a_duplicate(chat: Chat) -> None:
    first = chat.delete("m", "m1")
    again = chat.delete("m", "m1")
    assert (first.outcome, again.outcome, again.version) == ("accepted", "duplicate", first.version)


def test_a_tombstone_reaches_the_store_like_any_row(chat: Chat) -> None:
    chat.put("m", "m1", role="user", content="x")
    chat.flush()
    chat.delete("m", "m1")
    assert chat.flush() == (1, 0)
    assert chat.store.rows["m/m1"].deleted_ms is not None  # type: ignore[union-attr]
    assert chat.evict() == 1
    assert chat.save(put("m", "m1", content="late")).outcome == "gone"


def test_deleting_a_conversation_drops_everything_but_its_tombstone(chat: Chat) -> None:
    chat.put("c", "", title="t", metadata={"m": 1})
    chat.put("m", "m1", st="streaming", content="a", parts=[{"type": "text", "text": "x"}])
    chat.append("m1", 1, "b")
    chat.put("a", "a1", content="v1", message_id="m9")
    chat.put("t", "t1", state="input-available")
    chat.put("m", "m2", content="poison")
    ref = f"{chat.place.hex}/m/m2"
    assert chat.buffer.bury(ref, chat.message("m2").version, "{}")
    out = chat.delete("c")
    assert out.outcome == "accepted"
    rows = chat.check()
    assert set(rows) == {"h", "c/"}
    header = chat.header()
    assert [header.get(name, 0) for name in ("n", "bytes", "dirty", "dead", "open")] == [0, 0, 1, 0, 0]
    own = chat.record_of("c/")
    assert (own.title, own.metadata, own.deleted_ms is not None) == (None, None, True)
    assert not chat.buffer.client.exists(chat.bodies_key)


def test_a_buried_conversation_row_can_be_deleted(chat: Chat) -> None:
    chat.put("c", "", title="poison")
    assert chat.buffer.bury(f"{chat.place.hex}/c/", chat.record_of("c/").version, "{}")
    chat.check()
    assert chat.delete("c").outcome == "accepted"
    assert chat.flush() == (1, 0)


def test_after_a_conversation_is_deleted_every_save_answers_gone(chat: Chat) -> None:
    chat.put("m", "m1", role="user")
    deleted = chat.delete("c")
    for command in (*LATE, put("m", "new"), put("c", "", title="x"), Delete("m", "m1"), append("m1", 0, "x")):
        reply = chat.send(command)
        assert (reply.s, reply.v) == ("gone", deleted.version)
    again = chat.delete("c")
    assert (again.outcome, again.version) == ("duplicate", deleted.version)


def test_what_follows_a_deletion_in_one_call_is_gone(chat: Chat) -> None:
    reply = chat.send(
        put("m", "m1", content="x"), append("m1", 1, "y"), Delete("c", ""), put("m", "m2"), fresh=True
    )
    assert [item.outcome for item in reply.items] == ["accepted", "terminal", "accepted", "gone"]
    assert set(chat.check()) == {"h", "c/"}


def test_a_deleted_conversation_stays_deleted_when_cold(chat: Chat) -> None:
    chat.put("m", "m1", role="user", content="x", st="streaming")
    chat.flush()
    chat.delete("c")
    chat.flush()
    assert chat.evict() == 1
    reply = chat.send(put("m", "m1", content="late"))
    assert reply.s == "gone"
    # What Postgres still has of its items is not brought back.
    assert set(chat.check()) == {"h", "c/"}


def test_deleting_an_unknown_conversation_leaves_a_tombstone(chat: Chat) -> None:
    assert chat.save(Delete("c", ""), fresh=True).outcome == "accepted"
    assert chat.send(put("m", "m1")).s == "gone"
