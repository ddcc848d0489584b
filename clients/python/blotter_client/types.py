"""What the API takes and answers, as types. Answers keep the API's own names (camelCase): they are its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, TypedDict

Status: TypeAlias = Literal["pending", "streaming", "complete", "interrupted", "error"]
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
ToolState: TypeAlias = Literal[
    "input-streaming",
    "input-available",
    "approval-requested",
    "approval-responded",
    "output-available",
    "output-error",
    "output-denied",
]
#: States after which a tool says nothing more.
FINAL_STATES: Final = frozenset({"output-available", "output-error", "output-denied"})
#: Any JSON value.
Json: TypeAlias = Any
JsonObject: TypeAlias = Mapping[str, Any]


class Unset(Enum):
    """The type of UNSET."""

    UNSET = "unset"


#: Stands for "not sent": the stored value stays. None clears it.
UNSET = Unset.UNSET


# ---------------------------------------------------------------------- what is sent
class ConversationFields(TypedDict, total=False):
    """A conversation's own fields; those left out stay, None clears."""

    title: str | None
    metadata: Json
    archived: bool
    head_id: str | None
    revision: int


class MessageFields(TypedDict, total=False):
    """A message's fields; those left out stay, None clears."""

    role: Role
    content: str | None
    parts: Sequence[JsonObject] | None
    metadata: Json
    parent_id: str | None
    tool_result_ids: Sequence[str]
    artifact_ids: Sequence[str]
    status: Status
    status_reason: str | None
    revision: int


class ToolResultFields(TypedDict, total=False):
    """A tool result's fields. Suggested id: `{message_id}.{tool_call_id}`."""

    message_id: str | None
    tool_call_id: str | None
    tool_name: str | None
    state: ToolState | None
    preliminary: bool
    input: Json
    output: Json
    error_text: str | None
    status: Status
    status_reason: str | None
    revision: int


class ArtifactFields(TypedDict, total=False):
    """An artifact's fields."""

    message_id: str | None
    kind: str | None
    title: str | None
    language: str | None
    media_type: str | None
    content: str | None
    metadata: Json
    status: Status
    status_reason: str | None
    revision: int


# ---------------------------------------------------------------------- what is answered
class Saved(TypedDict, total=False):
    """An acknowledged save. ``length``: UTF-16 units of the text, the offset of the next append."""

    id: str
    outcome: Literal["accepted", "duplicate", "noop"]
    revision: int | None
    version: int
    state: Literal["buffered", "stored"]
    length: int | None
    bufferEpoch: str
    base: Literal["unknown"]


class SyncedItem(TypedDict, total=False):
    """What came of one item of a sync."""

    kind: Literal["conversation", "message", "toolResult", "artifact"]
    id: str
    status: int
    outcome: str
    revision: int | None
    version: int
    length: int | None
    type: str
    title: str


class Synced(TypedDict, total=False):
    """One outcome an item, in the order sent."""

    id: str
    version: int
    state: Literal["buffered", "stored"]
    bufferEpoch: str
    items: list[SyncedItem]
    base: Literal["unknown"]


class _Common(TypedDict, total=False):
    id: str
    revision: int | None
    version: int
    createdAt: str
    updatedAt: str
    deletedAt: str
    stored: bool
    bufferEpoch: str


class Conversation(_Common, total=False):
    """A conversation's own fields."""

    title: str | None
    metadata: Json
    archived: bool
    headId: str | None
    lastMessageAt: str | None


class Message(_Common, total=False):
    """A message."""

    role: Role
    content: str | None
    parts: list[dict[str, Any]] | None
    metadata: Json
    parentId: str | None
    toolResultIds: list[str]
    artifactIds: list[str]
    status: Status
    statusReason: str | None
    position: str


class ToolResult(_Common, total=False):
    """A tool's input and output."""

    messageId: str | None
    toolCallId: str
    toolName: str | None
    state: ToolState | None
    input: Json
    output: Json
    errorText: str | None
    status: Status
    statusReason: str | None
    position: str


class Artifact(_Common, total=False):
    """An artifact with its latest content."""

    messageId: str | None
    kind: str | None
    title: str | None
    language: str | None
    mediaType: str | None
    content: str | None
    metadata: Json
    versionNumber: int
    status: Status
    statusReason: str | None
    position: str


class ArtifactVersion(TypedDict):
    """One complete content an artifact once had."""

    number: int
    content: str
    hash: str
    version: int
    createdAt: str


class ConversationView(TypedDict, total=False):
    """A conversation as one snapshot. ``before``: there are older messages."""

    conversation: Conversation
    messages: list[Message]
    toolResults: list[ToolResult]
    artifacts: list[Artifact]
    inFlight: bool
    version: int
    bufferEpoch: str
    partial: bool
    before: str


class ConversationPage(TypedDict, total=False):
    """Latest activity first."""

    conversations: list[Conversation]
    after: str | None
    degraded: bool


class MessagePage(TypedDict, total=False):
    """Messages in order."""

    messages: list[Message]
    after: str | None
    partial: bool


class ToolResultPage(TypedDict, total=False):
    """Tool results in order."""

    toolResults: list[ToolResult]
    after: str | None
    partial: bool


class ArtifactPage(TypedDict, total=False):
    """Artifacts in order."""

    artifacts: list[Artifact]
    after: str | None
    partial: bool


class ArtifactVersionPage(TypedDict):
    """An artifact's complete contents, oldest first."""

    versions: list[ArtifactVersion]
    after: int | None
