"""One conversation: read it, save into it, list, delete. The methods carry the names of the API's operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Unpack, cast

from blotter_client import calls
from blotter_client.aio.reply import AsyncReply
from blotter_client.steps import Pace
from blotter_client.types import (
    Artifact,
    ArtifactFields,
    ArtifactPage,
    ArtifactVersionPage,
    ConversationFields,
    ConversationView,
    Json,
    Message,
    MessageFields,
    MessagePage,
    Saved,
    Status,
    Synced,
    ToolResult,
    ToolResultFields,
    ToolResultPage,
)
from blotter_client.writer import OnConflict

if TYPE_CHECKING:
    from blotter_client.aio.client import AsyncBlotter


class AsyncConversation:
    """A conversation of one owner. ``wait``, everywhere: hold the answer until stored in Postgres, at most so many seconds."""

    def __init__(self, client: AsyncBlotter, conversation_id: str, owner: str | None) -> None:
        self._client = client
        self._owner = owner
        self.id = conversation_id

    # ------------------------------------------------------------------ the conversation itself
    async def read(
        self,
        *,
        since: int | None = None,
        limit: int | None = None,
        before: str | None = None,
        branches: bool = False,
    ) -> ConversationView:
        """All of it as one snapshot: the latest ``limit`` messages (200), or those before ``before``.

        ``since``: only what changed after that version, tombstones included. ``branches``: every one, not only the path
        to the head.
        """
        query = {"since": since, "limit": limit, "before": before, "branches": "all" if branches else None}
        return cast(ConversationView, await self._send("GET", query=query))

    async def update(self, *, wait: float | None = None, **fields: Unpack[ConversationFields]) -> Saved:
        """Change title, metadata, archived, head_id."""
        return cast(Saved, await self._send("PATCH", body=fields, wait=wait))

    async def delete(self, *, wait: float | None = None) -> None:
        """Leave a tombstone; later saves raise Gone."""
        await self._send("DELETE", wait=wait)

    async def sync_conversation_state(
        self,
        *,
        conversation: ConversationFields | None = None,
        messages: Iterable[Mapping[str, Any]] = (),
        tool_results: Iterable[Mapping[str, Any]] = (),
        artifacts: Iterable[Mapping[str, Any]] = (),
        wait: float | None = None,
    ) -> Synced:
        """Save a full or partial state: items with their ``id`` and fields. Upserts, never deletes; one outcome an item."""
        body: dict[str, Any] = {} if conversation is None else {"conversation": calls.fields(conversation)}
        lists = (("messages", messages), ("toolResults", tool_results), ("artifacts", artifacts))
        body |= {name: found for name, given in lists if (found := calls.items(given))}
        return cast(Synced, await self._send("POST", "sync", body=body, wait=wait))

    # ------------------------------------------------------------------ messages
    def reply(
        self,
        message_id: str,
        *,
        parent_id: str | None = None,
        content: str | None = None,
        metadata: Json = None,
        revision: int | None = None,
        pace: Pace | None = None,
        on_conflict: OnConflict = "raise",
    ) -> AsyncReply:
        """A reply to be written while it is generated: `async with chat.reply("m-2") as reply`. See AsyncReply."""
        given = {"parent_id": parent_id, "content": content, "metadata": metadata, "revision": revision}
        stub = {name: value for name, value in given.items() if value is not None}
        return AsyncReply(self, message_id, stub, pace or Pace(), on_conflict)

    async def save_user_message(
        self, message_id: str, *, wait: float | None = None, **fields: Unpack[MessageFields]
    ) -> Saved:
        """Save a message, by default the user's."""
        body = {"id": message_id, "role": "user", **fields}
        return cast(Saved, await self._send("POST", "messages", body=body, wait=wait))

    async def save_assistant_message(
        self, message_id: str, *, wait: float | None = None, **fields: Unpack[MessageFields]
    ) -> Saved:
        """Save the assistant's message, whole or as far as it is (``status="streaming"``)."""
        body = {"id": message_id, "role": "assistant", **fields}
        return cast(Saved, await self._send("POST", "messages", body=body, wait=wait))

    async def save_or_update_message(
        self, message_id: str, *, wait: float | None = None, **fields: Unpack[MessageFields]
    ) -> Saved:
        """Update a message, or create it (then ``role`` is needed)."""
        return cast(Saved, await self._send("PUT", "messages", body={"id": message_id, **fields}, wait=wait))

    async def append_to_message(
        self,
        message_id: str,
        offset: int,
        text: str,
        *,
        part: int | None = None,
        status: Status | None = None,
    ) -> Saved:
        """Text that belongs at ``offset`` (UTF-16 units). Empty: a heartbeat. For a whole reply, see `reply`."""
        alongside = {} if status is None else {"status": status}
        path = self._path("messages", message_id)
        return cast(Saved, await self.call(calls.append(path, offset, text, part=part, alongside=alongside)))

    async def set_message_part(
        self, message_id: str, index: int, value: Mapping[str, Any], *, status: Status | None = None
    ) -> Saved:
        """One part, whole."""
        alongside = {} if status is None else {"status": status}
        path = self._path("messages", message_id)
        return cast(Saved, await self.call(calls.set_part(path, index, value, alongside=alongside)))

    async def get_message(self, message_id: str) -> Message:
        """One message."""
        return cast(Message, await self._send("GET", "messages", message_id))

    async def list_messages(self, *, limit: int | None = None, after: str | None = None) -> MessagePage:
        """A page, in order."""
        return cast(MessagePage, await self._send("GET", "messages", query={"limit": limit, "after": after}))

    async def delete_message(self, message_id: str, *, wait: float | None = None) -> None:
        """Leave a tombstone, also where nothing was."""
        await self._send("DELETE", "messages", message_id, wait=wait)

    # ------------------------------------------------------------------ tool results
    async def save_tool_result(
        self, result_id: str, *, wait: float | None = None, **fields: Unpack[ToolResultFields]
    ) -> Saved:
        """Save what a tool was given and returned. ``message_id`` links it into that message."""
        return cast(
            Saved, await self._send("POST", "tool-results", body={"id": result_id, **fields}, wait=wait)
        )

    async def update_tool_result(
        self, result_id: str, *, wait: float | None = None, **fields: Unpack[ToolResultFields]
    ) -> Saved:
        """Update a tool result, or create it."""
        return cast(
            Saved, await self._send("PUT", "tool-results", body={"id": result_id, **fields}, wait=wait)
        )

    async def get_tool_result(self, result_id: str) -> ToolResult:
        """One tool result."""
        return cast(ToolResult, await self._send("GET", "tool-results", result_id))

    async def list_tool_results(
        self, *, limit: int | None = None, after: str | None = None
    ) -> ToolResultPage:
        """A page, in order."""
        query = {"limit": limit, "after": after}
        return cast(ToolResultPage, await self._send("GET", "tool-results", query=query))

    async def delete_tool_result(self, result_id: str, *, wait: float | None = None) -> None:
        """Leave a tombstone, also where nothing was."""
        await self._send("DELETE", "tool-results", result_id, wait=wait)

    # ------------------------------------------------------------------ artifacts
    async def save_artifact(
        self, artifact_id: str, *, wait: float | None = None, **fields: Unpack[ArtifactFields]
    ) -> Saved:
        """Save a document the chat produced. Each new complete content becomes a version."""
        return cast(
            Saved, await self._send("POST", "artifacts", body={"id": artifact_id, **fields}, wait=wait)
        )

    async def update_artifact(
        self, artifact_id: str, *, wait: float | None = None, **fields: Unpack[ArtifactFields]
    ) -> Saved:
        """Update an artifact, or create it."""
        return cast(
            Saved, await self._send("PUT", "artifacts", body={"id": artifact_id, **fields}, wait=wait)
        )

    async def append_to_artifact(
        self, artifact_id: str, offset: int, text: str, *, status: Status | None = None
    ) -> Saved:
        """Text that belongs at ``offset`` (UTF-16 units) of the content."""
        alongside = {} if status is None else {"status": status}
        return cast(
            Saved,
            await self.call(
                calls.append(self._path("artifacts", artifact_id), offset, text, alongside=alongside)
            ),
        )

    async def get_artifact(self, artifact_id: str) -> Artifact:
        """One artifact with its latest content."""
        return cast(Artifact, await self._send("GET", "artifacts", artifact_id))

    async def list_artifacts(self, *, limit: int | None = None, after: str | None = None) -> ArtifactPage:
        """A page, in order."""
        return cast(
            ArtifactPage, await self._send("GET", "artifacts", query={"limit": limit, "after": after})
        )

    async def list_artifact_versions(
        self, artifact_id: str, *, limit: int | None = None, after: int | None = None
    ) -> ArtifactVersionPage:
        """The complete contents it had, oldest first."""
        query = {"limit": limit, "after": after}
        return cast(
            ArtifactVersionPage, await self._send("GET", "artifacts", artifact_id, "versions", query=query)
        )

    async def delete_artifact(self, artifact_id: str, *, wait: float | None = None) -> None:
        """Leave a tombstone, also where nothing was."""
        await self._send("DELETE", "artifacts", artifact_id, wait=wait)

    # ------------------------------------------------------------------ inside
    def _path(self, *rest: str) -> str:
        return calls.conversation_path(self.id, *rest)

    async def call(self, request: calls.Request) -> Any:
        """Send a request made with `blotter_client.calls`, for this conversation's owner; the answer's JSON."""
        return await self._client.send(request, self._owner)

    async def _send(
        self,
        method: str,
        *rest: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int | bool | None] | None = None,
        wait: float | None = None,
    ) -> Any:
        sent = None if body is None else calls.fields(body)
        return await self.call(calls.request(method, self._path(*rest), sent, query=query, wait=wait))
