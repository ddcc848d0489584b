"""Conversations: create, list, read, change, delete."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from models.identity import mint_id
from models.pipeline.views import ConversationView
from web import render, saving
from web.call import Call
from web.problems import Problem


def create(call: Call) -> Response:
    """201 where it was created, else as any save."""
    minted = "id" not in call.body.model_fields_set
    conversation_id: str = mint_id() if minted else call.body.id
    result, outcome, headers = saving.saved(call, conversation_id, call.body.put(""), fresh=minted)
    status = 201 if outcome.created else 200 if result.state == "stored" else 202
    headers["Location"] = f"/api/conversations/{conversation_id}"
    return render.respond(render.saved(conversation_id, outcome, result), status, headers)


def index(call: Call) -> Response:
    """A page, latest activity first."""
    query: Any = call.query
    page = call.pipeline.conversations(
        call.owner, archived=query["archived"], after=query["after"], limit=query["limit"]
    )
    body: dict[str, Any] = {
        "conversations": [render.conversation(item) for item in page.conversations],
        "after": page.after,
    }
    if page.degraded:
        body["degraded"] = True
    return render.respond(body)


def read(call: Call, conversation_id: str) -> Response:
    """The conversation with all that is in it, or what changed since; 304 where the caller has it."""
    query: Any = call.query
    view = call.pipeline.read(
        call.owner,
        conversation_id,
        since=query["since"],
        limit=query["limit"],
        before=query["before"],
        branches=query["branches"] == "all",
    )
    etag = entity_tag(view)
    headers = {} if etag is None else {"ETag": f'"{etag}"', "Cache-Control": "private, no-cache"}
    if etag is not None and request.if_none_match.contains_weak(etag):
        return Response(status=304, headers=headers)
    return render.respond(render.view(view), 200, headers)


def entity_tag(view: ConversationView) -> str | None:
    """The view's tag, with the number of items not yet stored: within one version that number only falls."""
    if view.etag is None:
        return None
    stored = [view.conversation.stored]
    stored += [item.stored for item in view.messages]
    stored += [item.stored for item in view.tool_results]
    stored += [item.stored for item in view.artifacts]
    return f"{view.etag}.{stored.count(False)}"


def events(call: Call, conversation_id: str) -> Response:
    """Live events are another process' (web/events): a reader here would hold a thread that saves need."""
    where = call.context.settings.events_url or "this address, but were not routed there"
    raise Problem("not-found", f"Live events are served at {where}.")


def update(call: Call, conversation_id: str) -> Response:
    """Change its own fields."""
    return saving.save(call, conversation_id, call.body.put(""))


def delete(call: Call, conversation_id: str) -> Response:
    """A tombstone; later saves get 410."""
    return saving.delete(call, conversation_id, "c", "")
