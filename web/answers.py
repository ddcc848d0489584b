"""The shapes of answers, for the OpenAPI document only: no request meets these models.

A test holds what the API really answers against them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.alias_generators import to_camel

from models.core.commands import Outcome
from models.core.records import Status, ToolState
from web.schemas import Role

_ABSENT: Any = None
_EPOCH = (
    "New whenever the buffer's server was started anew, in order or not, or emptied; "
    "when it changes, send again what was not yet stored."
)
_PARTIAL = "Older content is not in view: it was saved while Postgres is away."


class Shape(BaseModel):
    """Closed, camelCase."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)


class _Common(Shape):
    id: str
    revision: int | None = Field(description="Yours; null where never sent.")
    version: int = Field(description="The server's, one counter a conversation.")
    created_at: str
    updated_at: str
    deleted_at: str = Field("", description="Only on tombstones (`since`).")
    stored: bool = Field(description="This version is committed in Postgres.")


class _ItemShape(_Common):
    status: Status
    status_reason: str | None
    position: str = Field(description="Orders items of one kind, bytewise.")
    buffer_epoch: str = Field("", description=f"Where one item was asked for. {_EPOCH}")
    partial: bool = Field(False, description=f"Where one item was asked for. {_PARTIAL}")


class Conversation(_Common):
    """A conversation's own fields."""

    title: str | None
    metadata: Any
    archived: bool
    head_id: str | None
    last_message_at: str | None


class Message(_ItemShape):
    """A message."""

    role: Role
    content: str | None
    parts: list[dict[str, Any]] | None
    metadata: Any
    parent_id: str | None
    tool_result_ids: list[str]
    artifact_ids: list[str]


class ToolResult(_ItemShape):
    """A tool's input and output."""

    message_id: str | None
    tool_call_id: str
    tool_name: str | None
    state: ToolState | None
    input: Any
    output: Any
    error_text: str | None


class Artifact(_ItemShape):
    """An artifact with its latest content."""

    message_id: str | None
    kind: str | None
    title: str | None
    language: str | None
    media_type: str | None
    content: str | None
    metadata: Any
    version_number: int


class ArtifactVersion(Shape):
    """One complete content an artifact once had."""

    number: int
    content: str
    hash: str = Field(description="SHA-1 of the UTF-8 text, hex.")
    version: int
    created_at: str


class ConversationView(Shape):
    """A conversation as one snapshot."""

    conversation: Conversation
    messages: list[Message]
    tool_results: list[ToolResult]
    artifacts: list[Artifact]
    in_flight: bool = Field(description="A reply or a tool is still under way.")
    version: int = Field(description="Pass it as `since` for what changes from here.")
    buffer_epoch: str = Field(description=_EPOCH)
    partial: bool = Field(False, description=_PARTIAL)
    before: str = Field("", description="There are older messages: pass it as `before`.")


class ConversationPage(Shape):
    """Conversations, latest activity first."""

    conversations: list[Conversation]
    after: str | None = Field(description="Cursor of the next page; null at the end.")
    degraded: bool = Field(False, description="Only what is buffered is listed: Postgres is away.")


class MessagePage(Shape):
    """Messages in order."""

    messages: list[Message]
    after: str | None
    partial: bool = Field(False, description=_PARTIAL)


class ToolResultPage(Shape):
    """Tool results in order."""

    tool_results: list[ToolResult]
    after: str | None
    partial: bool = Field(False, description=_PARTIAL)


class ArtifactPage(Shape):
    """Artifacts in order."""

    artifacts: list[Artifact]
    after: str | None
    partial: bool = Field(False, description=_PARTIAL)


class ArtifactVersionPage(Shape):
    """An artifact's complete contents, oldest first."""

    versions: list[ArtifactVersion]
    after: int | None


class Saved(Shape):
    """A save that was acknowledged."""

    id: str
    outcome: Literal["accepted", "duplicate", "noop"] = Field(
        description="accepted: a new version; duplicate: equal to what is there; noop: an older snapshot, ignored."
    )
    revision: int | None
    version: int
    state: Literal["buffered", "stored"]
    length: int | None = Field(description="UTF-16 units of the text: the offset of the next append.")
    buffer_epoch: str = Field(description=_EPOCH)
    base: Literal["unknown"] = Field("unknown", description="Kept without its base: Postgres is away.")


class SyncedItem(Shape):
    """What came of one item of a sync."""

    kind: Literal["conversation", "message", "toolResult", "artifact"]
    id: str
    status: int = Field(description="What a save of it alone would have answered.")
    outcome: Outcome
    revision: int | None
    version: int
    length: int | None
    type: str = Field("", description="Of the problem, where it was refused.")
    title: str = ""


class Synced(Shape):
    """One outcome an item, in the order sent."""

    id: str
    version: int
    state: Literal["buffered", "stored"]
    buffer_epoch: str
    items: list[SyncedItem]
    base: Literal["unknown"] = "unknown"


class FieldError(Shape):
    """One field and what is wrong with it."""

    field: str
    message: str


class ProblemDetails(BaseModel):
    """RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []
    limit: int = Field(0, description="The bound that was passed (413, 429).")
    length: int = Field(0, description="Of the text, or number of parts, as it stands (409).")
    current: Message | ToolResult | Artifact | Conversation = Field(
        _ABSENT, description="The item as it stands (409)."
    )


class Health(Shape):
    """Alive."""

    status: Literal["ok"]


class Readiness(Shape):
    """Whether saves are taken."""

    status: Literal["ok", "degraded", "unavailable"]
    buffer: str
    store: str


class PipelineStatus(BaseModel):
    """The pipeline's figures."""

    model_config = ConfigDict(extra="allow")

    buffer: str
    store: str


class HealthReason(Shape):
    """Why it is not green, and the next step."""

    level: Literal["amber", "red"]
    reason: str
    step: str


class Operations(Shape):
    """How it stands. `figures` is null where the buffer does not answer; `series` has lists as long as its `atMs`."""

    level: Literal["green", "amber", "red"]
    reasons: list[HealthReason]
    states: dict[str, str]
    figures: dict[str, Any] | None
    limits: dict[str, float]
    recent: dict[str, float | None]
    series: dict[str, list[float | None]]


class EventOfItem(Shape):
    """Put `item` in the place of what has its kind and id; with `deletedAt`: take it away."""

    type: Literal["item"]
    kind: Literal["conversation", "message", "toolResult", "artifact"]
    version: int
    item: Message | ToolResult | Artifact | Conversation
    partial: Literal[True] = Field(
        True,
        description="Saved while Postgres was away; a layer to be dropped when the stream ends or is up to date.",
    )


class EventOfAppend(Shape):
    """The end of a text, and small fields: what stands before `offset`, then `text`; then each field of `set`."""

    type: Literal["append"]
    kind: Literal["message", "artifact"]
    id: str
    part: int = Field(0, description="Number of the part whose text it is; absent: `content`.")
    offset: int = Field(description="UTF-16 units, as `string.length` counts.")
    text: str = Field(description="May be empty: then only `set` tells something.")
    status: Status
    version: int
    set: dict[str, Any] = Field(description="Fields of the item that changed, by name.")
    partial: Literal[True] = True


class StoredVersion(Shape):
    """One version of an item."""

    kind: Literal["conversation", "message", "toolResult", "artifact"]
    id: str
    version: int


class EventOfCommit(StoredVersion):
    """This version of the item is committed in Postgres."""

    type: Literal["stored"]


class EventOfEpoch(Shape):
    """A checkpoint: of what has at most `version` all but `unstored` is committed, under this buffer epoch."""

    type: Literal["epoch"]
    buffer_epoch: str
    version: int
    unstored: list[StoredVersion]


class Events(RootModel[list[EventOfItem | EventOfAppend | EventOfCommit | EventOfEpoch]]):
    """Events in order."""
