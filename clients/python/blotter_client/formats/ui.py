"""AI SDK `UIMessage`s: stored as they are, for Blotter's fields are theirs. Restored so that nothing differs.

id         the id, where Blotter takes it and it stands once in the list; else one made from the place
role, parts, metadata      as they are
a tool part with an output (or error)      besides, a tool result linked into the message
anything else              metadata.uiMessage, together with the message's own metadata
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from blotter_client.formats.plan import (
    PlannedMessage,
    PlannedResult,
    applied,
    difference,
    is_final,
    is_id,
    result_id,
    role_of,
    short,
)
from blotter_client.types import ToolState

#: Where the metadata keeps what the fields do not carry.
KEY: Final = "uiMessage"


def plan(source: Sequence[Mapping[str, Any]]) -> list[PlannedMessage]:
    """What to save of ``source``, in order; the same list gives the same plan."""
    taken: set[str] = set()
    seen = {message.get("id") for message in source if is_id(message.get("id"))}
    planned = []
    for number, message in enumerate(source, 1):
        message_id = message.get("id")
        if not isinstance(message_id, str) or not is_id(message_id) or message_id in taken:
            message_id = f"m{number:05d}"
            while message_id in seen or message_id in taken:
                message_id += "~"
        taken.add(message_id)
        planned.append(_message(message_id, message))
    return planned


def restore(view: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The list that was planned, from what Blotter shows of the conversation (`read()`)."""
    return [_restored(message) for message in view["messages"]]


def _message(message_id: str, message: Mapping[str, Any]) -> PlannedMessage:
    role = role_of(message.get("role"))
    parts = message.get("parts")
    listed = (
        tuple(parts) if isinstance(parts, list) and all(isinstance(part, dict) for part in parts) else None
    )
    metadata = message.get("metadata")
    guess = _guess({"id": message_id, "role": role, "parts": listed, "metadata": metadata})
    rest = difference(guess, message)
    if rest or (isinstance(metadata, dict) and KEY in metadata):
        # All of it is rest then, so that nobody has to ask whose `uiMessage` this is.
        rest = difference(
            _guess({"id": message_id, "role": role, "parts": listed, "metadata": None}), message
        )
        metadata = {KEY: rest}
    return PlannedMessage(
        id=message_id,
        role=role,
        parts=listed,
        metadata=metadata,
        results=tuple(_results(message_id, listed or ())),
    )


def _results(message_id: str, parts: Sequence[Mapping[str, Any]]) -> list[PlannedResult]:
    results: list[PlannedResult] = []
    for part in parts:
        kind, call_id, state = part.get("type"), short(part.get("toolCallId")), part.get("state")
        if not isinstance(kind, str) or call_id is None or not is_final(state) or part.get("preliminary"):
            continue
        if kind != "dynamic-tool" and not kind.startswith("tool-"):
            continue
        name = part.get("toolName") if kind == "dynamic-tool" else kind.removeprefix("tool-")
        error = part.get("errorText")
        results.append(
            PlannedResult(
                id=result_id(message_id, call_id, [result.id for result in results]),
                message_id=message_id,
                tool_call_id=call_id,
                tool_name=short(name),
                state=cast(ToolState, state),
                input=part.get("input"),
                output=part.get("output"),
                error_text=error if isinstance(error, str) else None,
            )
        )
    return results


def _restored(message: Mapping[str, Any]) -> dict[str, Any]:
    metadata = message.get("metadata")
    if isinstance(metadata, dict) and KEY in metadata:
        return applied(_guess({**message, "metadata": None}), metadata[KEY])
    return _guess(message)


def _guess(message: Mapping[str, Any]) -> dict[str, Any]:
    guess = {"id": message["id"], "role": message["role"], "parts": list(message["parts"] or ())}
    return guess if message["metadata"] is None else {**guess, "metadata": message["metadata"]}
