"""Records as the API shows them. JSON fields are spliced in as they are kept: never parsed, never written anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import orjson
from flask import Response

from models.core.commands import ItemKind, ItemOutcome
from models.core.records import Artifact, ArtifactVersion, Conversation, Message, ToolResult
from models.pipeline.views import ConversationView, Item, SaveResult

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: What each kind is called in answers, and its list.
NAMES: Final[Mapping[ItemKind, str]] = MappingProxyType(
    {
        "c": "conversation",
        "m": "message",
        "t": "toolResult",
        "a": "artifact",
    }
)


def respond(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """``value`` as a JSON response that no cache keeps; a reader with an entity tag says otherwise in ``headers``."""
    response = Response(orjson.dumps(value), status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    if headers:
        response.headers.update(headers)
    return response


def instant(ms: int | None) -> str | None:
    """ISO 8601, UTC, to the millisecond."""
    if ms is None:
        return None
    return (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")[:-6] + "Z"


def _json(text: str | None) -> Any:
    return None if text is None else orjson.Fragment(text)


def conversation(item: Item[Conversation]) -> dict[str, Any]:
    """A conversation's own fields."""
    record = item.record
    return {
        "id": record.id,
        "title": record.title,
        "metadata": _json(record.metadata),
        "archived": record.archived,
        "headId": record.head_id,
        "lastMessageAt": instant(record.last_message_ms),
        **_common(record, item.stored),
    }


def message(item: Item[Message]) -> dict[str, Any]:
    """A message, with its links."""
    record = item.record
    return {
        "id": record.id,
        "role": record.role,
        "content": record.content,
        "parts": _json(record.parts),
        "metadata": _json(record.metadata),
        "parentId": record.parent_id,
        "toolResultIds": record.tool_result_ids,
        "artifactIds": record.artifact_ids,
        "status": record.status,
        "statusReason": record.status_reason,
        "position": record.position,
        **_common(record, item.stored),
    }


def tool_result(item: Item[ToolResult]) -> dict[str, Any]:
    """A tool's input and output."""
    record = item.record
    return {
        "id": record.id,
        "messageId": record.message_id,
        "toolCallId": record.id if record.tool_call_id is None else record.tool_call_id,
        "toolName": record.tool_name,
        "state": record.state,
        "input": _json(record.input),
        "output": _json(record.output),
        "errorText": record.error_text,
        "status": record.status,
        "statusReason": record.status_reason,
        "position": record.position,
        **_common(record, item.stored),
    }


def artifact(item: Item[Artifact]) -> dict[str, Any]:
    """An artifact with its latest content; ``versionNumber`` counts complete contents."""
    record = item.record
    return {
        "id": record.id,
        "messageId": record.message_id,
        "kind": record.kind,
        "title": record.title,
        "language": record.language,
        "mediaType": record.media_type,
        "content": record.content,
        "metadata": _json(record.metadata),
        "versionNumber": record.head_number,
        "status": record.status,
        "statusReason": record.status_reason,
        "position": record.position,
        **_common(record, item.stored),
    }


def artifact_version(record: ArtifactVersion) -> dict[str, Any]:
    """One complete content an artifact once had."""
    return {
        "number": record.number,
        "content": record.content,
        "hash": record.hash,
        "version": record.version,
        "createdAt": instant(record.created_ms),
    }


def _common(record: Conversation | Message | ToolResult | Artifact, stored: bool) -> dict[str, Any]:
    common = {
        "revision": record.revision,
        "version": record.version,
        "createdAt": instant(record.created_ms),
        "updatedAt": instant(record.updated_ms),
        "stored": stored,
    }
    if record.deleted_ms is not None:
        common["deletedAt"] = instant(record.deleted_ms)
    return common


RENDERERS: Final[Mapping[ItemKind, Callable[[Any], dict[str, Any]]]] = MappingProxyType(
    {
        "c": conversation,
        "m": message,
        "t": tool_result,
        "a": artifact,
    }
)


def view(shown: ConversationView) -> dict[str, Any]:
    """A whole conversation."""
    body: dict[str, Any] = {
        "conversation": conversation(shown.conversation),
        "messages": [message(item) for item in shown.messages],
        "toolResults": [tool_result(item) for item in shown.tool_results],
        "artifacts": [artifact(item) for item in shown.artifacts],
        "inFlight": shown.in_flight,
        "version": shown.version,
        "bufferEpoch": shown.buffer_epoch,
    }
    if shown.partial:
        body["partial"] = True
    if shown.more:
        body["before"] = shown.messages[0].record.position
    return body


def saved(item_id: str, outcome: ItemOutcome, result: SaveResult) -> dict[str, Any]:
    """What a save of one item answers."""
    body = {
        "id": item_id,
        "outcome": outcome.outcome,
        "revision": outcome.revision,
        "version": outcome.version,
        "state": result.state,
        "length": outcome.length,
        "bufferEpoch": result.buffer_epoch,
    }
    if result.base == "unknown":
        body["base"] = "unknown"
    return body
