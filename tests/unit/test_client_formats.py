"""Chats in the formats of others: saved and read back, nothing differs, however odd they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from blotter_client.formats import openai, ui
from blotter_client.formats.plan import PlannedMessage, is_id, keepable, parsed, same
from hypothesis import given, strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="ascii"), max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
CALL_ID = st.sampled_from(["call_1", "call_2", "c 3", "", "x" * 300]) | JSON
ARGUMENTS = (
    st.builds(json.dumps, JSON)
    | st.builds(lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False), JSON)
    | st.sampled_from(['{"a":1,"a":2}', '{"n":99999999999999999999}', "{not json", "", '{"x":NaN}', '{"e":1E2}', '{"s":"\\ud83d"}'])
    | JSON
)  # fmt: skip
CALL = JSON | st.fixed_dictionaries(
    {"id": CALL_ID, "type": st.just("function"), "function": st.fixed_dictionaries({"name": st.text(max_size=5) | JSON, "arguments": ARGUMENTS})},
    optional={"index": JSON},
)  # fmt: skip
CONTENT = (
    st.none()
    | st.text(max_size=20)
    | st.lists(
        st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=5)}) | JSON, max_size=3
    )
    | JSON
)
OPENAI = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "assistant", "tool", "tool", "function"]) | JSON},
        optional={
            "content": CONTENT, "tool_calls": st.lists(CALL, max_size=3) | JSON, "tool_call_id": CALL_ID, "name": JSON,
            "refusal": JSON, "metadata": JSON, "parts": JSON,
        },
    ),
    max_size=6,
)  # fmt: skip
PART = (
    st.fixed_dictionaries({"type": st.sampled_from(["text", "reasoning", "file", "data-x"])}, optional={"text": JSON, "state": JSON})
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["tool-a", "dynamic-tool"]), "toolCallId": CALL_ID, "state": st.sampled_from(["input-streaming", "output-available", "output-error"]) | JSON},
        optional={"input": JSON, "output": JSON, "errorText": JSON, "toolName": JSON, "preliminary": st.booleans()},
    )
)  # fmt: skip
UI = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system"]) | JSON},
        optional={
            "id": st.sampled_from(["a", "b", "m00001", "m00002", "bad id"]) | JSON,
            "parts": st.lists(PART, max_size=3) | JSON,
            "metadata": JSON | st.just({"uiMessage": {"set": {}}}),
            "createdAt": JSON,
        },
    ),
    max_size=6,
)  # fmt: skip


def shown(planned: Sequence[PlannedMessage]) -> dict[str, Any]:
    """What Blotter shows of a conversation saved after this plan, as far as the formats look."""
    results = [result for message in planned for result in message.results]
    view = {
        "messages": [
            {
                "id": message.id,
                "role": message.role,
                "content": message.content,
                "parts": None if message.parts is None else list(message.parts),
                "metadata": message.metadata,
                "toolResultIds": [
                    *(result.id for result in message.results if result.message_id == message.id),
                    *(link for link in message.links if link not in {r.id for r in message.results}),
                ],
            }
            for message in planned
        ],
        "toolResults": [{"id": result.id, "toolCallId": result.tool_call_id} for result in results],
    }
    return json.loads(json.dumps(view))  # type: ignore[no-any-return]


def check_plan(planned: Sequence[PlannedMessage]) -> None:
    ids = [message.id for message in planned]
    results = [result for message in planned for result in message.results]
    names = [result.id for result in results]
    assert len(set(ids)) == len(ids)
    assert len(set(names)) == len(names)
    assert all(map(is_id, ids + names))
    assert all(result.message_id in ids for result in results)
    assert all(link in names for message in planned for link in message.links)


@given(OPENAI)
def test_openai_messages_come_back_exactly(source: list[dict[str, Any]]) -> None:
    planned = openai.plan(source)
    check_plan(planned)
    assert planned == openai.plan(json.loads(json.dumps(source))), (
        "the plan must not depend on more than the content"
    )
    assert same(openai.restore(shown(planned)), source)


@given(UI)
def test_ui_messages_come_back_exactly(source: list[dict[str, Any]]) -> None:
    planned = ui.plan(source)
    check_plan(planned)
    assert same(ui.restore(shown(planned)), source)


@pytest.mark.parametrize("odd", [None, 1, [], {}, "unknown", ["output-available"], {"state": 1}])
def test_a_part_may_hold_anything_anywhere(odd: Any) -> None:
    for name in ("type", "state", "toolCallId", "toolName", "preliminary", "text", "errorText"):
        part = {"type": "tool-x", "toolCallId": "c", "state": "output-available", "output": 1, name: odd}
        source = [{"id": "a", "role": "assistant", "parts": [part]}]
        assert same(ui.restore(shown(ui.plan(source))), source)


def call(call_id: str, arguments: str, name: str = "find") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(call_id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_ordinary_messages_need_no_metadata() -> None:
    source = [
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
        {"role": "assistant", "content": None, "tool_calls": [call("c1", '{"q":"é"}')]},
        tool("c1", "found"),
        {"role": "assistant", "content": "done"},
    ]
    planned = openai.plan(source)
    assert [message.metadata for message in planned] == [None] * 5
    caller, answer = planned[2], planned[3]
    assert caller.parts == (
        {
            "type": "tool-find",
            "toolCallId": "c1",
            "state": "output-available",
            "input": {"q": "é"},
            "output": "found",
        },
    )
    (result,) = caller.results
    assert (result.id, result.message_id, result.tool_name, result.output) == (
        "m00003.c1",
        "m00003",
        "find",
        "found",
    )
    assert answer.links == ("m00003.c1",)


@pytest.mark.parametrize(
    "arguments", ['{"a": 1}', '{"b":2,"a":1,"b":3}', '{"n":12345678901234567890}', "{cut", "", '{"x":1.0e2}']
)
def test_arguments_are_kept_byte_for_byte(arguments: str) -> None:
    source = [{"role": "assistant", "content": None, "tool_calls": [call("c", arguments)]}]
    planned = openai.plan(source)
    assert keepable(planned[0].parts)
    restored = openai.restore(shown(planned))
    assert restored[0]["tool_calls"][0]["function"]["arguments"] == arguments
    assert planned[0].metadata is None


def test_an_answer_belongs_to_the_latest_call_of_its_id_and_a_second_one_is_kept_too() -> None:
    source = [
        {"role": "assistant", "content": None, "tool_calls": [call("c", "{}")]},
        tool("c", "one"),
        {"role": "assistant", "content": None, "tool_calls": [call("c", "{}")]},
        tool("c", "two"),
        tool("c", "three"),
        tool("never called", "four"),
    ]
    planned = openai.plan(source)
    found = {
        result.id: (result.message_id, result.output) for message in planned for result in message.results
    }
    assert found == {
        "m00001.c": ("m00001", "one"),
        "m00003.c": ("m00003", "two"),
        "m00003.c~2": ("m00003", "three"),
        planned[5].links[0]: ("m00006", "four"),
    }
    assert same(openai.restore(shown(planned)), source)


def test_a_ui_message_keeps_its_id_unless_another_has_it() -> None:
    parts: list[Mapping[str, Any]] = [{"type": "text", "text": "x"}]
    source = [
        {"id": "m00002", "role": "user", "parts": parts},
        {"id": "m00002", "role": "assistant", "parts": parts},
        {"id": "no id", "role": "user", "parts": parts},
    ]
    planned = ui.plan(source)
    assert [message.id for message in planned] == ["m00002", "m00002~", "m00003"]
    assert same(ui.restore(shown(planned)), source)


@given(st.text(st.characters(codec="utf-8"), max_size=10) | st.builds(json.dumps, JSON))
def test_what_is_parsed_can_be_kept(text: str) -> None:
    value = parsed(text)
    assert value == text or keepable(value)
