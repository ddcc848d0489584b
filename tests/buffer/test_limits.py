"""Limits: an item's bytes, a conversation's items and bytes. What is refused leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from models.core.commands import Command
from tests.buffer.chat import Chat, append, put, set_part

Limited = Callable[..., Chat]

OVER: list[Command] = [
    put("m", "m1", content="x" * 1025),
    put("m", "m1", content="é" * 513),
    put("m", "m1", metadata={"x": "y" * 1020}),
    put("m", "m1", parts=[{"type": "text", "text": "x" * 1020}]),
    put("m", "m1", content="x" * 1000, rev=1, metadata={"x": "y" * 100}),
    append("m1", 4, "x" * 1021),
    set_part("m1", 0, {"type": "data-x", "data": "x" * 1020}),
]


@pytest.mark.parametrize("command", OVER)
def test_an_item_beyond_its_limit_is_refused_whole(limited: Limited, command: Command) -> None:
    chat = limited(BLOTTER_MAX_ITEM_BYTES="1024")
    chat.put("m", "m1", st="streaming", content="four")
    before = chat.check()
    assert chat.save(command).outcome == "item-too-large"
    assert chat.check() == before


def test_an_item_may_reach_its_limit_exactly(limited: Limited) -> None:
    chat = limited(BLOTTER_MAX_ITEM_BYTES="1024")
    assert chat.put("m", "m1", content="x" * 1024).outcome == "accepted"
    assert chat.put("m", "m2", content="x" * 1000, st="streaming").outcome == "accepted"
    assert chat.append("m2", 1000, "x" * 24).outcome == "accepted"
    assert chat.append("m2", 1024, "x").outcome == "item-too-large"
    assert chat.append("m2", 1000, "x" * 24).outcome == "duplicate"
    assert chat.append("m2", 1024, "", st="complete").outcome == "accepted"
    assert chat.put("m", "m2", content="x" * 10).outcome == "accepted"


def test_a_conversation_has_a_limit_of_items_tombstones_included(limited: Limited) -> None:
    chat = limited(BLOTTER_MAX_CONVERSATION_ITEMS="4")
    reply = chat.send(
        put("m", "m1"), put("t", "t1"), put("a", "a1", content="v"), put("m", "m2"), put("m", "m3"), put("m", "m1", content="x"),
        put("c", "", title="t"), fresh=True,
    )  # fmt: skip
    outcomes = [item.outcome for item in reply.items]
    assert outcomes == ["accepted"] * 4 + ["too-many-items", "accepted", "accepted"]
    chat.delete("m", "m1")
    assert chat.put("m", "m3").outcome == "too-many-items"
    assert chat.delete("m", "m3").outcome == "too-many-items"
    assert "m/m3" not in chat.check()


def test_a_conversation_has_a_limit_of_bytes(limited: Limited) -> None:
    chat = limited(BLOTTER_MAX_ITEM_BYTES="1024", BLOTTER_MAX_CONVERSATION_BYTES="2048")
    chat.put("m", "m1", content="x" * 1024)
    assert chat.put("m", "m2", content="x" * 1024, st="streaming").outcome == "accepted"
    assert chat.put("m", "m3", content="x").outcome == "conversation-too-large"
    assert chat.put("m", "m3").outcome == "accepted"
    chat.put("m", "m1", content="x" * 1000)
    assert chat.put("c", "", metadata={"x": "y" * 17}).outcome == "conversation-too-large"
    assert chat.put("c", "", metadata={"x": "y" * 16}).outcome == "accepted"
    assert chat.put("t", "t1", output=1).outcome == "conversation-too-large"
    chat.delete("m", "m1")
    assert chat.put("t", "t1", output=1).outcome == "accepted"


def test_fifty_items_of_every_fate_go_in_one_call(limited: Limited) -> None:
    chat = limited(BLOTTER_MAX_ITEM_BYTES="1024")
    chat.put("m", "m0", rev=5, content="a")
    commands: list[Command] = []
    expected: list[str] = []
    for number in range(10):
        commands += [
            put("m", f"m{number + 1}", content="x" * 900, parts=[{"type": "text", "text": "t"}]), put("m", "m0", rev=4),
            put("t", f"t{number}", message_id=f"m{number + 5}", output={"n": number}), put("a", f"a{number}", content="x" * 2000),
            append("m0", 1, "b"),
        ]  # fmt: skip
        expected += ["accepted", "stale-revision", "accepted", "item-too-large", "terminal"]
    reply = chat.send(*commands)
    assert [item.outcome for item in reply.items] == expected
    assert [item.id for item in reply.items] == [command.id for command in commands]
    assert {chat.message(f"m{n}").tool_result_ids for n in range(5, 11)} == {
        (f"t{n - 5}",) for n in range(5, 11)
    }


def test_limits_hold_for_what_is_adopted_too(limited: Limited) -> None:
    chat: Any = limited(BLOTTER_MAX_ITEM_BYTES="1024", BLOTTER_MAX_CONVERSATION_ITEMS="2")
    chat.put("m", "m1", content="x" * 1000)
    chat.put("m", "m2")
    chat.flush()
    chat.evict()
    assert chat.put("m", "m3").outcome == "too-many-items"
    assert chat.put("m", "m1", metadata={"x": "y" * 30}).outcome == "item-too-large"
