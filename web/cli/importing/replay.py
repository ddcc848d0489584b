"""A chat sent as a streaming writer would: each message in its turn, replies about a hundred characters at a time.

    user, system, tool      saved whole
    assistant               stub → content, and texts of parts, in appends → each tool call: input-streaming, input-available
                            → its results, linked → output-available → complete

Every step is one that may be repeated: sent twice, or by two at once, a chat comes out the same. A reply that an earlier,
broken import left interrupted is gone on with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from blotter_client import Blotter, Conversation, Pace, Reply, text
from blotter_client.formats.plan import PlannedMessage, PlannedResult, compact, is_final
from blotter_client.types import MessageFields, ToolResultFields

from web.cli.importing.files import Chat

#: UTF-16 units of one append.
PIECE: Final = 100
PACE: Final = Pace(batch=PIECE, most=PIECE, waiting=50 * PIECE)
#: Members of a tool part that come with its outcome, not with its input.
_OUTCOME: Final = frozenset({"output", "errorText", "preliminary"})


class Stopped(KeyboardInterrupt):
    """The operator ended the import: replies under way are marked as interrupted."""


class Throttle:
    """Holds a writer to ``rate`` characters a second; None: as fast as it goes."""

    def __init__(self, rate: float | None, stop: threading.Event) -> None:
        self._rate = rate
        self._stop = stop
        self._next_s = time.monotonic()

    def spend(self, characters: int) -> None:
        """Wait until so many characters may go out. Raises Stopped."""
        wait_s = 0.0
        if self._rate is not None:
            self._next_s = max(self._next_s, time.monotonic()) + characters / self._rate
            wait_s = self._next_s - time.monotonic()
        if self._stop.wait(wait_s) if wait_s > 0 else self._stop.is_set():
            raise Stopped


def send(
    blotter: Blotter, chat: Chat, throttle: Throttle, progress: Callable[[PlannedMessage], None]
) -> None:
    """Send all of ``chat``; ``progress`` is told of each message that is acknowledged. Raises BlotterError, Stopped."""
    conversation = blotter.conversation(chat.id)
    if chat.title is not None or chat.metadata is not None:
        conversation.update(title=chat.title, metadata=chat.metadata)
    parent: str | None = None
    for message in chat.planned:
        throttle.spend(0)
        if message.role == "assistant":
            _stream(conversation, message, parent, throttle)
        else:
            throttle.spend(message.characters)
            conversation.save_user_message(message.id, **_fields(message, parent))
            for result in message.results:
                conversation.save_tool_result(result.id, **_result(result))
        parent = message.id
        progress(message)


def _stream(
    conversation: Conversation, message: PlannedMessage, parent: str | None, throttle: Throttle
) -> None:
    begin = None if message.content is None else ""
    with conversation.reply(
        message.id,
        parent_id=parent,
        content=begin,
        metadata=message.metadata,
        pace=PACE,
        on_conflict="reopen",
    ) as reply:
        _append(message.content or "", reply.append, throttle)
        parts = message.parts or ()
        for index, part in enumerate(parts):
            _stream_part(reply, index, part, throttle)
        reply.flush()
        for result in message.results:
            throttle.spend(len(compact(result.output)))
            conversation.save_tool_result(result.id, **_result(result))
        for index, part in enumerate(parts):
            if part != _input_part(part) and _is_tool(part):
                reply.set_part(index, part)


def _stream_part(reply: Reply, index: int, part: Mapping[str, Any], throttle: Throttle) -> None:
    content = part.get("text")
    if part.get("type") in ("text", "reasoning") and isinstance(content, str):
        begin = {**part, "text": "", **({"state": "streaming"} if "state" in part else {})}
        reply.set_part(index, begin)
        _append(content, lambda piece: reply.append_part(index, piece), throttle)
        if begin.get("state") != part.get("state"):
            reply.set_part(index, part)
    elif _is_tool(part):
        names = ("type", "toolCallId", "toolName")
        reply.set_part(
            index, {**{name: part[name] for name in names if name in part}, "state": "input-streaming"}
        )
        reply.flush()
        throttle.spend(len(compact(part.get("input"))))
        reply.set_part(index, _input_part(part))
    else:
        reply.set_part(index, part)
    reply.flush()


def _append(content: str, append: Callable[[str], None], throttle: Throttle) -> None:
    while content:
        piece, content = text.split(content, PIECE)
        throttle.spend(len(piece))
        append(piece)


def _is_tool(part: Mapping[str, Any]) -> bool:
    kind = part.get("type")
    return isinstance(kind, str) and (kind == "dynamic-tool" or kind.startswith("tool-"))


def _input_part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A tool's part before its outcome."""
    if not is_final(part.get("state")):
        return dict(part)
    return {
        name: "input-available" if name == "state" else value
        for name, value in part.items()
        if name not in _OUTCOME
    }


def _fields(message: PlannedMessage, parent: str | None) -> MessageFields:
    fields: MessageFields = {"role": message.role, "content": message.content, "parent_id": parent}
    if message.parts is not None:
        fields["parts"] = message.parts
    if message.metadata is not None:
        fields["metadata"] = message.metadata
    if message.links:
        fields["tool_result_ids"] = message.links
    return fields


def _result(result: PlannedResult) -> ToolResultFields:
    fields: ToolResultFields = {
        "message_id": result.message_id,
        "tool_call_id": result.tool_call_id,
        "tool_name": result.tool_name,
        "state": result.state,
        "input": result.input,
        "output": result.output,
    }
    if result.error_text is not None:
        fields["error_text"] = result.error_text
    return fields
