"""Limits: an item's bytes, a conversation's items and bytes. What is refused leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from models.buffer.following import FollowRequest, follow
from models.core.commands import MAX_LINKS, MAX_PARTS, Command
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
    assert "m/m3" not in chat.check()


def test_a_full_conversation_takes_deletes_of_what_it_does_not_have_up_to_a_tenth_more(
    limited: Limited,
) -> None:
    chat = limited(BLOTTER_MAX_CONVERSATION_ITEMS="10")
    for number in range(10):
        chat.put("m", f"m{number}")
    assert chat.delete("m", "late").outcome == "accepted"
    assert chat.put("m", "late").outcome == "gone"
    assert chat.delete("m", "later").outcome == "too-many-items"
    assert chat.delete("m", "m1").outcome == "accepted"
    assert chat.header()["n"] == 11


# ------------------------------------------------------------------ parts
def test_a_message_has_a_limit_of_parts(chat: Chat) -> None:
    full: list[dict[str, Any]] = [{}] * MAX_PARTS
    assert chat.put("m", "m1", parts=[*full, {}]).outcome == "too-many-parts"
    assert chat.views() == {}
    assert chat.put("m", "m1", st="streaming", parts=full).outcome == "accepted"
    before = chat.check()
    assert chat.put("m", "m1", parts=[*full, {}]).outcome == "too-many-parts"
    assert chat.part("m1", MAX_PARTS, {}).outcome == "too-many-parts"
    assert chat.check() == before
    assert chat.part("m1", MAX_PARTS - 1, {"type": "data-x"}).outcome == "accepted"
    assert chat.put("m", "m1", parts=full[1:]).outcome == "accepted"
    assert chat.part("m1", MAX_PARTS - 1, {}).outcome == "accepted"


def test_a_message_that_has_more_parts_than_the_limit_may_keep_them_but_not_grow(chat: Chat) -> None:
    chat.buffer._limits["parts"] = 5
    chat.put("m", "m1", parts=[{}] * 5)
    chat.buffer._limits["parts"] = 3
    assert chat.put("m", "m1", parts=[{}] * 6).outcome == "too-many-parts"
    assert chat.part("m1", 5, {}).outcome == "too-many-parts"
    assert chat.part("m1", 4, {"type": "data-x"}).outcome == "accepted"
    assert chat.put("m", "m1", parts=[{}] * 4).outcome == "accepted"


def test_a_part_counts_for_more_than_its_text(limited: Limited) -> None:
    chat = limited(BLOTTER_MAX_ITEM_BYTES="1024", BLOTTER_MAX_CONVERSATION_BYTES="2048")
    assert chat.put("m", "m1", parts=[{}] * 4).outcome == "item-too-large"
    assert chat.put("m", "m1", parts=[{}] * 3).outcome == "accepted"
    assert chat.part("m1", 3, {}).outcome == "item-too-large"
    assert chat.put("m", "m2", parts=[{}] * 3).outcome == "accepted"
    assert chat.put("m", "m4", content="x" * 400).outcome == "accepted"
    assert chat.put("m", "m3", parts=[{}]).outcome == "conversation-too-large"
    assert chat.put("m", "m2", parts=None).outcome == "accepted"
    assert chat.put("m", "m3", parts=[{}]).outcome == "accepted"


def test_one_look_at_rows_is_bounded_by_their_parts_too(chat: Chat) -> None:
    for number in range(10):
        chat.put("m", f"m{number}", parts=[{}] * MAX_PARTS)
    found = chat.buffer.rows(chat.place.keys, chat.due(), 600 * 1024)
    assert len(found) == 4  # the conversation's own, and three of 258 KB
    view = chat.buffer.read(chat.place, "full", most=600 * 1024)
    assert not view.head.whole


def test_an_answer_to_a_follower_is_bounded_where_texts_only_grew_too(chat: Chat) -> None:
    known = {}
    for number in range(5):
        chat.put("m", f"m{number}", st="streaming", content="x")
        known[f"m/m{number}"] = (int(chat.row(f"m/m{number}")["v"]), {"c": 1})
    since = chat.last
    for number in range(5):
        chat.append(f"m{number}", 1, "y" * 1000)
    epoch = chat.buffer.buffer_epoch(chat.place.keys)
    request = FollowRequest(place=chat.place, since=since, known=known, most=2000, epoch=epoch)
    (reply,) = follow(chat.buffer, [request])
    assert all(item.tails == ("c", "y" * 1000) for item in reply.items)
    assert (len(reply.items), reply.head.more) == (2, True)


# ------------------------------------------------------------------ links
IDS = [f"r{number}" for number in range(MAX_LINKS)]


@pytest.mark.parametrize("field", ["tool_result_ids", "artifact_ids"])
def test_a_message_has_a_limit_of_links(chat: Chat, field: str) -> None:
    assert chat.put("m", "m1", **{field: [*IDS, "more"]}).outcome == "too-many-links"
    assert chat.put("m", "m1", **{field: IDS}).outcome == "accepted"
    before = chat.check()
    assert chat.put("m", "m1", content="x", **{field: ["more"]}).outcome == "too-many-links"
    assert chat.check() == before
    assert chat.put("m", "m1", content="x", **{field: IDS[:5]}).outcome == "accepted"


@pytest.mark.parametrize(("kind", "field"), [("t", "tool_result_ids"), ("a", "artifact_ids")])
@pytest.mark.parametrize("message_first", [True, False])
def test_what_names_its_message_counts_among_its_links(
    chat: Chat, kind: Any, field: str, message_first: bool
) -> None:
    chat.buffer._limits["links"] = 3
    if message_first:
        chat.put("m", "m1", role="assistant")
    for number in range(3):
        assert chat.put(kind, f"x{number}", message_id="m1").outcome == "accepted"
    before = chat.check()
    assert chat.put(kind, "x3", message_id="m1").outcome == "too-many-links"
    assert chat.check() == before
    assert chat.put(kind, "x2", message_id="m1", title="t").outcome in ("accepted", "duplicate")
    assert chat.put(kind, "x3", message_id="m2").outcome == "accepted"
    assert chat.put("m", "m1", content="x", **{field: ["more"]}).outcome == "too-many-links"
    assert chat.put("m", "m1", content="x", **{field: ["x1"]}).outcome == "accepted"
    assert getattr(chat.message("m1"), field) == ("x0", "x1", "x2")


def test_links_count_among_the_bytes_of_message_and_conversation(limited: Limited) -> None:
    chat = limited(BLOTTER_MAX_ITEM_BYTES="1024", BLOTTER_MAX_CONVERSATION_BYTES="2048")
    ids = [f"{number:0256}" for number in range(12)]
    assert chat.put("m", "m1", tool_result_ids=ids[:4]).outcome == "item-too-large"
    assert chat.put("m", "m1", tool_result_ids=ids[:3]).outcome == "accepted"
    for number in range(3, 7):  # left as word for a message that never comes
        assert chat.put("t", ids[number], message_id="none").outcome == "accepted"
    assert chat.header()["bytes"] == 7 * (256 + 16)
    assert chat.put("t", ids[7], message_id="none").outcome == "conversation-too-large"
    assert chat.put("t", ids[7]).outcome == "accepted"
    chat.delete("m", "none")
    assert chat.header()["bytes"] == 3 * (256 + 16)


def test_many_waiting_parts_and_many_links_are_compared_in_one_pass(chat: Chat) -> None:
    """A thousand calls against a thousand links took a second, one by one."""
    for start in range(0, MAX_LINKS, 50):
        some = IDS[start : start + 50]
        results = (put("t", i, message_id="m1", tool_call_id=f"c{i}", state="output-available") for i in some)
        chat.buffer.save(chat.place, [*results], fresh=True)
    calls = [
        {"type": "tool-x", "toolCallId": f"other{i}", "state": "input-available"}
        for i in range(MAX_PARTS - 1)
    ]
    answered = {"type": "tool-x", "toolCallId": "cr7", "state": "input-available"}
    started = time.monotonic()
    assert chat.put("m", "m1", parts=[answered, *calls]).outcome == "accepted"
    chat.buffer.save(chat.place, [put("m", "m1", content="x", parts=[answered, *calls])])
    assert time.monotonic() - started < 1
    assert sorted(chat.row("m/m1")["q"], key=int) == [str(number) for number in range(1, MAX_PARTS)]


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
            put("m", f"m{number + 1}", content="x" * 600, parts=[{"type": "text", "text": "t"}]), put("m", "m0", rev=4),
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
