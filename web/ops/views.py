"""What the operators' page shows: the judgement, the figures, and how they were over the last hour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from flask import Flask, Response, g, request

from models.core import series
from models.core.health import Limits, judge, level
from models.core.series import Between, Sample
from models.errors import BlotterError
from models.pipeline.figures import FLUSH_BOUNDS_S, history, measure
from models.settings import Settings
from web import metrics, render
from web.call import Call, Context
from web.ops.tally import Tally


def install(app: Flask, context: Context) -> None:
    """Count what ``app`` acknowledges."""

    def tell(counts: Mapping[str, int]) -> None:
        context.pipeline().partitions.count(counts)

    tally = Tally(tell)

    def count(response: Response) -> Response:
        saves = g.get("saves", 0)
        if saves and response.status_code < 300:
            # Who asked to wait was answered later than acknowledged.
            waited = "Prefer" in request.headers
            tally.add(saves, None if waited else metrics.acknowledged(g.get("began")))
        return response

    app.after_request(count)


def operations(call: Call) -> Response:
    """`GET /api/ops`. Answers without the buffer too: then that is the judgement."""
    settings = call.context.settings
    states = call.context.around.states()
    limits = Limits(settings.autosave_seconds, settings.evict_memory_share, settings.refuse_memory_share)
    figures: dict[str, Any] | None = None
    recent, samples = Between(), list[Sample]()
    unreachable: BlotterError | None = None
    try:
        samples = history(call.pipeline.partitions)
        figures, now = measure(call.pipeline.buffer, call.pipeline.partitions)
        if first := series.since(samples, now.at_ms):
            recent = series.between(first, now, FLUSH_BOUNDS_S)
    except BlotterError as error:
        unreachable = error
    reasons = judge(
        figures,
        limits,
        store=states.store,
        broker=states.broker,
        faults=states.faults,
        layout=states.layout,
        unreachable=unreachable,
    )
    shown: dict[str, Any] = {
        "level": level(reasons),
        "reasons": [reason._asdict() for reason in reasons],
        "states": {
            "buffer": "ok" if figures else "unavailable",
            "store": states.store,
            "broker": states.broker,
        },
        "figures": figures,
        "limits": _limits(settings),
        "recent": msgspec.to_builtins(recent),
        "series": columns(samples),
    }
    return render.respond(shown)


def columns(samples: list[Sample]) -> dict[str, list[Any]]:
    """The graphs: one list a figure, as long as ``atMs``. The first sample has no rates: nothing lies before it."""
    out: dict[str, list[Any]] = {}
    for before, sample in zip([Sample(), *samples], samples, strict=False):
        steps = series.between(before, sample, FLUSH_BOUNDS_S) if before.at_ms else Between()
        point = msgspec.to_builtins(sample) | msgspec.to_builtins(steps)
        for name, value in point.items():
            if name not in ("acks", "flushes", "saves", "rows"):
                out.setdefault(name, []).append(value)
    return out


def _limits(settings: Settings) -> dict[str, float]:
    return {
        "autosaveSeconds": settings.autosave_seconds,
        "evictMemoryShare": settings.evict_memory_share,
        "refuseMemoryShare": settings.refuse_memory_share,
    }
