"""Sync: a full or partial state at once, one outcome an item."""

from __future__ import annotations

from typing import Any

from flask import Response

from models.core.commands import ItemOutcome
from models.pipeline.views import SaveResult
from web import render, saving
from web.call import Call
from web.problems import OUTCOMES, Problem


def save(call: Call, conversation_id: str) -> Response:
    """200 with what came of each item, in the order sent: conversation, messages, tool results, artifacts."""
    limit = call.context.settings.max_sync_items
    if len(call.body) > limit:
        raise Problem("too-many-items", f"A sync takes at most {limit} items.", limit=limit)
    body = call.body
    result, headers = saving.waited(
        call,
        conversation_id,
        lambda pull: call.pipeline.sync(
            call.owner, conversation_id, body.commands(), order=body.order(), pull=pull
        ),
    )
    return render.respond(_answer(conversation_id, result), 200, headers)


def _answer(conversation_id: str, result: SaveResult) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": conversation_id,
        "version": result.version,
        "state": result.state,
        "bufferEpoch": result.buffer_epoch,
        "items": [_item(conversation_id, outcome, result) for outcome in result.items],
    }
    if result.base == "unknown":
        answer["base"] = "unknown"
    return answer


def _item(conversation_id: str, outcome: ItemOutcome, result: SaveResult) -> dict[str, Any]:
    kind = OUTCOMES[outcome.outcome]
    item: dict[str, Any] = {
        "kind": render.NAMES[outcome.kind],
        "id": outcome.id or conversation_id,
        "status": kind.status if kind is not None else 200 if result.state == "stored" else 202,
        "outcome": outcome.outcome,
        "revision": outcome.revision,
        "version": outcome.version,
        "length": outcome.length,
    }
    if kind is not None:
        item |= {"type": kind.type, "title": kind.title}
    return item
