"""What was sent against what is there: every message, result, argument, link and their order; differences in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from blotter_client import Blotter
from blotter_client.formats.plan import PlannedMessage, PlannedResult, compact, same

from web.cli.importing.files import Chat

_SHOWN: Final = 40
_PAGE: Final = 5000
_NOTHING: Final = object()


@dataclass(frozen=True)
class Mismatch:
    """One difference. ``where``: a path such as ``messages[3].tool_calls[0].function.arguments``."""

    conversation: str
    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.conversation} {self.where}\n  expected {self.expected}\n  found    {self.found}"


def read(blotter: Blotter, conversation_id: str) -> dict[str, Any]:
    """All of the conversation, whatever its length. Raises BlotterError."""
    conversation = blotter.conversation(conversation_id)
    view: dict[str, Any] = dict(conversation.read(limit=_PAGE, branches=True))
    while "before" in view:
        older: dict[str, Any] = dict(conversation.read(limit=_PAGE, branches=True, before=view.pop("before")))
        view["messages"] = older["messages"] + view["messages"]
        for name in ("toolResults", "artifacts"):
            known = {item["id"] for item in view[name]}
            view[name] = [item for item in older[name] if item["id"] not in known] + view[name]
        if "before" in older:
            view["before"] = older["before"]
    return view


def differences(chat: Chat, view: Mapping[str, Any]) -> list[Mismatch]:
    """How ``view`` differs from ``chat``, the first difference of each thing compared; empty where not at all."""
    return [
        Mismatch(chat.id, where, expected, found)
        for where, left, right in _pairs(chat, view)
        for where, expected, found in _first(where, left, right)
    ]


def _pairs(chat: Chat, view: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(where, expected, found) of all that has to be equal."""
    yield "title", chat.title, view["conversation"]["title"]
    yield "metadata", chat.metadata, view["conversation"]["metadata"]
    yield "order", [message.id for message in chat.planned], [message["id"] for message in view["messages"]]
    yield "messages", list(chat.source), chat.restored(view)
    found = {message["id"]: message for message in view["messages"]}
    for planned in chat.planned:
        if planned.id in found:
            yield f"saved[{planned.id}]", _expected_message(planned), _found_message(found[planned.id])
    results = {result["id"]: result for result in view["toolResults"]}
    expected = {result.id: result for message in chat.planned for result in message.results}
    yield "toolResults", sorted(expected), sorted(results)
    for result_id in expected.keys() & results.keys():
        where = f"toolResults[{result_id}]"
        yield where, _expected_result(expected[result_id]), _found_result(results[result_id])
    yield "artifacts", [], [artifact["id"] for artifact in view["artifacts"]]


def _expected_message(planned: PlannedMessage) -> dict[str, Any]:
    own = [result.id for result in planned.results if result.message_id == planned.id]
    return {
        "role": planned.role,
        "status": "complete",
        "content": planned.content,
        "parts": None if planned.parts is None else [compact(part) for part in planned.parts],
        "metadata": planned.metadata,
        "toolResultIds": list(dict.fromkeys((*own, *planned.links))),
    }


def _found_message(message: Mapping[str, Any]) -> dict[str, Any]:
    names = ("role", "status", "content", "parts", "metadata", "toolResultIds")
    found = {name: message[name] for name in names}
    # As text: the order of names counts too.
    found["parts"] = None if found["parts"] is None else [compact(part) for part in found["parts"]]
    return found


def _expected_result(result: PlannedResult) -> dict[str, Any]:
    return {
        "messageId": result.message_id,
        "toolCallId": result.tool_call_id,
        "toolName": result.tool_name,
        "state": result.state,
        "status": "complete",
        "input": result.input,
        "output": result.output,
        "errorText": result.error_text,
    }


def _found_result(result: Mapping[str, Any]) -> dict[str, Any]:
    names = ("messageId", "toolCallId", "toolName", "state", "status", "input", "output", "errorText")
    return {name: result[name] for name in names}


def _first(where: str, left: Any, right: Any) -> Iterator[tuple[str, str, str]]:
    """The first difference between two JSON values, if any: (path, what was expected, what was found)."""
    if left is not _NOTHING and right is not _NOTHING and same(left, right):
        return
    if isinstance(left, dict) and isinstance(right, dict):
        pairs = [
            (f"{where}.{name}", left.get(name, _NOTHING), right.get(name, _NOTHING))
            for name in {**left, **right}
        ]
    elif isinstance(left, list) and isinstance(right, list):
        count = max(len(left), len(right))
        pairs = [
            (
                f"{where}[{index}]",
                left[index] if index < len(left) else _NOTHING,
                right[index] if index < len(right) else _NOTHING,
            )
            for index in range(count)
        ]
    else:
        yield where, *_excerpts(left, right)
        return
    for path, one, other in pairs:
        for found in _first(path, one, other):
            yield found
            return


def _excerpts(left: Any, right: Any) -> tuple[str, str]:
    """Both values around where they first differ."""
    if isinstance(left, str) and isinstance(right, str):
        at = next(
            (index for index, (one, other) in enumerate(zip(left, right, strict=False)) if one != other),
            min(len(left), len(right)),
        )
        begin = max(0, at - _SHOWN // 2)
        return _excerpt(left, begin, at), _excerpt(right, begin, at)
    return _shown(left), _shown(right)


def _excerpt(text: str, begin: int, at: int) -> str:
    dots = "…" if begin else ""
    more = "…" if len(text) > begin + _SHOWN else ""
    return f"{dots}{text[begin : begin + _SHOWN]!r}{more} (from character {at} of {len(text)})"


def _shown(value: Any) -> str:
    if value is _NOTHING:
        return "nothing"
    text = compact(value)
    return text if len(text) <= 2 * _SHOWN else f"{text[: 2 * _SHOWN]}…"
