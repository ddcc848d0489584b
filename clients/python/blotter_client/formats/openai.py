"""OpenAI chat messages, saved so that a frontend shows them, and restored so that nothing differs.

    role                    role
    content: a text         content
    content: a list         parts: {"type": "text"} as they are, others as {"type": "data-openai", "data": …}
    tool_calls              parts `tool-{name}`: the arguments parsed as `input`; the arguments' text is kept beside it
                            (callProviderMetadata.blotter.arguments) where writing the input anew would not give it
    a tool's answer         a tool result, linked into the message that called, with `output` in the caller's part;
                            and the message of role "tool" itself, linked to that result
    tool_call_id            the toolCallId of that result
    anything else           metadata.openai

A tool call id may come again in a later message: an answer belongs to the latest call of that id before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from blotter_client.formats.plan import (
    PlannedMessage,
    PlannedResult,
    applied,
    compact,
    difference,
    parsed,
    result_id,
    role_of,
    short,
)
from blotter_client.types import Json

#: Where the metadata keeps what the fields do not carry.
KEY: Final = "openai"


@dataclass
class _Call:
    """A tool call in the plan: where its part is, and what answers it."""

    caller: int
    part: int
    call_id: str
    name: str | None
    input: Json
    results: list[PlannedResult] = field(default_factory=list)


def plan(source: Sequence[Mapping[str, Any]]) -> list[PlannedMessage]:
    """What to save of ``source``, in order. Ids come from the place: the same list gives the same plan."""
    ids = [f"m{number:05d}" for number in range(1, len(source) + 1)]
    planned: list[PlannedMessage] = []
    latest: dict[str, _Call] = {}
    calls: dict[int, list[_Call]] = {}
    taken: set[str] = set()
    for number, message in enumerate(source):
        made = _message(ids[number], message)
        calls[number] = _calls(number, made, message)
        latest |= {call.call_id: call for call in reversed(calls[number])}
        call_id = short(message.get("tool_call_id"))
        if made.role == "tool" and call_id is not None:
            made, result = _answer(made, message, call_id, latest.get(call_id), taken, ids)
            taken.add(result.id)
        planned.append(made)
    planned = [_with_outputs(made, calls[number]) for number, made in enumerate(planned)]
    results = {result.id: {"toolCallId": result.tool_call_id} for made in planned for result in made.results}
    return [_with_rest(made, message, results) for made, message in zip(planned, source, strict=True)]


def restore(view: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The list that was planned, from what Blotter shows of the conversation (`read()`)."""
    results = {result["id"]: result for result in view["toolResults"]}
    return [_restored(message, results) for message in view["messages"]]


# ---------------------------------------------------------------------- there
def _message(message_id: str, message: Mapping[str, Any]) -> PlannedMessage:
    content = message.get("content")
    parts: list[Mapping[str, Any]] = []
    if isinstance(content, list):
        parts += [_part(element) for element in content]
    for number, call in enumerate(_listed(message.get("tool_calls"))):
        function = _object(call.get("function"))
        arguments = function.get("arguments")
        part: dict[str, Any] = {
            "type": f"tool-{function.get('name', '')}",
            "toolCallId": call.get("id") if isinstance(call.get("id"), str) else f"call{number}",
            "state": "input-available",
            "input": parsed(arguments) if isinstance(arguments, str) else None,
        }
        if isinstance(arguments, str) and _written(part["input"]) != arguments:
            part["callProviderMetadata"] = {"blotter": {"arguments": arguments}}
        parts.append(part)
    return PlannedMessage(
        id=message_id,
        role=role_of(message.get("role")),
        content=content if isinstance(content, str) else None,
        parts=tuple(parts) if parts else None,
    )


def _part(element: object) -> Mapping[str, Any]:
    if isinstance(element, dict) and element.keys() == {"type", "text"}:
        plain = element["type"] == "text" and isinstance(element["text"], str)
        return element if plain else {"type": "data-openai", "data": element}
    return {"type": "data-openai", "data": element}


def _calls(number: int, made: PlannedMessage, message: Mapping[str, Any]) -> list[_Call]:
    listed = _listed(message.get("tool_calls"))
    parts = made.parts or ()
    first = len(parts) - len(listed)
    return [
        _Call(
            number, index, part["toolCallId"], short(_object(call.get("function")).get("name")), part["input"]
        )
        for call, (index, part) in zip(listed, list(enumerate(parts))[first:], strict=True)
    ]


def _answer(
    made: PlannedMessage,
    message: Mapping[str, Any],
    call_id: str,
    call: _Call | None,
    taken: set[str],
    ids: Sequence[str],
) -> tuple[PlannedMessage, PlannedResult]:
    """A message of role "tool": its result goes to who called, or stays with it."""
    caller = made.id if call is None else ids[call.caller]
    result = PlannedResult(
        id=result_id(caller, call_id, taken),
        message_id=caller,
        tool_call_id=call_id,
        tool_name=short(message.get("name")) if call is None else call.name,
        state="output-available",
        input=None if call is None else call.input,
        output=message.get("content"),
    )
    if call is None:
        return replace(made, results=(result,), links=(result.id,)), result
    call.results.append(result)
    return replace(made, links=(result.id,)), result


def _with_outputs(made: PlannedMessage, calls: Sequence[_Call]) -> PlannedMessage:
    """``made`` with its calls' answers: as results, and the first of each in the call's part."""
    parts = list(made.parts or ())
    for call in calls:
        if call.results:
            parts[call.part] = {
                **parts[call.part],
                "state": "output-available",
                "output": call.results[0].output,
            }
    results = tuple(result for call in calls for result in call.results)
    return replace(made, parts=tuple(parts) or made.parts, results=made.results + results)


def _with_rest(
    made: PlannedMessage, message: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]
) -> PlannedMessage:
    """``made`` with all that its fields do not carry in its metadata."""
    shown = {"role": made.role, "content": made.content, "parts": made.parts, "toolResultIds": made.links}
    rest = difference(_guess(shown, results), message)
    return replace(made, metadata={KEY: rest} if rest else None)


# ---------------------------------------------------------------------- and back
def _restored(message: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    metadata = message.get("metadata")
    change = metadata.get(KEY, {}) if isinstance(metadata, dict) else {}
    return applied(_guess(message, results), change)


def _guess(message: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The OpenAI message that the fields of a stored one suggest."""
    parts = message.get("parts") or ()
    listed = [_element(part) for part in parts if _type(part) in ("text", "data-openai")]
    guess: dict[str, Any] = {"role": message["role"], "content": listed or message["content"]}
    calls = [_tool_call(part) for part in parts if _type(part).startswith("tool-")]
    if calls:
        guess["tool_calls"] = calls
    if message["role"] == "tool" and message["toolResultIds"]:
        result = results.get(message["toolResultIds"][0])
        if result is not None:
            guess["tool_call_id"] = result["toolCallId"]
    return guess


def _type(part: Mapping[str, Any]) -> str:
    return str(part.get("type", ""))


def _element(part: Mapping[str, Any]) -> Json:
    return part.get("data") if _type(part) == "data-openai" else dict(part)


def _tool_call(part: Mapping[str, Any]) -> dict[str, Any]:
    kept = part.get("callProviderMetadata", {}).get("blotter", {})
    arguments = kept["arguments"] if "arguments" in kept else _written(part.get("input"))
    function = {"name": _type(part).removeprefix("tool-"), "arguments": arguments}
    return {"id": part.get("toolCallId"), "type": "function", "function": function}


def _written(value: Json) -> str | None:
    """The arguments that ``value`` was most likely read from. A text was no JSON, and is its own."""
    return value if isinstance(value, str) or value is None else compact(value)


def _listed(value: object) -> list[Mapping[str, Any]]:
    """The tool calls among the elements of ``value``; none where one of them is no object."""
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        return value
    return []


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
