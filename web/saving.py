"""From a command to an answer: save, wait where asked, and turn what came of it into a status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flask import Response

from models.core.commands import ACKNOWLEDGED, MAX_LINKS, MAX_PARTS, Command, Delete, ItemKind, ItemOutcome
from models.core.strands import aside
from models.errors import BufferUnavailable, Gone, NotFound, StoreUnavailable
from models.pipeline.views import Item, SaveResult
from web import render
from web.call import Call
from web.metrics import count_saves
from web.problems import OUTCOMES, Kind, Problem

#: The field that a refused step names.
_FIELDS: Final = {"surrogate-split": "append.offset", "not-text": "append.part", "too-many-parts": "parts"}


def save(call: Call, conversation_id: str, command: Command) -> Response:
    """Save one item: 202, or 200 where it is stored. Raises Problem for what was not acknowledged."""
    result, outcome, headers = saved(call, conversation_id, command)
    body = render.saved(outcome.id or conversation_id, outcome, result)
    return render.respond(body, 200 if result.state == "stored" else 202, headers)


def saved(
    call: Call, conversation_id: str, command: Command, *, fresh: bool = False
) -> tuple[SaveResult, ItemOutcome, dict[str, str]]:
    """What came of ``command``, acknowledged, and the headers to answer with."""
    result, headers = waited(
        call,
        conversation_id,
        lambda pull: call.pipeline.save(call.owner, conversation_id, [command], fresh=fresh, pull=pull),
    )
    outcome = result.items[0]
    kind = OUTCOMES[outcome.outcome]
    if kind is not None:
        raise _refusal(call, conversation_id, outcome, kind)
    return result, outcome, headers


def waited(
    call: Call, conversation_id: str, do: Callable[[bool], SaveResult]
) -> tuple[SaveResult, dict[str, str]]:
    """``do(pull)``; then, where the caller prefers it and a place is free, wait until it is stored."""
    if not call.wait_ms:
        result = do(False)
        count_saves(result)
        return result, {}
    with call.context.waiters.place() as placed:
        result = do(True)
        count_saves(result)
        # "Applied" is said of what can be waited for: not of a save whose base is out of reach, nor of one refused in part.
        acknowledged = all(item.outcome in ACKNOWLEDGED for item in result.items)
        if not placed or result.base == "unknown" or not acknowledged:
            return result, {}
        result = call.pipeline.wait_stored(call.owner, conversation_id, result, timeout_ms=call.wait_ms)
        return result, {"Preference-Applied": f"wait={call.wait_ms // 1000}"}


def delete(call: Call, conversation_id: str, kind: ItemKind, item_id: str) -> Response:
    """Leave a tombstone: 204, also where nothing was or one stands already."""
    headers: dict[str, str] = {}
    try:
        _, _, headers = saved(call, conversation_id, Delete(kind, item_id))
    except (Gone, NotFound):
        pass  # deleted with its conversation, or never there: what was asked for holds
    except Problem as problem:
        if problem.kind.status not in (404, 410):
            raise
    response = Response(status=204, headers={"Cache-Control": "no-store", **headers})
    del response.headers["Content-Type"]
    return response


def _refusal(call: Call, conversation_id: str, outcome: ItemOutcome, kind: Kind) -> Problem:
    settings = call.context.settings
    limits = {
        "item-too-large": settings.max_item_bytes,
        "too-many-items": settings.max_conversation_items,
        "too-many-parts": MAX_PARTS,
        "too-many-links": MAX_LINKS,
        "conversation-too-large": settings.max_conversation_bytes,
    }
    problem = Problem(kind.slug)
    if outcome.outcome in limits:
        problem.extra["limit"] = limits[outcome.outcome]
    field = _FIELDS.get(outcome.outcome)
    if outcome.outcome == "too-many-links" and outcome.kind != "m":
        field = "messageId"  # the message that it names is full
    if field is not None:
        problem.extra["errors"] = [{"field": field, "message": kind.meaning}]
    if kind.status == 409:
        if outcome.length is not None:
            problem.extra["length"] = outcome.length
        aside(_add_current, problem, call, conversation_id, outcome)
    return problem


def _add_current(problem: Problem, call: Call, conversation_id: str, outcome: ItemOutcome) -> None:
    """The item as it stands: what the caller needs to decide anew. Left out where it cannot be read just now."""
    item: Item[Any]
    try:
        if outcome.kind == "c":
            item = call.pipeline.read(call.owner, conversation_id, limit=1).conversation
        else:
            item, _ = call.pipeline.item(call.owner, conversation_id, outcome.kind, outcome.id)
    except (NotFound, Gone, StoreUnavailable, BufferUnavailable):
        return
    problem.extra["current"] = render.RENDERERS[outcome.kind](item)
