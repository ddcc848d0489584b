"""Commands: how fields and parts become what the scripts take, and back."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given

from models.core.commands import (
    RANK_FINAL,
    Append,
    Part,
    Put,
    SetPart,
    join_part,
    put,
    split_part,
    split_parts,
    tool_rank,
    utf16_units,
)
from tests.buffer.strategies import json_values, parts, texts


# ------------------------------------------------------------------ UTF-16
@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("", 0),
        ("abc", 3),
        ("é", 1),
        ("e\u0301", 2),
        ("\uffff", 1),
        ("😀", 2),
        ("a😀b𝄞", 6),
        ("\u05d0\u202e", 2),
    ],
)
def test_units_are_counted_as_a_browser_does(text: str, units: int) -> None:
    assert utf16_units(text) == units


@given(texts, texts)
def test_units_add_up(one: str, other: str) -> None:
    assert utf16_units(one + other) == utf16_units(one) + utf16_units(other)


# ------------------------------------------------------------------ parts
def test_a_text_part_is_split_from_its_text() -> None:
    part = split_part({"type": "text", "text": "a😀", "state": "streaming", "x": 1})
    assert part == Part('{"type":"text","text":"","state":"streaming","x":1}', "a😀", 3, 0)
    assert split_part({"type": "reasoning", "text": ""}) == Part(
        '{"type":"reasoning","text":""}', "", 0, RANK_FINAL
    )


@pytest.mark.parametrize(
    "value", [{}, {"type": "text"}, {"type": "text", "text": 1}, {"type": None, "text": "x"}, {"text": "x"}]
)
def test_what_only_looks_like_a_text_part_stays_whole(value: dict[str, Any]) -> None:
    part = split_part(value)
    assert (orjson.loads(part.skeleton), part.text, part.rank) == (value, None, RANK_FINAL)


@pytest.mark.parametrize(
    ("state", "preliminary", "rank", "waits"),
    [
        ("input-streaming", None, 0, "tool"),
        ("input-available", None, 1, "tool"),
        ("approval-requested", None, 2, "approval"),
        ("approval-responded", None, 3, "tool"),
        ("output-available", True, 4, "tool"),
        ("output-available", False, 5, ""),
        ("output-available", "yes", 5, ""),
        ("output-error", None, 5, ""),
        ("output-denied", None, 5, ""),
        ("something-new", None, 5, ""),
        (None, None, 5, ""),
        (7, None, 5, ""),
    ],
)
@pytest.mark.parametrize("kind", ["tool-search", "dynamic-tool"])
def test_a_tool_part_waits_until_its_state_is_final(
    kind: str, state: Any, preliminary: Any, rank: int, waits: str
) -> None:
    value = {"type": kind, "toolCallId": "c1", "state": state}
    if preliminary is not None:
        value["preliminary"] = preliminary
    part = split_part(value)
    assert (part.rank, part.waits, part.call) == (rank, waits, "c1" if waits else "")


def test_a_tool_part_without_a_call_id_waits_for_nothing() -> None:
    assert split_part({"type": "tool-x", "state": "input-available"}).call == ""
    assert split_part({"type": "tool-x", "state": "input-available", "toolCallId": 5}).call == ""


@given(parts)
def test_parts_come_back_equal_with_their_keys_in_order(values: list[Any]) -> None:
    text = orjson.dumps(values).decode()
    split = split_parts(text)
    assert "[" + ",".join(join_part(part.skeleton, part.text) for part in split) + "]" == text


def test_ranks_go_up() -> None:
    states = [
        "input-streaming",
        "input-available",
        "approval-requested",
        "approval-responded",
        "output-available",
    ]
    ranks = [tool_rank(state) for state in states]
    assert ranks == sorted(set(ranks))
    assert tool_rank("approval-responded") < tool_rank("output-available", preliminary=True) < RANK_FINAL
    assert tool_rank("input-available", preliminary=True) == tool_rank("input-available")
    assert tool_rank(None) == tool_rank("unheard-of") == RANK_FINAL


# ------------------------------------------------------------------ put
def test_a_put_sorts_fields_by_where_they_are_kept() -> None:
    command = put(
        "m", "m1",
        {"role": "user", "content": "é", "metadata": {"b": 1, "a": 2}, "parent_id": None, "parts": [], "tool_result_ids": ["a", "b", "a"]},
        revision=0, status="streaming", position="5",
    )  # fmt: skip
    assert command == Put(
        "m", "m1", 0, "streaming", {"role": "user", "parent_id": False}, {"content": ("é", 1), "metadata": ('{"b":1,"a":2}', 13)},
        [], ["a", "b"], None, None, "5",
    )  # fmt: skip


def test_null_clears_and_absent_stays() -> None:
    command = put("m", "m1", {"content": None, "metadata": None, "parts": None, "tool_result_ids": None})
    assert (command.row, command.body, command.parts, command.results) == (
        {},
        {"content": False, "metadata": False},
        False,
        None,
    )
    assert put("m", "m1", {}) == Put("m", "m1")
    assert put("c", "", {"archived": False, "title": ""}).row == {"archived": False, "title": ""}


@pytest.mark.parametrize(
    ("fields", "rank"),
    [
        ({}, None),
        ({"state": None}, None),
        ({"output": 1}, None),
        ({"preliminary": True}, None),
        ({"state": "input-available"}, 1),
        ({"state": "output-available"}, 5),
        ({"state": "output-available", "preliminary": True}, 4),
        ({"state": "output-available", "preliminary": False}, 5),
        ({"state": "output-error", "preliminary": True}, 4),
    ],
)
def test_a_tool_result_is_ranked_by_its_state(fields: dict[str, Any], rank: int | None) -> None:
    assert put("t", "t1", fields).rank == rank


@given(json_values)
def test_json_fields_become_compact_text(value: Any) -> None:
    body = put("t", "t1", {"output": value}).body["output"]
    if value is None:
        assert body is False
    else:
        text, units = body  # type: ignore[misc]
        assert (orjson.dumps(value).decode(), utf16_units(text)) == (text, units)


# ------------------------------------------------------------------ on the wire
def wire(command: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(command))


def test_what_a_command_does_not_say_is_not_sent() -> None:
    assert wire(Put("m", "m1")) == {"op": "put", "k": "m", "id": "m1"}
    assert wire(Append("m", "m1", 0, "", 0)) == {
        "op": "append",
        "k": "m",
        "id": "m1",
        "offset": 0,
        "text": "",
        "units": 0,
    }


def test_what_it_says_is_sent_even_where_it_looks_like_nothing() -> None:
    sent = wire(put("m", "m1", {"parts": None, "content": None}, revision=0))
    assert (sent["rev"], sent["parts"], sent["body"]) == (0, False, {"content": False})
    assert wire(put("m", "m1", {"parts": []}))["parts"] == []
    assert wire(Append("m", "m1", 0, "", 0, part=0, rev=0))["part"] == 0
    part = wire(SetPart("m", "m1", 0, split_part({"type": "x"})))["part"]
    assert part == ['{"type":"x"}', None, 0, RANK_FINAL, "", ""]
