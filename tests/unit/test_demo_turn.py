"""What the demo's assistant decides before it writes: the way to the question, what was said on it, what has ended."""

from __future__ import annotations

from typing import Any

import pytest

from web.demo.assistant import turn
from web.demo.assistant.voice import Line, lines, text_of


def message(message_id: str, parent_id: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"id": message_id, "role": "user", "content": None, "parts": None, "parentId": parent_id, **fields}


def test_the_history_is_the_branch_of_the_question() -> None:
    messages = [message("q"), message("a", "q"), message("other", "q"), message("next", "a")]
    assert [one["id"] for one in turn._path(messages, "next")] == ["q", "a", "next"]
    assert turn._path(messages, None) == turn._path(messages, "unknown") == []


def test_parents_in_a_circle_end() -> None:
    assert [one["id"] for one in turn._path([message("x", "y"), message("y", "x")], "x")] == ["y", "x"]


def test_what_was_said_is_text_and_nothing_else() -> None:
    path = [
        message("s", role="system", content="Be brief."),
        message("q", content="Hello"),
        message("a", role="assistant", parts=[{"type": "text", "text": "One."}, {"type": "tool-x"}, {"type": "text", "text": "Two."}]),
        message("empty", role="assistant", content=""),
        message("t", role="tool", content="not for the model"),
    ]  # fmt: skip
    assert lines(path) == [
        Line("system", "Be brief."),
        Line("user", "Hello"),
        Line("assistant", "One.\n\nTwo."),
    ]


@pytest.mark.parametrize(
    "part", [{"type": "text"}, {"type": "text", "text": None}, {"type": "text", "text": 5}, {}]
)
def test_parts_of_any_shape_are_lived_with(part: dict[str, Any]) -> None:
    odd = message("a", role="assistant", content="words", parts=[part])
    assert turn._text(odd) == ""
    assert text_of(odd) == "words"


@pytest.mark.parametrize(
    ("status", "reason", "ended"),
    [
        ("pending", None, False),
        ("streaming", None, False),
        ("complete", None, True),
        ("error", "x", True),
        ("interrupted", "stopped", True),
        ("interrupted", "stale", False),
    ],
)
def test_a_reply_that_only_looked_abandoned_is_gone_on_with(
    status: str, reason: str | None, ended: bool
) -> None:
    assert turn._ended(message("a", status=status, statusReason=reason)) is ended


def test_looks_become_rarer_and_last_as_long_as_they_shall() -> None:
    waits = turn._looks(60)
    assert waits == sorted(waits)
    assert waits[0] == turn.LOOK_S
    assert max(waits) == turn.LOOK_MAX_S
    assert 60 <= sum(waits) < 60 + turn.LOOK_MAX_S
