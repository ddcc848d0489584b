"""What callers may send: strict models, their translation into commands, and nothing else.

Laws: unknown top-level fields are refused; a field not sent stays, a null clears; inside parts, metadata, input and
output anything goes (`web.parse` has already refused what could not be kept). The server's own fields (`version`,
`createdAt`, `position` …) are unknown here and therefore refused, so that nobody believes they were taken.

`role` is required where a message usually begins (POST, sync) and may be left out of a PUT, which usually updates: web
cannot know which it is; the buffer takes a new message without a role for the assistant's.

A field typed without None whose default is None may be absent but not null: there is nothing to clear (a revision, a
status, links, which are only ever united).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from models.core import commands
from models.core.commands import MAX_LINKS, MAX_PARTS, Append, Command, ItemKind, Put, SetPart
from models.core.records import Status, ToolState
from models.identity import ID_PATTERN

#: Kinds of faults whose sentences are written here.
OUR_FAULTS = frozenset({"one_step", "empty", "repeated"})
#: The largest integer a browser holds exactly.
MAX_SAFE_INTEGER = 2**53 - 1
MAX_PART_INDEX = MAX_PARTS - 1

Id: TypeAlias = Annotated[str, StringConstraints(pattern=ID_PATTERN, min_length=1, max_length=256)]
Ids: TypeAlias = Annotated[list[Id], Field(max_length=MAX_LINKS)]
Short: TypeAlias = Annotated[str, StringConstraints(max_length=256)]
Line: TypeAlias = Annotated[str, StringConstraints(max_length=1000)]
Revision: TypeAlias = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Offset: TypeAlias = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
JsonObject: TypeAlias = dict[str, Any]

#: Default of fields that may be absent but not null.
_ABSENT: Any = None

_REVISION = (
    "Your counter for this item. Lower than the stored one: 409; equal: must say the same; higher: accepted."
)
_STATUS = "Absent at creation means complete."


class Body(BaseModel):
    """Strict, camelCase, nothing unknown."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, frozen=True)


class _Record(Body):
    """What all items' bodies can do: become a command."""

    kind: ClassVar[ItemKind]
    #: Arguments of the command, not fields of the record.
    arguments: ClassVar[frozenset[str]] = frozenset({"id", "revision", "status"})

    revision: Revision = Field(_ABSENT, description=_REVISION)

    def put(self, item_id: str) -> Put:
        """The command that saves this body as ``item_id``; only fields that were sent are in it."""
        fields = {name: getattr(self, name) for name in self.model_fields_set if name not in self.arguments}
        return commands.put(
            self.kind, item_id, fields, revision=self.revision, status=getattr(self, "status", None)
        )


class ConversationBody(_Record):
    """A conversation's own fields; those left out stay."""

    kind = "c"

    title: Line | None = None
    metadata: Any = Field(None, description="Any JSON value; null clears.")
    archived: bool = Field(_ABSENT)
    head_id: Id | None = Field(None, description="The message shown last: reading follows the path to it.")


class NewConversation(ConversationBody):
    """A conversation to create. Without ``id`` one is minted."""

    id: Id = Field(_ABSENT)


class _Item(_Record):
    id: Id
    status: Status = Field(_ABSENT, description=_STATUS)
    status_reason: Line | None = None


class MessageUpdate(_Item):
    """A message, new or known; fields left out stay."""

    kind = "m"

    role: Role = Field(_ABSENT, description="Absent on a new message means assistant.")
    content: str | None = None
    parts: list[JsonObject] | None = Field(
        None, max_length=MAX_PARTS, description="AI SDK `UIMessage.parts`; kept value for value."
    )
    metadata: Any = Field(None, description="Any JSON value; null clears.")
    parent_id: Id | None = None
    tool_result_ids: Ids = Field(_ABSENT, description="United with those already linked.")
    artifact_ids: Ids = Field(_ABSENT, description="United with those already linked.")


class NewMessage(MessageUpdate):
    """A message, with its role."""

    role: Role


class ToolResultBody(_Item):
    """What a tool was given and what it returned. Suggested id: `{messageId}.{toolCallId}`."""

    kind = "t"

    message_id: Id | None = Field(None, description="Links the result into this message.")
    tool_call_id: Short | None = Field(None, description="Absent: the id.")
    tool_name: Short | None = None
    state: ToolState | None = Field(None, description="AI SDK tool part state.")
    preliminary: bool = Field(_ABSENT, description="True: more will follow; the state is not final.")
    input: Any = Field(None, description="Any JSON value.")
    output: Any = Field(None, description="Any JSON value.")
    error_text: str | None = None


class ArtifactBody(_Item):
    """A document the chat produced. Each new complete content becomes a version."""

    kind = "a"

    message_id: Id | None = Field(None, description="Links the artifact into this message.")
    # The record's field is `kind` as well; the class variable of that name says which record this is.
    artifact_kind: Short | None = Field(None, alias="kind")
    title: Line | None = None
    language: Short | None = None
    media_type: Short | None = None
    content: str | None = None
    metadata: Any = Field(None, description="Any JSON value; null clears.")

    def put(self, item_id: str) -> Put:
        fields = {name: getattr(self, name) for name in self.model_fields_set if name not in self.arguments}
        if "artifact_kind" in fields:
            fields["kind"] = fields.pop("artifact_kind")
        return commands.put("a", item_id, fields, revision=self.revision, status=self.status)


class AppendStep(Body):
    """Text that belongs at ``offset`` (UTF-16 units, as `string.length` counts). Empty: a heartbeat."""

    offset: Offset
    text: str


class PartAppendStep(AppendStep):
    """Without ``part`` the text belongs to `content`, with it to that part's text."""

    part: int = Field(_ABSENT, ge=0, le=MAX_PART_INDEX)


class PartStep(Body):
    """One part, set whole. ``index`` is at most the number of parts there are."""

    index: int = Field(ge=0, le=MAX_PART_INDEX)
    value: JsonObject


class ArtifactStep(Body):
    """A streaming step of an artifact's content."""

    append: AppendStep
    status: Status = Field(_ABSENT)
    status_reason: Line | None = None
    revision: Revision = Field(_ABSENT, description=_REVISION)

    def command(self, item_id: str) -> Command:
        step = self.append
        return _append("a", item_id, self, step, None)


class MessageStep(Body):
    """A streaming step of a message: exactly one of ``append`` and ``part``."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["append"]}, {"required": ["part"]}]})

    append: PartAppendStep = Field(_ABSENT)
    part: PartStep = Field(_ABSENT)
    status: Status = Field(_ABSENT)
    status_reason: Line | None = None
    revision: Revision = Field(_ABSENT, description=_REVISION)

    @model_validator(mode="after")
    def _exactly_one(self) -> MessageStep:
        if len(self.model_fields_set & {"append", "part"}) != 1:
            raise PydanticCustomError("one_step", "Exactly one of `append` and `part` is needed.")
        return self

    def command(self, item_id: str) -> Command:
        """The command for this step of message ``item_id``."""
        if "append" in self.model_fields_set:
            return _append("m", item_id, self, self.append, self.append.part)
        part = commands.split_part(self.part.value)
        return SetPart("m", item_id, self.part.index, part, self.revision, self.status, self.status_reason)


def _append(
    kind: ItemKind, item_id: str, step: ArtifactStep | MessageStep, append: AppendStep, part: int | None
) -> Append:
    units = commands.utf16_units(append.text)
    return Append(
        kind, item_id, append.offset, append.text, units, part, step.revision, step.status, step.status_reason
    )


class SyncBody(Body):
    """Full or partial state of one conversation: what is in it is saved, what is missing stays."""

    conversation: ConversationBody = Field(_ABSENT)
    messages: list[NewMessage] = Field(default=[])
    tool_results: list[ToolResultBody] = Field(default=[])
    artifacts: list[ArtifactBody] = Field(default=[])

    @model_validator(mode="after")
    def _says_something_once(self) -> SyncBody:
        if "conversation" not in self.model_fields_set and not (
            self.messages or self.tool_results or self.artifacts
        ):
            raise PydanticCustomError("empty", "Nothing to save: all lists are empty.")
        lists: tuple[tuple[str, Sequence[_Item]], ...] = (
            ("messages", self.messages),
            ("toolResults", self.tool_results),
            ("artifacts", self.artifacts),
        )
        for name, items in lists:
            for index in _repeated([item.id for item in items]):
                raise PydanticCustomError(
                    "repeated", "An earlier one has the same id.", {"field": f"{name}.{index}.id"}
                )
        return self

    def commands(self) -> list[Command]:
        """One command an item: the conversation's own first, then in the order sent."""
        own = [self.conversation.put("")] if "conversation" in self.model_fields_set else []
        items: tuple[_Item, ...] = (*self.messages, *self.tool_results, *self.artifacts)
        return [*own, *(item.put(item.id) for item in items)]

    def order(self) -> list[str]:
        """The messages' ids, in the order sent."""
        return [message.id for message in self.messages]

    def __len__(self) -> int:
        return len(self.messages) + len(self.tool_results) + len(self.artifacts)


def _repeated(ids: Sequence[str]) -> Iterator[int]:
    """The index of each id that stood before."""
    seen: set[str] = set()
    for index, item_id in enumerate(ids):
        if item_id in seen:
            yield index
        seen.add(item_id)
