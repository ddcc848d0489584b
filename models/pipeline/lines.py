"""Conversations as JSON lines: what `blotter export` writes and `blotter backfill` reads.

    {"type": "blotter-export", "format": 1, "owner": …, "exportedAt": …}       first
    {"type": "conversation", "id": …, "title": …, "version": …, …}
    {"type": "message" | "tool-result" | "artifact", "id": …, …}               of the conversation above
    {"type": "artifact-version", "id": the artifact's, "number": …, …}
    {"type": "end", "conversations": n, "lines": n}                            last: a file without it was cut off

Fields are those of models/core/records.py in camelCase, times ISO 8601 (UTC, ms). JSON fields (metadata, parts, input,
output) are JSON, equal in value and key order. Nulls are left out. A line holds all that a row does, so that nothing but the
owner is needed to put it back as it was.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import orjson

from models.core.records import (
    FINAL_TOOL_STATES,
    OPEN_STATUSES,
    TERMINAL_STATUSES,
    Artifact,
    ArtifactVersion,
    Conversation,
    Message,
    Record,
    ToolResult,
)
from models.identity import conversation_uid, is_id

FORMAT: Final = 1
TYPES: Final[dict[str, type[Record]]] = {
    "conversation": Conversation,
    "message": Message,
    "tool-result": ToolResult,
    "artifact": Artifact,
    "artifact-version": ArtifactVersion,
}
_NAMES: Final = {record: name for name, record in TYPES.items()}
_JSON: Final = frozenset({"metadata", "parts", "input", "output"})
_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool"})
_STATES: Final = FINAL_TOOL_STATES | {
    "input-streaming", "input-available", "approval-requested", "approval-responded",
}  # fmt: skip
_STATUSES: Final = OPEN_STATUSES | TERMINAL_STATUSES
#: A version is the server's clock in µs; one further ahead than this was not made by a clock.
_AHEAD_US: Final = 86_400_000_000
_MAX_NUMBER: Final = 2**53 - 1


class BadLine(ValueError):
    """A line that is none of an export. The message names the field, and quotes no chat text."""


def camel(name: str) -> str:
    """``created_ms`` -> ``createdAt``."""
    stem = f"{name.removesuffix('_ms')}_at" if name.endswith("_ms") else name
    first, *rest = stem.split("_")
    return first + "".join(word.capitalize() for word in rest)


def moment(at_ms: int) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(document: dict[str, Any]) -> bytes:
    """One line, with its end."""
    return orjson.dumps(document) + b"\n"


def line(record: Record) -> bytes:
    """A record as a line."""
    document: dict[str, Any] = {"type": _NAMES[type(record)]}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if value is None or name in ("conversation_uid", "owner"):
            continue
        if name in _JSON:
            value = orjson.Fragment(value)
        elif name.endswith("_ms"):
            value = moment(value)
        document[camel(name)] = value
    return encode(document)


def document(raw: bytes) -> dict[str, Any]:
    """A line's JSON. Raises BadLine."""
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadLine(f"no JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        raise BadLine("no object with a `type`")
    return found


def record(found: dict[str, Any], owner: str, conversation: str, now_us: int) -> Record:
    """The record that a line describes, as ``owner``'s in ``conversation``. Raises BadLine."""
    kind = TYPES.get(found["type"])
    if kind is None:
        raise BadLine(f"`type` {found['type'][:40]!r} is none of {', '.join(TYPES)}")
    names = {
        camel(name): name for name in kind.__struct_fields__ if name not in ("conversation_uid", "owner")
    }
    values: dict[str, Any] = {"conversation_uid": conversation_uid(owner, conversation)}
    if kind is Conversation:
        values["owner"] = owner
    for key, value in found.items():
        if key == "type":
            continue
        name = names.get(key)
        if name is None:
            raise BadLine(f"`{key[:40]}` is no field of a {found['type']}")
        if value is not None:
            values[name] = _value(name, key, value)
    try:
        made = msgspec.convert(values, kind, builtin_types=(UUID,))
    except msgspec.ValidationError as error:
        text = str(error)
        for snake in sorted(kind.__struct_fields__, key=len, reverse=True):
            text = text.replace(f"$.{snake}", camel(snake)).replace(f"`{snake}`", f"`{camel(snake)}`")
        raise BadLine(text) from None
    _check(made, now_us)
    return made


def _value(name: str, key: str, value: Any) -> Any:
    if name in _JSON:
        return orjson.dumps(value).decode()
    if name.endswith("_ms"):
        try:
            at = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            at = datetime.min  # noqa: DTZ901 (refused below)
        if at.tzinfo is None:
            raise BadLine(f"`{key}` is no time as 2026-01-02T03:04:05.678Z")
        return round(at.timestamp() * 1000)
    return value


def _check(made: Record, now_us: int) -> None:
    """What the API refuses, and what a row of another making could break."""

    def unless(holds: object, name: str, what: str) -> None:
        if not holds:
            raise BadLine(f"`{camel(name)}` {what}")

    unless(is_id(made.id), "id", "is no id: 1 to 256 of A-Z a-z 0-9 _ . ~ : @ -")
    unless(0 < made.version <= now_us + _AHEAD_US, "version", "is none that a server's clock has made")
    for name in made.__struct_fields__:
        value = getattr(made, name)
        unless(not isinstance(value, str) or "\0" not in value, name, "holds U+0000")
        unless(not isinstance(value, int) or 0 <= value <= _MAX_NUMBER, name, "is out of range")
        if isinstance(value, tuple):
            unless(all(is_id(one) for one in value), name, "holds what is no id")
        if name in ("message_id", "parent_id", "head_id") and value is not None:
            unless(is_id(value), name, "is no id")
    if isinstance(made, Message | ToolResult | Artifact):
        unless(made.deleted_ms is not None or made.status in _STATUSES, "status", "is none that there is")
        unless(made.position, "position", "is empty")
    if isinstance(made, Message):
        unless(made.role in _ROLES, "role", "is none that there is")
    if isinstance(made, ToolResult):
        unless(made.state is None or made.state in _STATES, "state", "is none that there is")
    if isinstance(made, ArtifactVersion):
        unless(made.number > 0, "number", "begins with 1")
