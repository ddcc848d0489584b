"""Tool results: their states only go forward; what a message waits for; links."""

from __future__ import annotations

from typing import Any

import pytest

from tests.buffer.chat import Chat, put

STATES: list[dict[str, Any]] = [
    {"state": "input-streaming"},
    {"state": "input-available"},
    {"state": "approval-requested"},
    {"state": "approval-responded"},
    {"state": "output-available", "preliminary": True},
    {"state": "output-available"},
]
TOOL_PART = {"type": "tool-search", "toolCallId": "call1", "state": "input-available", "input": {}}


@pytest.mark.parametrize("later", range(6))
@pytest.mark.parametrize("first", range(6))
def test_a_tool_result_never_goes_back(chat: Chat, first: int, later: int) -> None:
    chat.put("t", "t1", output=1, **STATES[first])
    before = chat.record_of("t/t1")
    out = chat.put("t", "t1", output=2, **STATES[later])
    assert out.outcome == ("noop" if later < first else "accepted")
    assert (chat.record_of("t/t1") == before) == (later < first)


@pytest.mark.parametrize("final", ["output-available", "output-error", "output-denied"])
@pytest.mark.parametrize("other", ["output-available", "output-error", "output-denied"])
def test_between_final_states_the_last_arrival_wins(chat: Chat, final: str, other: str) -> None:
    chat.put("t", "t1", state=final, output=1)
    assert chat.put("t", "t1", state=other, output=2).outcome == "accepted"
    assert chat.record_of("t/t1").state == other


def test_a_higher_revision_takes_a_tool_result_back(chat: Chat) -> None:
    chat.put("t", "t1", state="output-available", rev=1)
    assert chat.put("t", "t1", state="input-streaming", st="streaming", rev=2).outcome == "accepted"
    assert chat.record_of("t/t1").status == "streaming"


def test_a_result_that_is_not_final_is_open_until_it_is(chat: Chat) -> None:
    for fields in STATES[:5]:
        assert chat.put("t", "t1", **fields).status == "streaming"
    assert chat.put("t", "t1", **STATES[5]).status == "complete"


def test_preliminary_output_is_a_final_state_with_an_open_status(chat: Chat) -> None:
    out = chat.put("t", "t1", state="output-available", preliminary=True, output=1)
    assert out.status == "streaming"
    assert chat.put("t", "t1", state="output-available", preliminary=True, output=1).outcome == "duplicate"
    assert chat.put("t", "t1", state="output-available", preliminary=True, output=2).outcome == "accepted"
    assert chat.put("t", "t1", st="complete").outcome == "accepted"
    assert chat.put("t", "t1", state="output-available", preliminary=True, output=1).outcome == "noop"
    assert chat.put("t", "t1", state="output-available", output=2).outcome == "duplicate"


def test_a_final_state_sent_as_streaming_is_preliminary(chat: Chat) -> None:
    chat.put("t", "t1", state="output-available", st="streaming", output=1)
    assert chat.put("t", "t1", state="output-available", st="streaming", output=1).outcome == "duplicate"
    assert chat.row("t/t1")["rk"] == 4
    assert chat.put("t", "t1", state="approval-responded").outcome == "noop"
    assert chat.put("t", "t1", state="output-available").status == "complete"
    assert "rk" not in chat.row("t/t1")


def test_preliminary_output_sent_as_complete_is_final(chat: Chat) -> None:
    chat.put("t", "t1", state="output-available", preliminary=True, st="complete", output=1)
    assert (
        chat.put("t", "t1", state="output-available", preliminary=True, st="complete", output=1).outcome
        == "duplicate"
    )
    assert "rk" not in chat.row("t/t1")


# ------------------------------------------------------------------ what a message waits for
def test_a_complete_message_with_a_pending_tool_is_in_flight(chat: Chat) -> None:
    chat.put("m", "m1", parts=[TOOL_PART])
    row = chat.row("m/m1")
    assert row["o"] - row["t"] == chat.buffer.stale.tool_ms
    chat.put("m", "m1", parts=[{**TOOL_PART, "state": "approval-requested"}])
    row = chat.row("m/m1")
    assert row["o"] - row["t"] == chat.buffer.stale.approval_ms
    chat.put("m", "m1", parts=[{**TOOL_PART, "state": "output-available"}])
    assert "o" not in chat.row("m/m1")


NAMES: list[dict[str, Any]] = [
    {"item_id": "m1.call1"},
    {"item_id": "call1"},
    {"item_id": "x", "tool_call_id": "call1"},
]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("result_first", [True, False])
def test_a_final_result_ends_the_wait_however_it_is_named_and_whenever_it_comes(
    chat: Chat, names: dict[str, Any], result_first: bool
) -> None:
    fields = dict(names)
    result = put("t", fields.pop("item_id"), message_id="m1", state="output-available", output=1, **fields)
    message = put("m", "m1", parts=[TOOL_PART])
    for command in (result, message) if result_first else (message, result):
        chat.save(command)
    row = chat.row("m/m1")
    assert "q" not in row
    assert "o" not in row


def test_a_result_that_is_not_final_does_not_end_the_wait(chat: Chat) -> None:
    chat.put("m", "m1", parts=[TOOL_PART])
    for fields in STATES[:5]:
        chat.put("t", "m1.call1", message_id="m1", **fields)
        assert chat.row("m/m1")["q"] == {"0": ["call1", "tool"]}
    chat.put("t", "m1.call1", message_id="m1", state="output-error", error_text="e")
    assert "q" not in chat.row("m/m1")


def test_a_repeated_call_id_of_another_message_does_not_end_the_wait(chat: Chat) -> None:
    chat.put("m", "m1", parts=[TOOL_PART])
    chat.put("t", "m0.call1", message_id="m0", tool_call_id="call1", state="output-available")
    assert "q" in chat.row("m/m1")


def test_a_result_is_a_sign_of_life_of_its_reply(chat: Chat) -> None:
    chat.buffer.now_us = 1_900_000_000_000_000
    chat.put("m", "m1", st="streaming", parts=[TOOL_PART])
    chat.buffer.now_us += 600_000_000
    chat.put("t", "m1.call1", message_id="m1", state="output-available", output=1)
    row = chat.row("m/m1")
    now_ms = chat.buffer.now_us // 1000
    assert row["o"] == now_ms + chat.buffer.stale.plain_ms


# ------------------------------------------------------------------ links
@pytest.mark.parametrize(("kind", "field"), [("t", "tool_result_ids"), ("a", "artifact_ids")])
def test_an_item_that_names_its_message_is_linked_whichever_comes_first(
    chat: Chat, kind: Any, field: str
) -> None:
    chat.put(kind, "x1", message_id="m1")
    chat.put("m", "m1", role="assistant")
    chat.put(kind, "x2", message_id="m1")
    chat.put("m", "m1", **{field: ["x0"]})
    assert getattr(chat.message("m1"), field) == ("x1", "x2", "x0")
    assert "l/m1" not in chat.check()


def test_links_are_only_ever_united(chat: Chat) -> None:
    chat.put("m", "m1", tool_result_ids=["a", "b"])
    assert chat.put("m", "m1", tool_result_ids=["b"]).outcome == "duplicate"
    assert chat.put("m", "m1", tool_result_ids=[]).outcome == "duplicate"
    assert chat.put("m", "m1", tool_result_ids=None).outcome == "duplicate"
    assert chat.put("m", "m1", tool_result_ids=["c", "a"], rev=1).outcome == "accepted"
    assert chat.message("m1").tool_result_ids == ("a", "b", "c")


def test_a_link_gives_its_message_a_version_and_makes_it_due(chat: Chat) -> None:
    chat.put("m", "m1", role="assistant")
    chat.flush()
    before = chat.message("m1")
    chat.put("t", "t1", message_id="m1")
    after = chat.message("m1")
    assert after.version > before.version
    assert {ref[33:] for ref in chat.due()} == {"m/m1", "t/t1"}
    assert chat.put("t", "t1", message_id="m1").outcome == "duplicate"
    assert chat.message("m1") == after


def test_a_link_leaves_the_revision_of_its_message(chat: Chat) -> None:
    chat.put("m", "m1", role="assistant", content="x", rev=1)
    chat.put("t", "t1", message_id="m1")
    assert chat.put("m", "m1", content="x", rev=1).outcome == "duplicate"


def test_a_deleted_message_is_not_linked(chat: Chat) -> None:
    chat.put("m", "m1", role="assistant")
    chat.delete("m", "m1")
    before = chat.message("m1")
    assert chat.put("t", "t1", message_id="m1").outcome == "accepted"
    assert chat.message("m1") == before
    assert "l/m1" not in chat.check()


def test_waiting_links_go_when_the_message_is_deleted_before_it_came(chat: Chat) -> None:
    chat.put("t", "t1", message_id="m1")
    assert "l/m1" in chat.check()
    chat.delete("m", "m1")
    assert "l/m1" not in chat.check()


@pytest.mark.parametrize("kind", ["t", "a"])
@pytest.mark.parametrize("other", ["m2", None])
def test_word_left_for_a_message_goes_when_the_item_names_another(
    chat: Chat, kind: Any, other: str | None
) -> None:
    chat.put(kind, "x1", message_id="m1")
    chat.put(kind, "x2", message_id="m1")
    chat.put(kind, "x1", message_id=other)
    waiting = {name: row for name, row in chat.check().items() if name.startswith("l/")}
    field = "lr" if kind == "t" else "la"
    assert waiting["l/m1"][field] == ["x2"]
    assert ("l/m2" in waiting) == (other is not None)
    chat.put(kind, "x2", message_id=other)
    assert "l/m1" not in chat.check()
    chat.put("m", "m1", role="assistant")
    assert (chat.message("m1").tool_result_ids, chat.message("m1").artifact_ids) == ((), ())


def test_two_tools_finishing_in_one_call_lose_no_link(chat: Chat) -> None:
    chat.send(
        put("t", "t1", message_id="m1"),
        put("m", "m1"),
        put("t", "t2", message_id="m1"),
        put("a", "a1", message_id="m1"),
    )
    kept = chat.message("m1")
    assert (kept.tool_result_ids, kept.artifact_ids) == (("t1", "t2"), ("a1",))
