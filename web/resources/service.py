"""Calls about the service itself: alive, ready, figures, and the pages."""

from __future__ import annotations

import re
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Response

from models.errors import BlotterError, BufferUnavailable, SettingsError, StoreUnavailable
from web import metrics, render
from web.call import Call, Context
from web.observe import PAGE_POLICY
from web.problems import KINDS, Problem

#: Sentences mark code with backticks.
_CODE = re.compile("`([^`]+)`")
_STATIC = Path(__file__).resolve().parent.parent / "static"


def alive(_: Context) -> Response:
    """The process answers. Touches nothing."""
    return render.respond({"status": "ok"})


def ready(context: Context) -> Response:
    """200 if the buffer takes saves; Postgres away is only `degraded`, for saves go on without it."""
    try:
        states = context.pipeline().ready()
    except SettingsError:
        # The one that only shows here: an address of Postgres that libpq does not take.
        states = {"buffer": "unknown", "store": "misconfigured: DATABASE_URL"}
    except BlotterError:
        states = {"buffer": "unavailable", "store": "unknown"}
    if states["buffer"] != "ok":
        return render.respond({"status": "unavailable", **states}, 503, {"Retry-After": "1"})
    return render.respond({"status": "ok" if states["store"] == "ok" else "degraded", **states})


def exposition(context: Context) -> Response:
    """Prometheus' text format. Answers even without the buffer: that is when the figures matter."""
    figures: dict[str, Any] | None = None
    with suppress(BufferUnavailable, StoreUnavailable):
        figures = context.pipeline().figures()
    return Response(
        metrics.exposition(figures, context.around.states()),
        content_type="text/plain; version=0.0.4; charset=utf-8",
    )


def status(call: Call) -> Response:
    """The pipeline's figures."""
    return render.respond({**call.pipeline.ready(), **call.pipeline.figures()})


def page(name: str) -> Any:
    """A view that answers with one of the pages in `static`, read once."""
    html = (_STATIC / name).read_bytes()

    def view(_: Context) -> Response:
        return Response(html, content_type="text/html; charset=utf-8")

    return view


_DOCS = page("docs.html")


def docs(context: Context) -> Response:
    """The page of the API. It may call the events process too, where that is another origin."""
    response: Response = _DOCS(context)
    events = urlsplit(context.settings.events_url or "")
    if events.netloc:
        connect = f"connect-src 'self' {events.scheme}://{events.netloc}"
        response.headers["Content-Security-Policy"] = PAGE_POLICY.replace("connect-src 'self'", connect)
    return response


def problem(_: Context, slug: str) -> Response:
    """The page that a problem's `type` leads to."""
    if slug not in KINDS:
        raise Problem("not-found")
    kind = KINDS[slug]
    meaning = _CODE.sub(r"<code>\1</code>", escape(kind.meaning))
    html = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<link rel=icon href=/static/demo/icon.svg type=image/svg+xml>"
        f"<link rel=stylesheet href=/static/pages.css><title>{escape(kind.title)}</title>"
        f"<main><h1>{escape(kind.title)}</h1><p>Status {kind.status}, type <code>{kind.type}</code>.</p>"
        f"<p>{meaning}</p><p><a href=/docs>API</a></p></main></html>"
    )
    return Response(html, content_type="text/html; charset=utf-8")
