"""The events process: settings in, an ASGI application out.

    granian --interface asgi --factory web.events.app:create_app

Checks, problems and CORS are web's own, so that a reader is let in or refused there and here alike.
"""

from __future__ import annotations

import asyncio
import logging
import re
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models import logs, tracing
from models.errors import BlotterError
from models.identity import mint_id
from models.pipeline.follow import Follower
from models.settings import Settings, current
from web import cors, framing
from web.events import answers
from web.events.hub import Hub
from web.events.metrics import Metrics
from web.events.readers import Readers
from web.events.requests import Gate
from web.problems import Problem, from_http

_ROUTE: Final = "/api/conversations/{conversation_id}/events"
_IS_READ: Final = compile_path(_ROUTE)[0]
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,128}", re.ASCII)
#: In the scope, for the log and the trace: the uid of the conversation, which web's and the workers' log name too.
_CONVERSATION: Final = "blotter.conversation"
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})


def create_app(settings: Settings | None = None) -> Starlette:
    """The ASGI application. Raises SettingsError where no key is configured to check tokens with."""
    settings = current() if settings is None else settings
    events = Events(settings)
    origins = allowed_origins(settings)
    for origin in settings.cors_origins:
        cors.check(origin)
    sharing = Middleware(
        CORSMiddleware, allow_origins=origins, allow_methods=["GET", "HEAD"], allow_headers=cors.SENT,
        expose_headers=[*cors.EXPOSED, *answers.STREAM_HEADERS], max_age=cors.MAX_AGE_S,
    )  # fmt: skip
    app = Starlette(
        routes=[
            Route(_ROUTE, events.read, methods=["GET"]),
            Route("/healthz", events.alive),
            Route("/readyz", events.ready),
            Route("/metrics", events.exposition),
        ],
        middleware=[
            Middleware(Observed, log=logs.logger(settings.log_level), metrics=events.metrics),
            sharing,
        ],
        exception_handlers={
            Problem: _refused,
            BlotterError: _refused,
            HTTPException: _refused_by_starlette,
        },
        lifespan=events.lifespan,
    )
    # An address has one spelling; a redirect would name whatever host the request named.
    app.router.redirect_slashes = False
    return app


def allowed_origins(settings: Settings) -> list[str]:
    """The configured ones, and the pages of this very Blotter, which read events at another port."""
    origins = list(settings.cors_origins)
    if settings.base_url is not None:
        parts = urlsplit(settings.base_url)
        origins.append(f"{parts.scheme}://{parts.netloc}")
        if settings.embedded and parts.hostname == "127.0.0.1":
            origins.append(f"{parts.scheme}://localhost:{parts.port}")
    return origins


class Events:
    """The application's views, and what they share."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.metrics = Metrics()
        self._gate = Gate(settings)

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Connected while serving; readers are ended before the server waits for them."""
        logging.getLogger("blotter").setLevel(self._settings.log_level)
        tracing.start(self._settings, "events")
        _raise_descriptor_limit(self._settings.events_connections + 256)
        self._follower = Follower.connect(self._settings)
        self._hub = Hub(self._settings, self._follower, self.metrics)
        self._readers = Readers(self._settings, self._hub, self.metrics)
        await self._hub.start()
        try:
            yield
        finally:
            await self._hub.stop()
            self._follower.close()
            tracing.stop()

    async def read(self, request: Request) -> Response:
        """A conversation's events."""
        conversation_id: str = request.path_params["conversation_id"]
        wish = await asyncio.get_running_loop().run_in_executor(
            None, self._gate.check, request.headers, conversation_id, request.query_params
        )
        place = self._follower.buffer.place(wish.owner, conversation_id)
        request.scope[_CONVERSATION] = place.hex
        if request.method == "HEAD":
            return await self._readers.head(place)
        if wish.live == "sse":
            return await self._readers.stream(place, wish)
        if wish.live == "long-poll":
            return await self._readers.poll(place, wish)
        return await self._readers.once(place, wish, request.headers.get("if-none-match"))

    async def alive(self, _: Request) -> Response:
        """The process answers. Touches nothing."""
        return Response(
            b'{"status":"ok"}', media_type="application/json", headers={"Cache-Control": "no-store"}
        )

    async def ready(self, _: Request) -> Response:
        """200 while hints arrive: without them readers are served by looking, which is late."""
        listening = self._hub.listening
        body = b'{"status":"ok"}' if listening else b'{"status":"unavailable"}'
        return Response(
            body,
            200 if listening else 503,
            media_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    async def exposition(self, _: Request) -> Response:
        """Prometheus' text format."""
        self.metrics.watchers.set(self._hub.watchers)
        self.metrics.listening.set(1 if self._hub.listening else 0)
        return Response(self.metrics.exposition(), media_type="text/plain; version=0.0.4")


def _raise_descriptor_limit(wanted: int) -> None:
    """A reader is a descriptor; many shells begin with 1,024 and allow more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def _refused(_: Request, error: Exception) -> Response:
    return answers.problem(error)


async def _refused_by_starlette(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answers.converted(from_http(error.status_code, tuple((error.headers or {}).items())))


async def _refused_framing(scope: Scope, receive: Receive, send: Send) -> None:
    answer = answers.problem(Problem("malformed", framing.DETAIL))
    answer.headers["Connection"] = "close"
    await answer(scope, receive, send)


class Observed:
    """What every answer gets, and one line of log and one span when it ends: never a path's id, a query, a token or chat
    text. A stream's span is as long as the stream.
    """

    def __init__(self, app: ASGIApp, log: Any, metrics: Metrics) -> None:
        self._app, self._log, self._metrics = app, log, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id")
        request_id = given if given is not None and _REQUEST_ID.fullmatch(given) else mint_id()
        method, route = scope["method"][:16], _route(scope["path"])
        came = {name: headers.get(name) for name in ("traceparent", "tracestate")}
        with tracing.span(f"{method} {route}", kind="server", carrier=came, request_id=request_id) as span:
            status = await self._answered(scope, receive, send, headers, request_id)
            if span is not None:
                span.set_attributes(
                    {
                        "http.request.method": method,
                        "http.route": route,
                        "http.response.status_code": status,
                        **{f"blotter.{name}": value for name, value in _bound(scope).items()},
                    }
                )

    async def _answered(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers, request_id: str
    ) -> int:
        """Let it be answered; the status."""
        began, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                found = MutableHeaders(scope=message)
                found["X-Request-Id"] = request_id
                found["X-Content-Type-Options"] = "nosniff"
                found["Referrer-Policy"] = "no-referrer"
                found["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'; sandbox"
            await send(message)

        codings = headers.getlist("transfer-encoding")
        try:
            if codings and not framing.is_plain(",".join(codings)):
                await _refused_framing(scope, receive, sending)
            else:
                await self._app(scope, receive, sending)
        except Exception as error:  # noqa: BLE001 (the boundary: logged without its message, which may quote chats)
            self._log.error("fault", **logs.fault(error), request_id=request_id, **_bound(scope))
            if not status:
                await answers.converted(from_http(500, ()))(scope, receive, sending)
        finally:
            if scope["path"] not in _QUIET:
                live = _live(scope)
                self._metrics.requests.labels(live, str(status)).inc()
                self._log.info(
                    "request", method=scope["method"][:16], route="events", live=live, status=status,
                    ms=round((time.perf_counter() - began) * 1000, 2), request_id=request_id, **_bound(scope),
                )  # fmt: skip
        return status


def _route(path: str) -> str:
    """Its template, as web names it."""
    if path in _QUIET:
        return path
    return _ROUTE if _IS_READ.match(path) else "unmatched"


def _bound(scope: Scope) -> dict[str, str]:
    """What else a line of this request carries, as web's lines do."""
    conversation, trace = scope.get(_CONVERSATION), tracing.trace_id()
    return {
        **({} if conversation is None else {"conversation": conversation}),
        **({"trace": trace} if trace else {}),
    }


def _live(scope: Scope) -> str:
    query = scope.get("query_string", b"")
    return next((live for live in ("sse", "long-poll") if f"live={live}".encode() in query), "once")
