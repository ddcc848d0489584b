"""Messages, tool results and artifacts: the same six calls for each, made by one function a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, request

from models.core.commands import ItemKind
from web import render, saving
from web.call import Call


def save(call: Call, conversation_id: str) -> Response:
    """Save an item that names its own id: new or known."""
    return saving.save(call, conversation_id, call.body.put(call.body.id))


def step(call: Call, conversation_id: str, item_id: str) -> Response:
    """One step of a stream: append text, or set a part."""
    return saving.save(call, conversation_id, call.body.command(item_id))


def read(kind: ItemKind) -> Callable[[Call, str, str], Response]:
    """The view that answers with one item; its tag changes with its version and when it becomes stored. No tag where older
    content may be missing (Postgres away).
    """

    def view(call: Call, conversation_id: str, item_id: str) -> Response:
        item, epoch = call.pipeline.item(call.owner, conversation_id, kind, item_id)
        body = {**render.RENDERERS[kind](item), "bufferEpoch": epoch}
        if item.partial:
            return render.respond({**body, "partial": True})
        etag = f"{item.record.version:x}.{int(item.stored)}.{epoch}"
        headers = {"ETag": f'"{etag}"', "Cache-Control": "private, no-cache"}
        if request.if_none_match.contains_weak(etag):
            return Response(status=304, headers=headers)
        return render.respond(body, 200, headers)

    return view


def delete(kind: ItemKind) -> Callable[[Call, str, str], Response]:
    """The view that leaves a tombstone."""

    def view(call: Call, conversation_id: str, item_id: str) -> Response:
        return saving.delete(call, conversation_id, kind, item_id)

    return view


def index(kind: ItemKind) -> Callable[[Call, str], Response]:
    """The view that answers with a page of one kind, in order."""
    name = f"{render.NAMES[kind]}s"

    def view(call: Call, conversation_id: str) -> Response:
        query: Any = call.query
        page = call.pipeline.items(
            call.owner, conversation_id, kind, after=query["after"], limit=query["limit"]
        )
        body = {name: [render.RENDERERS[kind](item) for item in page.items], "after": page.after}
        return render.respond({**body, "partial": True} if page.partial else body)

    return view


def versions(call: Call, conversation_id: str, item_id: str) -> Response:
    """The complete contents an artifact had, oldest first."""
    query: Any = call.query
    found = call.pipeline.artifact_versions(
        call.owner, conversation_id, item_id, after=query["after"], limit=query["limit"]
    )
    after = found[-1].number if len(found) == query["limit"] else None
    return render.respond({"versions": [render.artifact_version(one) for one in found], "after": after})
