"""What the pipeline answers to web: values, no JSON."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

import msgspec

from models.core.commands import ItemOutcome
from models.core.records import Artifact, Conversation, Message, ToolResult

R = TypeVar("R", Conversation, Message, ToolResult, Artifact)


class Item(msgspec.Struct, Generic[R], frozen=True):
    """A record as a reader sees it. ``stored``: this version is committed in Postgres. ``wrote``: the version of the
    last change of its texts that was no append; 0 where that is not known. ``partial``, where one item was asked for: saved
    while Postgres was away, what it was before is not in it.
    """

    record: R
    stored: bool
    wrote: int = 0
    partial: bool = False


class SaveResult(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome a command, in their order."""

    state: Literal["buffered", "stored"]
    base: Literal["known", "unknown"] = "known"
    buffer_epoch: str
    #: The conversation's version after the save.
    version: int
    items: tuple[ItemOutcome, ...]


class ConversationView(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as one snapshot.

    ``conversation`` is None only in a partial view whose first save did not name it. ``tombstones``: with ``since``, the
    deleted items are in the lists too (``record.deleted_ms`` set); without, they are left out.
    """

    conversation: Item[Conversation]
    messages: tuple[Item[Message], ...]
    tool_results: tuple[Item[ToolResult], ...]
    artifacts: tuple[Item[Artifact], ...]
    version: int
    buffer_epoch: str
    in_flight: bool
    #: True: saved while Postgres was away, older content is not in view; no ETag.
    partial: bool = False
    #: More messages before the first one: pass its position as ``before``.
    more: bool = False
    #: Strong entity tag, without quotes; None where the view is partial.
    etag: str | None = None


class ConversationPage(msgspec.Struct, frozen=True, kw_only=True):
    """Latest activity first. ``after``: opaque cursor of the next page, None at the end.

    ``degraded``: Postgres is away; only what is buffered is listed.
    """

    conversations: tuple[Item[Conversation], ...]
    after: str | None
    degraded: bool = False


class ItemPage(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """Items of one kind in order of position; ``after``: cursor of the next page. ``partial``: as in ConversationView."""

    items: tuple[Item[R], ...]
    after: str | None
    partial: bool = False
