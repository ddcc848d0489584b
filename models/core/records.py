"""What is kept: one record class a table, the values that travel between buffer, store and API.

Conventions, everywhere:
- JSON fields (``metadata``, ``parts``, ``input``, ``output``) are *JSON text* (canonical: orjson's compact form), never
  parsed on the way; ``None`` means the field is null.
- Times are integer milliseconds since the epoch, UTC (``*_ms``).
- ``version`` is the server's counter (microseconds or last + 1), ``revision`` the client's, ``None`` where never sent.
- ``position`` orders items of one kind in a conversation: text, compared bytewise.
- The conversation's own record has the empty id in the buffer; its client-given id is the field ``id``.
"""

from __future__ import annotations

from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

Status: TypeAlias = Literal["pending", "streaming", "complete", "interrupted", "error"]
OPEN_STATUSES: frozenset[str] = frozenset({"pending", "streaming"})
TERMINAL_STATUSES: frozenset[str] = frozenset({"complete", "interrupted", "error"})

ToolState: TypeAlias = Literal[
    "input-streaming",
    "input-available",
    "approval-requested",
    "approval-responded",
    "output-available",
    "output-error",
    "output-denied",
]
FINAL_TOOL_STATES: frozenset[str] = frozenset({"output-available", "output-error", "output-denied"})

#: One letter a kind: the first part of every reference in the buffer.
Kind: TypeAlias = Literal["c", "m", "t", "a", "v"]


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    conversation_uid: UUID
    owner: str
    id: str
    title: str | None = None
    metadata: str | None = None
    archived: bool = False
    head_id: str | None = None
    last_message_ms: int | None = None
    revision: int | None = None
    version: int
    created_ms: int
    updated_ms: int
    deleted_ms: int | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    conversation_uid: UUID
    id: str
    role: str
    content: str | None = None
    parts: str | None = None
    metadata: str | None = None
    parent_id: str | None = None
    tool_result_ids: tuple[str, ...] = ()
    artifact_ids: tuple[str, ...] = ()
    position: str
    status: str
    status_reason: str | None = None
    settled_from: str | None = None
    revision: int | None = None
    version: int
    created_ms: int
    updated_ms: int
    deleted_ms: int | None = None


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    conversation_uid: UUID
    id: str
    message_id: str | None = None
    tool_call_id: str | None = None
    tool_name: str | None = None
    state: str | None = None
    input: str | None = None
    output: str | None = None
    error_text: str | None = None
    position: str
    status: str
    status_reason: str | None = None
    settled_from: str | None = None
    revision: int | None = None
    version: int
    created_ms: int
    updated_ms: int
    deleted_ms: int | None = None


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    conversation_uid: UUID
    id: str
    message_id: str | None = None
    kind: str | None = None
    title: str | None = None
    language: str | None = None
    media_type: str | None = None
    content: str | None = None
    metadata: str | None = None
    head_number: int = 0
    head_hash: str | None = None
    position: str
    status: str
    status_reason: str | None = None
    settled_from: str | None = None
    revision: int | None = None
    version: int
    created_ms: int
    updated_ms: int
    deleted_ms: int | None = None


class ArtifactVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One complete content of an artifact; immutable. ``id`` is the artifact's, ``hash`` hex SHA-1 of the UTF-8 text."""

    conversation_uid: UUID
    id: str
    number: int
    content: str
    hash: str
    version: int
    created_ms: int


Record: TypeAlias = Conversation | Message | ToolResult | Artifact | ArtifactVersion


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All of one conversation, read from one store in one snapshot. ``conversation`` is None where there is no row.

    Tombstones are included; artifact versions are not (they are read on their own, paged).
    """

    conversation: Conversation | None
    messages: tuple[Message, ...] = ()
    tool_results: tuple[ToolResult, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
