"""Settling: what fell silent becomes interrupted, remembers what it was, and comes back with any accepted save."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from models.buffer.buffer import Buffer
from models.core import commands
from tests.buffer.chat import Chat, put

TOOL_PART = {"type": "tool-search", "toolCallId": "call1", "state": "input-available", "input": {}}


@pytest.fixture
def silent(chat: Chat) -> Chat:
    """m1 was streaming, grew, and was settled."""
    chat.put("m", "m1", st="streaming", content="ab", parts=[{"type": "text", "text": "x"}])
    for step in range(18):
        chat.append("m1", 2 + step, "c")
    before = chat.message("m1")
    assert chat.settle("m/m1", at_ms=chat.row("m/m1")["o"] - 1) == 0
    assert chat.message("m1") == before
    assert chat.settle_stale("m/m1") == 1
    return chat


def test_a_silent_message_becomes_interrupted_with_its_text(silent: Chat) -> None:
    kept = silent.message("m1")
    assert (kept.status, kept.settled_from, kept.status_reason) == ("interrupted", "streaming", "stale")
    assert kept.content == "ab" + "c" * 18
    assert "o" not in silent.row("m/m1")
    assert silent.settle("m/m1", at_ms=4_000_000_000_000) == 0


def test_settling_is_a_version_and_is_due_at_once(chat: Chat) -> None:
    out = chat.put("m", "m1", st="streaming", content="a")
    chat.flush()
    assert chat.due() == []
    chat.settle_stale("m/m1")
    assert chat.due() == [f"{chat.place.hex}/m/m1"]
    assert chat.message("m1").version > out.version
    assert chat.flush() == (1, 0)


RETURNS: list[Callable[[Chat], Any]] = [
    lambda chat: chat.append("m1", 20, "d"),
    lambda chat: chat.append("m1", 20, ""),
    lambda chat: chat.append("m1", 0, "ab"),
    lambda chat: chat.part("m1", 0, {"type": "text", "text": "xy"}),
    lambda chat: chat.part("m1", 0, {"type": "text", "text": "x"}),
    lambda chat: chat.put("m", "m1", st="streaming", content="ab" + "c" * 18 + "d"),
    lambda chat: chat.put("m", "m1", st="streaming"),
    lambda chat: chat.put("m", "m1", st="pending"),
    lambda chat: chat.put("m", "m1", metadata={"x": 1}),
    lambda chat: chat.put("m", "m1"),
    lambda chat: chat.put("m", "m1", rev=1),
]


@pytest.mark.parametrize("index", range(len(RETURNS)))
@pytest.mark.parametrize("evicted", [False, True])
def test_any_accepted_save_brings_a_settled_message_back(silent: Chat, index: int, evicted: bool) -> None:
    if evicted:
        silent.flush()
        assert silent.evict() == 1
    out = RETURNS[index](silent)
    assert (out.outcome, out.status) == ("accepted", "streaming")
    kept = silent.message("m1")
    assert (kept.status, kept.settled_from, kept.status_reason) == ("streaming", None, None)
    assert silent.row("m/m1")["o"] > 0
    # And then on as if nothing had been.
    length = out.length or 0
    assert silent.append("m1", length, "!", st="complete").outcome == "accepted"
    assert silent.message("m1").status == "complete"


def test_a_repeated_save_of_equal_revision_brings_it_back_too(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="a", rev=2)
    chat.settle_stale("m/m1")
    assert chat.put("m", "m1", st="streaming", content="a", rev=2).outcome == "accepted"
    assert chat.put("m", "m1", st="streaming", content="a", rev=2).outcome == "duplicate"
    chat.settle_stale("m/m1")
    assert chat.put("m", "m1", st="streaming", content="b", rev=2).outcome == "revision-conflict"
    assert chat.put("m", "m1", st="streaming", content="a", rev=1).outcome == "stale-revision"
    assert chat.message("m1").status == "interrupted"


def test_an_older_snapshot_does_not_bring_it_back(silent: Chat) -> None:
    assert silent.put("m", "m1", st="streaming", content="abc").outcome == "noop"
    assert silent.append("m1", 21, "x").outcome == "append-gap"
    assert silent.message("m1").status == "interrupted"


def test_a_settled_message_may_be_finished(silent: Chat) -> None:
    assert silent.put("m", "m1", st="complete", content="all").outcome == "accepted"
    kept = silent.message("m1")
    assert (kept.status, kept.settled_from, kept.status_reason) == ("complete", None, None)
    assert silent.put("m", "m1", st="streaming").outcome == "noop"


def test_a_settled_message_stopped_by_its_user_is_finished_for_good(silent: Chat) -> None:
    assert silent.put("m", "m1", st="interrupted", status_reason="stale").outcome == "accepted"
    kept = silent.message("m1")
    assert (kept.status, kept.settled_from, kept.status_reason) == ("interrupted", None, "stale")
    assert silent.append("m1", 20, "x").outcome == "terminal"


def test_a_pending_message_comes_back_as_pending(chat: Chat) -> None:
    chat.put("m", "m1", st="pending")
    chat.settle_stale("m/m1")
    assert chat.message("m1").settled_from == "pending"
    assert chat.put("m", "m1", metadata={}).status == "pending"


def test_settling_never_alters_a_complete_message(chat: Chat) -> None:
    chat.put("m", "m1", content="done", parts=[TOOL_PART])
    before = chat.message("m1")
    row = chat.row("m/m1")
    assert row["o"] - row["t"] == chat.buffer.stale.tool_ms
    assert chat.settle_stale("m/m1") == 0
    assert chat.message("m1") == before
    assert "o" not in chat.row("m/m1")
    chat.flush()
    assert chat.evict() == 1


def test_silence_is_longer_with_a_tool_and_longest_with_an_approval(chat: Chat) -> None:
    stale = chat.buffer.stale
    part = {**TOOL_PART, "state": "approval-requested"}
    for name, fields, expected in [
        ("m1", {}, stale.plain_ms),
        ("m2", {"parts": [TOOL_PART]}, stale.tool_ms),
        ("m3", {"parts": [TOOL_PART, part]}, stale.approval_ms),
        ("m4", {"parts": [{**part, "state": "approval-responded"}]}, stale.tool_ms),
        ("m5", {"parts": [{**part, "state": "output-available"}]}, stale.plain_ms),
        ("m6", {"parts": [{**part, "state": "output-available", "preliminary": True}]}, stale.tool_ms),
    ]:
        chat.put("m", name, st="streaming", **fields)
        row = chat.row(f"m/{name}")
        assert row["o"] - row["t"] == expected, name
    for name, state, expected in [
        ("t1", "input-streaming", stale.tool_ms),
        ("t2", "approval-requested", stale.approval_ms),
    ]:
        chat.put("t", name, state=state)
        row = chat.row(f"t/{name}")
        assert row["o"] - row["t"] == expected, name


def test_a_settled_tool_result_comes_back(chat: Chat) -> None:
    chat.put("t", "t1", state="output-available", preliminary=True, output=1)
    assert chat.settle_stale("t/t1") == 1
    assert chat.record_of("t/t1").status == "interrupted"
    chat.flush()
    assert chat.evict() == 1
    assert chat.put("t", "t1", state="input-available").outcome == "noop"
    assert chat.put("t", "t1", state="output-available", preliminary=True, output=2).status == "streaming"
    assert chat.put("t", "t1", state="output-available", output=2).status == "complete"


def test_a_stale_open_entry_settles_nothing(chat: Chat) -> None:
    """Prevents: an item settled although a save came in the same moment; an entry of an earlier reply."""
    chat.put("m", "m1", st="streaming", content="a")
    chat.put("m", "m2", content="done")
    deadline = chat.row("m/m1")["o"]
    chat.buffer.now_us = (deadline + 5) * 1000
    chat.append("m1", 1, "b")
    chat.buffer.now_us = 0
    keys = chat.place.keys
    for name in ("m/m1", "m/m2", "m/none"):
        chat.buffer.client.zadd(keys.open, {f"{chat.place.hex}/{name}": 1})
    assert chat.settle("m/m1", "m/m2", "m/none", at_ms=deadline + 6) == 0
    assert chat.message("m1").status == "streaming"


def test_a_stale_open_entry_of_a_cold_conversation_is_dropped(chat: Chat) -> None:
    chat.buffer.client.zadd(chat.place.keys.open, {f"{chat.place.hex}/m/m1": 1})
    assert chat.settle("m/m1", at_ms=10) == 0
    assert chat.buffer.client.zcard(chat.place.keys.open) == 0


def test_settling_rings_once(chat: Chat) -> None:
    chat.send(put("m", "m1", st="streaming"), put("m", "m2", st="streaming"), fresh=True)
    chat.flush()
    chat.buffer.client.delete(chat.place.keys.bell)
    late = chat.row("m/m2")["o"] * 1000
    chat.buffer.now_us = late
    assert chat.buffer.settle(chat.place.keys, chat.place.hex, ["m/m1"]) == (1, True, False)
    assert chat.buffer.settle(chat.place.keys, chat.place.hex, ["m/m2"]) == (1, False, False)
    assert chat.buffer.settle(chat.place.keys, chat.place.hex, ["m/m2"]) == (0, False, False)


def test_a_reason_given_by_a_client_survives_settling(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="a", status_reason="thinking", rev=1)
    chat.settle_stale("m/m1")
    assert chat.message("m1").status_reason == "thinking"
    assert (
        chat.put("m", "m1", st="streaming", content="a", status_reason="thinking", rev=1).outcome
        == "accepted"
    )
    assert (chat.message("m1").status, chat.message("m1").status_reason) == ("streaming", "thinking")


def test_the_sweeps_reason_is_no_field_of_the_clients(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="a", rev=1)
    chat.settle_stale("m/m1")
    assert chat.put("m", "m1", status_reason=None, rev=1).outcome == "accepted"
    assert chat.message("m1").status == "streaming"


def test_a_row_adopted_under_another_buffer_epoch_is_not_settled(buffer: Buffer) -> None:
    place = buffer.place("ann", "suspect")
    put = commands.put("m", "m", {"content": "half"}, status="streaming")
    assert buffer.save(place, [put], fresh=True).items[0].outcome == "accepted"
    buffer.now_us = (buffer.now_ms() + 10 * buffer.stale.plain_ms) * 1000
    epoch = buffer.client.hget(place.keys.meta, "e")
    buffer.client.hset(place.keys.meta, "e", "another")
    assert buffer.settle(place.keys, place.hex, ["m/m"]) == (0, False, True)
    buffer.client.hset(place.keys.meta, "e", epoch)
    assert buffer.settle(place.keys, place.hex, ["m/m"])[0] == 1
