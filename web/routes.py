"""The API, row by row. Routes, checks and the OpenAPI document all come from this table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from models.core.commands import ItemKind
from web import answers as shapes, schemas
from web.operation import Answer, Operation, Query
from web.ops import views as ops
from web.resources import conversations, items, service, sync

_CONVERSATION: Final = "/api/conversations/{conversationId}"

_SAVED: Final[Mapping[int, Answer]] = {
    202: Answer("Kept in the buffer; will be stored.", shapes.Saved, headers=("Preference-Applied",)),
    200: Answer("Stored in Postgres.", shapes.Saved, headers=("Preference-Applied",)),
}
_DELETED: Final[Mapping[int, Answer]] = {204: Answer("A tombstone stands.", headers=("Preference-Applied",))}
_SAVE_PROBLEMS: Final = (
    "malformed",
    "body-late",
    "stale-revision",
    "revision-conflict",
    "gone",
    "body-too-large",
    "item-too-large",
    "too-many-items",
    "too-many-parts",
    "too-many-links",
    "conversation-too-large",
    "unsupported-media-type",
    "buffer-unavailable",
    "buffer-unfit",
    "buffer-full",
    "store-unavailable",
    "contention",
    "unavailable",
)
_STEP_PROBLEMS: Final = (
    "not-found",
    "append-gap",
    "append-mismatch",
    "part-gap",
    "terminal",
    "surrogate-split",
    "not-text",
    *_SAVE_PROBLEMS,
)
_DELETE_PROBLEMS: Final = (
    "buffer-unavailable",
    "buffer-unfit",
    "buffer-full",
    "store-unavailable",
    "contention",
    "unavailable",
)
_READ_PROBLEMS: Final = ("not-found", "gone", "buffer-unavailable", "store-unavailable", "contention")

#: Milliseconds that a date can hold (until the year 9892), and a uid.
_ACTIVITY_CURSOR: Final = r"(?:[0-9]{1,14}|1[0-9]{14}|2[0-4][0-9]{13})-[0-9a-f]{32}"
_LIMIT: Final = Query("limit", "integer", "Most entries of a page.", default=200, minimum=1, maximum=500)
_AFTER: Final = Query("after", "text", "The `after` of the page before.")


def _read(description: str, model: type[shapes.Shape]) -> Mapping[int, Answer]:
    return {
        200: Answer(description, model, headers=("ETag",)),
        304: Answer("Unchanged since `If-None-Match`.", headers=("ETag",)),
    }


def _item_operations(
    kind: ItemKind,
    tag: str,
    noun: str,
    names: tuple[str, str],
    bodies: tuple[type[schemas.Body], type[schemas.Body]],
    shown: tuple[type[shapes.Shape], type[shapes.Shape]],
) -> tuple[Operation, ...]:
    """The calls that all three kinds of items have. ``names``: operationIds of POST and PUT."""
    path = f"{_CONVERSATION}/{tag}"
    stem = noun.replace(" ", "-").split("-")
    camel = stem[0] + "".join(word.capitalize() for word in stem[1:])
    pascal = camel[0].upper() + camel[1:]
    one = f"{path}/{{{camel}Id}}"
    article = "an" if noun[0] in "aeiou" else "a"
    return (
        Operation(
            names[0], "POST", path, f"Save {article} {noun}", items.save, tag, _SAVED, _SAVE_PROBLEMS, bodies[0],
            description="An upsert: what is there already is updated. The body carries the id.",
            methods=(names[0], "saveAssistantMessage") if kind == "m" else (names[0],), prefer=True, strand=True,
        ),
        Operation(
            names[1], "PUT", path, f"Save or update {article} {noun}", items.save, tag, _SAVED, _SAVE_PROBLEMS, bodies[1],
            description="An upsert: what is not there is created. Fields left out stay; null clears.",
            methods=(names[1],), prefer=True, strand=True,
        ),
        Operation(
            f"list{pascal}s", "GET", path, f"List {noun}s", items.index(kind), tag,
            {200: Answer("A page, in order.", shown[1])}, _READ_PROBLEMS, query=(_LIMIT, _AFTER),
        ),
        Operation(
            f"get{pascal}", "GET", one, f"Read one {noun}", items.read(kind), tag,
            _read(f"The {noun}.", shown[0]), _READ_PROBLEMS,
        ),
        Operation(
            f"delete{pascal}", "DELETE", one, f"Delete {article} {noun}", items.delete(kind), tag, _DELETED,
            _DELETE_PROBLEMS, description="Also where nothing was: a late save does not revive it.", prefer=True,
        ),
    )  # fmt: skip


_CONVERSATIONS: Final = (
    Operation(
        "createConversation", "POST", "/api/conversations", "Create a conversation", conversations.create,
        "conversations", {201: Answer("Created.", shapes.Saved, headers=("Location",)), **_SAVED}, _SAVE_PROBLEMS,
        schemas.NewConversation, prefer=True,
        description="Not needed before the first save, which creates it. Known already: updated, 202 or 200.",
    ),
    Operation(
        "listConversations", "GET", "/api/conversations", "List conversations", conversations.index, "conversations",
        {200: Answer("A page, latest activity first.", shapes.ConversationPage)},
        ("buffer-unavailable", "store-unavailable"),
        query=(
            Query("limit", "integer", "Most entries of a page.", default=50, minimum=1, maximum=200),
            Query("after", "text", "The `after` of the page before.", pattern=_ACTIVITY_CURSOR),
            Query("archived", "boolean", "The archived ones instead of the others.", default=False),
        ),
    ),
    Operation(
        "getConversation", "GET", _CONVERSATION, "Read a conversation with all that is in it", conversations.read,
        "conversations", _read("The conversation, or what changed since.", shapes.ConversationView), _READ_PROBLEMS,
        query=(
            Query("since", "integer", "Only what changed after this version, tombstones included."),
            Query("limit", "integer", "Most messages, the latest.", default=200, minimum=1, maximum=5000),
            Query("before", "text", "The `before` of the answer before: older messages."),
            Query("branches", "text", "`all`: every branch, not only the path to `headId`.", choices=("all",)),
        ),
    ),
    Operation(
        "updateConversation", "PATCH", _CONVERSATION, "Change title, metadata, archived, headId", conversations.update,
        "conversations", _SAVED, _SAVE_PROBLEMS, schemas.ConversationBody, prefer=True,
        description="An upsert like every save: an unknown id is created.",
    ),
    Operation(
        "deleteConversation", "DELETE", _CONVERSATION, "Delete a conversation", conversations.delete,
        "conversations", _DELETED, _DELETE_PROBLEMS, prefer=True, description="Later saves are answered with 410.",
    ),
)  # fmt: skip

_STREAM_HEADERS: Final = (
    "Stream-Next-Offset", "Stream-Up-To-Date", "Stream-Cursor", "Stream-Closed", "Blotter-Buffer-Epoch",
)  # fmt: skip
_EVENTS: Final = (
    Operation(
        "followConversation", "GET", f"{_CONVERSATION}/events", "Follow a conversation live", conversations.events,
        "conversations",
        {
            200: Answer(
                "What changed above the offset; with `live=sse` the events `data` and `control` of the protocol.",
                shapes.Events, media_type="text/event-stream", headers=(*_STREAM_HEADERS, "ETag"),
            ),
            204: Answer("A long poll with nothing to tell.", headers=_STREAM_HEADERS),
            304: Answer("You have just that.", headers=("ETag", *_STREAM_HEADERS)),
        },
        ("malformed", *_READ_PROBLEMS, "unavailable"),
        query=(
            Query(
                "offset", "text",
                "`-1` the beginning, `now` the end, an offset that was told, or the `version` of a conversation that was "
                "read. Without `live` it may be left out.",
            ),
            Query("live", "text", "Wait for what comes; without it, what there is.", choices=("long-poll", "sse")),
            Query("cursor", "text", "The `Stream-Cursor` of the answer before."),
        ),
        description=(
            "The read side of the Durable Streams protocol, JSON mode, served by a process of its own: at EVENTS_URL "
            "where that is another origin. Each item that changed above the offset comes whole, once; a connected reader "
            "gets only the ends of texts that grow. 410: begin again at `-1`."
        ),
    ),
)  # fmt: skip

_STREAMING: Final = (
    Operation(
        "saveAssistantMessage", "PATCH", f"{_CONVERSATION}/messages/{{messageId}}", "Stream into a message",
        items.step, "messages", _SAVED, _STEP_PROBLEMS, schemas.MessageStep, prefer=True, strand=True,
        description="Append text at an offset, or set one part. An empty append is a heartbeat.",
        methods=("saveAssistantMessage",),
    ),
    Operation(
        "appendToArtifact", "PATCH", f"{_CONVERSATION}/artifacts/{{artifactId}}", "Stream into an artifact",
        items.step, "artifacts", _SAVED, _STEP_PROBLEMS, schemas.ArtifactStep, prefer=True, strand=True,
    ),
    Operation(
        "listArtifactVersions", "GET", f"{_CONVERSATION}/artifacts/{{artifactId}}/versions",
        "List an artifact's versions", items.versions, "artifacts",
        {200: Answer("A page, oldest first.", shapes.ArtifactVersionPage)}, _READ_PROBLEMS,
        query=(
            Query("limit", "integer", "Most entries of a page.", default=10, minimum=1, maximum=50),
            Query("after", "integer", "Versions after this number."),
        ),
    ),
)  # fmt: skip

_SYNC: Final = tuple(
    Operation(
        name, "POST" if name == "syncConversationState" else "PUT", f"{_CONVERSATION}/sync", "Save a full or partial state", sync.save, "sync",
        {200: Answer("What came of each item.", shapes.Synced, headers=("Preference-Applied",))}, _SAVE_PROBLEMS,
        schemas.SyncBody, methods=("syncConversationState",), prefer=True,
        description="Upserts every item sent; never deletes. Each item has its own outcome.",
        max_bytes=lambda settings: settings.max_sync_bytes,
    )
    for name in ("syncConversationState", "putConversationState")
)  # fmt: skip

_HTML: Final[Mapping[int, Answer]] = {200: Answer("A page.", media_type="text/html")}
_SERVICE: Final = (
    Operation(
        "getStatus", "GET", "/api/status", "The pipeline's figures", service.status, "service",
        {200: Answer("Figures.", shapes.PipelineStatus)}, ("buffer-unavailable", "store-unavailable"), auth="operator",
        description="Needs the scope `blotter:operate`; any token in the embedded mode.",
    ),
    Operation(
        "getOperations", "GET", "/api/ops", "How it stands, and how it was in the last hour", ops.operations, "service",
        {200: Answer("Judgement, figures, series.", shapes.Operations)}, ("store-unavailable",), auth="operator",
        description="What the page at `/ops` shows. Needs the scope `blotter:operate`; any token in the embedded mode.",
    ),
    Operation(
        "isAlive", "GET", "/healthz", "Alive", service.alive, "service", {200: Answer("Yes.", shapes.Health)},
        auth="none", description="Touches nothing.",
    ),
    Operation(
        "isReady", "GET", "/readyz", "Ready for saves", service.ready, "service",
        {200: Answer("Yes.", shapes.Readiness), 503: Answer("The buffer takes no saves.", shapes.Readiness)},
        auth="none", description="Postgres away shows as `degraded`: saves go on.",
    ),
    Operation(
        "getMetrics", "GET", "/metrics", "Prometheus' figures", service.exposition, "service",
        {200: Answer("Text format.", media_type="text/plain")}, auth="none",
    ),
    Operation(
        "getHome", "GET", "/", "What this is", service.page("index.html"), "pages", _HTML, auth="none",
    ),
    Operation(
        "getDocs", "GET", "/docs", "This document, to read and to try", service.docs, "pages", _HTML,
        auth="none",
    ),
    Operation(
        "getOps", "GET", "/ops", "The operators' page", service.page("ops/index.html"), "pages", _HTML, auth="none",
    ),
    Operation(
        "getProblem", "GET", "/problems/{slug}", "What a problem means", service.problem, "pages", _HTML,
        ("not-found",), auth="none",
    ),
)  # fmt: skip

OPERATIONS: Final[tuple[Operation, ...]] = (
    *_CONVERSATIONS,
    *_EVENTS,
    *_item_operations(
        "m", "messages", "message", ("saveUserMessage", "saveOrUpdateMessage"),
        (schemas.NewMessage, schemas.MessageUpdate), (shapes.Message, shapes.MessagePage),
    ),
    *_item_operations(
        "t", "tool-results", "tool result", ("saveToolResult", "updateToolResult"),
        (schemas.ToolResultBody, schemas.ToolResultBody), (shapes.ToolResult, shapes.ToolResultPage),
    ),
    *_item_operations(
        "a", "artifacts", "artifact", ("saveArtifact", "updateArtifact"),
        (schemas.ArtifactBody, schemas.ArtifactBody), (shapes.Artifact, shapes.ArtifactPage),
    ),
    *_STREAMING,
    *_SYNC,
    *_SERVICE,
)  # fmt: skip
