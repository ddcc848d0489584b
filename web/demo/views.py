"""The demo's addresses. `install` decides once whether there is a demo; each request is then held against the guard."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, Request, Response, request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from web import render
from web.call import Context, body_reader
from web.demo import guard, owners
from web.demo.breaking import kill_one_worker
from web.demo.place import Place
from web.demo.spool import FASTEST, SLOWEST, Full, Job, Spool
from web.problems import Problem
from web.resources.service import page
from web.schemas import Id

_PAGES: Final = Path(__file__).parent / "pages"
_MAX_BODY_BYTES: Final = 4096
#: What an artifact is shown under: no scripts but the frame's own, no network, no origin.
_FRAME_POLICY: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src {origin}/static/demo/frame.js; "
    "style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
#: The chat: only what this server serves, live events, and no text ever taken for markup.
_CHAT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'{events}; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, frozen=True)


class SessionWish(_Wish):
    """``browser``: the random key that this browser keeps."""

    browser: str = Field(pattern=f"^{owners.BROWSER_KEY.pattern}$")


class ReplyWish(_Wish):
    """``message_id``: a message with status pending, whose parent is to be answered."""

    conversation_id: Id
    message_id: Id
    speed: int | None = Field(None, ge=SLOWEST, le=FASTEST)


def install(app: Flask, context: Context, environ: Mapping[str, str] | None = None) -> None:
    """Add the demo's addresses to ``app``, and the page at `/`, where there is a demo."""
    place = Place.find(context.settings, os.environ if environ is None else environ)
    if place is None:
        return
    demo = Demo(context, place)
    app.view_functions["getHome"] = demo.home
    for rule, view, method in (
        ("/demo/frame", demo.frame, "GET"),
        ("/demo/session", demo.session, "POST"),
        ("/demo/reply", demo.reply, "POST"),
        ("/demo/kill-worker", demo.kill_worker, "POST"),
    ):
        app.add_url_rule(rule, f"demo.{rule[6:]}", _local_only(view), methods=[method])


def _local_only(view: Callable[[], Response]) -> Callable[[], Response]:
    @wraps(view)
    def checked() -> Response:
        own = request.method == "GET" or guard.is_own_page(request.headers)
        if not own or not guard.is_local(request.remote_addr, request.headers):
            raise Problem("not-found")
        return view()

    return checked


class Demo:
    """The views."""

    def __init__(self, context: Context, place: Place) -> None:
        self._context = context
        self._place = place
        self._spool = Spool.of(place.data)
        self._chat = (_PAGES / "chat.html").read_bytes()
        self._plain = page("index.html")
        self._frame = (_PAGES / "frame.html").read_bytes()
        self._read_session = body_reader(SessionWish, _MAX_BODY_BYTES)
        self._read_reply = body_reader(ReplyWish, _MAX_BODY_BYTES)
        events = urlsplit(context.settings.events_url or "")
        self._chat_policy = _CHAT_POLICY.format(
            events=f" {events.scheme}://{events.netloc}" if events.netloc else ""
        )

    def home(self) -> Response:
        """The chat for this machine's browser, the plain page for all others."""
        if guard.is_local(request.remote_addr, request.headers):
            return _page(self._chat, self._chat_policy)
        plain: Response = self._plain(self._context)
        return plain

    def frame(self) -> Response:
        """The page that shows an artifact."""
        return _page(self._frame, _FRAME_POLICY.format(origin=f"http://{request.host}"))

    def session(self) -> Response:
        """A token for this browser's owner, and what the page must know."""
        wish = self._read_session(_incoming())
        assert isinstance(wish, SessionWish)
        settings = self._context.settings
        owner = owners.owner_of(self._place.secret, wish.browser)
        token = owners.token(settings, self._place.secret, owner, int(time.time()))
        return render.respond({"owner": owner, "token": token, "eventsUrl": settings.events_url or ""})

    def reply(self) -> Response:
        """Ask the assistant for a reply."""
        owner = self._owner()
        wish = self._read_reply(_incoming())
        assert isinstance(wish, ReplyWish)
        try:
            self._spool.put(Job(owner, wish.conversation_id, wish.message_id, wish.speed))
        except Full:
            raise Problem("unavailable", "Too many replies wait to be written.") from None
        return render.respond({"id": wish.message_id}, 202)

    def kill_worker(self) -> Response:
        """Kill one process of the worker."""
        self._owner()
        pid = kill_one_worker(self._place.data)
        if pid is None:
            raise Problem("unavailable", "No process of the worker was found.")
        return render.respond({"pid": pid})

    def _owner(self) -> str:
        return self._context.verifier.caller(request.headers.get("Authorization")).owner(None)


def _incoming() -> Request:
    incoming: Request = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    return incoming


def _page(html: bytes, policy: str) -> Response:
    response = Response(html, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = policy
    response.headers["Cache-Control"] = "no-store"
    return response
