"""Part steps: one part set whole, in order, never back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.buffer.chat import Chat, set_part


def tool(state: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool-search", "toolCallId": "call1", "state": state, **more}


def text(value: str, state: str | None = "streaming") -> dict[str, Any]:
    return {"type": "text", "text": value, **({"state": state} if state else {})}


@pytest.fixture
def open_message(chat: Chat) -> Chat:
    chat.put("m", "m1", st="streaming")
    return chat


def test_parts_are_set_in_order(open_message: Chat) -> None:
    gap = open_message.part("m1", 1, text("b"))
    assert (gap.outcome, gap.length) == ("part-gap", 0)
    assert open_message.part("m1", 0, text("a")).outcome == "accepted"
    assert open_message.part("m1", 1, text("b")).outcome == "accepted"
    assert open_message.part("m1", 3, text("d")).length == 2
    assert open_message.part("m1", 0, text("aa")).outcome == "accepted"
    assert open_message.message("m1").parts == (
        '[{"type":"text","text":"aa","state":"streaming"},{"type":"text","text":"b","state":"streaming"}]'
    )


def test_the_same_part_again_is_a_duplicate(open_message: Chat) -> None:
    first = open_message.part("m1", 0, tool("input-available", input={"q": 1}))
    again = open_message.part("m1", 0, tool("input-available", input={"q": 1}))
    assert (again.outcome, again.version) == ("duplicate", first.version)


STATES = [
    ("input-streaming", {}),
    ("input-available", {}),
    ("approval-requested", {}),
    ("approval-responded", {}),
    ("output-available", {"preliminary": True}),
    ("output-available", {}),
]


@pytest.mark.parametrize("later", range(len(STATES)))
@pytest.mark.parametrize("first", range(len(STATES)))
def test_a_tool_part_never_goes_back(open_message: Chat, first: int, later: int) -> None:
    state, more = STATES[first]
    open_message.part("m1", 0, tool(state, **more))
    before = open_message.message("m1")
    state, more = STATES[later]
    out = open_message.part("m1", 0, tool(state, note="late", **more))
    assert out.outcome == ("noop" if later < first else "accepted")
    assert (open_message.message("m1") == before) == (later < first)


def test_a_higher_revision_takes_a_tool_part_back(open_message: Chat) -> None:
    open_message.part("m1", 0, tool("output-available"))
    assert open_message.part("m1", 0, tool("input-streaming"), rev=1).outcome == "accepted"


def test_an_unfinished_text_part_is_never_shortened(open_message: Chat) -> None:
    open_message.part("m1", 0, text("abcd"))
    assert open_message.part("m1", 0, text("abc")).outcome == "noop"
    assert open_message.part("m1", 0, text("abc", state=None), st="streaming").outcome == "noop"
    assert open_message.part("m1", 0, text("abce")).outcome == "accepted"
    assert open_message.part("m1", 0, text("abc", "done")).outcome == "accepted"
    assert open_message.part("m1", 0, text("abcde")).outcome == "noop"
    assert open_message.message("m1").parts == '[{"type":"text","text":"abc","state":"done"}]'


def test_a_part_that_grew_by_appends_counts_with_its_whole_length(open_message: Chat) -> None:
    open_message.part("m1", 0, text("ab"))
    for step in range(20):
        open_message.append("m1", 2 + step, "c", part=0)
    assert open_message.part("m1", 0, text("ab" + "c" * 19)).outcome == "noop"
    assert open_message.part("m1", 0, text("ab" + "c" * 20)).outcome == "duplicate"
    out = open_message.part("m1", 0, text("ab" + "c" * 20, "done"))
    assert out.outcome == "accepted"
    assert open_message.append("m1", 22, "!", part=0).outcome == "accepted"


def test_a_text_part_may_become_another_and_back(open_message: Chat) -> None:
    open_message.part("m1", 0, text("words", "done"))
    open_message.append("m1", 5, "!", part=0)
    assert open_message.part("m1", 0, {"type": "file", "url": "u"}).outcome == "accepted"
    assert open_message.message("m1").parts == '[{"type":"file","url":"u"}]'
    assert open_message.part("m1", 0, text("again", "done")).outcome == "accepted"
    assert open_message.message("m1").parts == '[{"type":"text","text":"again","state":"done"}]'


def test_status_and_reason_may_stand_alongside(open_message: Chat) -> None:
    out = open_message.part("m1", 0, text("x", "done"), st="complete", reason="stop")
    assert (out.outcome, out.status) == ("accepted", "complete")
    assert open_message.message("m1").status_reason == "stop"
    assert open_message.part("m1", 0, text("x", "done"), st="complete", reason="stop").outcome == "duplicate"


def test_an_open_step_on_a_finished_message_changes_nothing(open_message: Chat) -> None:
    open_message.part("m1", 0, tool("input-available"), st="complete")
    before = open_message.message("m1")
    assert open_message.part("m1", 0, tool("output-available"), st="streaming").outcome == "noop"
    assert open_message.part("m1", 1, text("new"), st="pending").outcome == "noop"
    assert open_message.message("m1") == before


def test_a_tools_answer_may_reach_a_finished_message(open_message: Chat) -> None:
    open_message.part("m1", 0, tool("approval-requested"), st="complete")
    assert open_message.part("m1", 0, tool("approval-responded")).outcome == "accepted"
    assert open_message.part("m1", 0, tool("output-available", output=1)).outcome == "accepted"
    assert open_message.message("m1").status == "complete"


def test_a_first_part_makes_a_pending_message_stream(chat: Chat) -> None:
    chat.put("m", "m1", st="pending")
    assert chat.part("m1", 0, text("x")).status == "streaming"


def test_fewer_parts_in_a_put_remove_the_rest_with_their_texts(open_message: Chat) -> None:
    open_message.part("m1", 0, text("a"))
    open_message.part("m1", 1, text("b"))
    open_message.part("m1", 2, tool("input-available"))
    for step in range(17):
        open_message.append("m1", 1 + step, "x", part=1)
    assert open_message.row("m/m1")["q"] == {"2": ["call1", "tool"]}
    assert open_message.put("m", "m1", parts=[text("a")]).outcome == "accepted"
    assert "q" not in open_message.row("m/m1")
    assert open_message.put("m", "m1", parts=[]).outcome == "accepted"
    assert open_message.message("m1").parts == "[]"


def test_a_step_with_a_lower_revision_is_stale_and_with_an_equal_one_goes_on(open_message: Chat) -> None:
    open_message.part("m1", 0, text("a"), rev=3)
    assert open_message.part("m1", 0, text("ab"), rev=2).outcome == "stale-revision"
    assert open_message.part("m1", 0, text("ab"), rev=3).outcome == "accepted"


def test_the_step_that_set_the_revision_takes_back_nothing_that_was_appended_since(
    open_message: Chat,
) -> None:
    open_message.part("m1", 0, text("abcd", "done"))
    open_message.part("m1", 0, text("x", "done"), rev=1)
    open_message.append("m1", 1, "yz", part=0, st="complete")
    assert open_message.part("m1", 0, text("x", "done"), rev=1).outcome == "noop"
    assert open_message.message("m1").parts == '[{"type":"text","text":"xyz","state":"done"}]'


def test_several_steps_in_one_call_see_each_other(open_message: Chat) -> None:
    reply = open_message.send(
        set_part("m1", 0, text("a")),
        set_part("m1", 1, text("b")),
        set_part("m1", 3, text("d")),
        set_part("m1", 1, text("bb")),
    )
    assert [item.outcome for item in reply.items] == ["accepted", "accepted", "part-gap", "accepted"]
