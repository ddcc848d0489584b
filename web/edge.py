"""The edge: receives each request's body whole, within a deadline, and only then lets the application answer.

    granian --interface asgi --factory web.edge:create_app

A save runs on the event loop itself, as a strand (models/core/strands.py): saves that are under way together share one
connection and one write of the buffer's log. All else, and a save that is large or wants to wait, runs in a thread.

Flask's views run in WEB_THREADS threads, and a thread that reads a body waits for its client: sixteen clients that
announce a body and fall silent would stop two processes of eight. granian bounds the time for headers only. So bodies
are received on the event loop, where a client that is slow costs a little memory and no thread.

Laws:
1. A thread never waits for a client; the event loop waits for nobody.
2. Everything is bounded: the time of a body, its bytes, and the bytes of all bodies together. What is beyond is read and
   thrown away, up to a bound of its own: a client that is still sending would not read our refusal.
3. The application decides. A body that was not received comes to it empty and marked (`web.call.BODY`), so every refusal
   has the order, the form, the headers and the line of log of all others.
4. Of a stranger, only a small body is kept.

Rejected: a2wsgi and asgiref. The first hands the threads a stream that waits for the client, the second runs all requests
in one thread. More threads: a client can always hold more connections. granian's RSGI: a little quicker, but it drops
headers that are not ASCII, and with a `Blotter-Owner` dropped a backend would write to its own name.

What a thread costs: a request goes from the event loop to it and back, each way a word across threads. One process, saves
of 300 bytes, medians of 14 alternating rounds on two cores that others used too; processor time a save, as a multiple of
what it is with granian's own WSGI:

                                              one client    eight clients
    asyncio's loop, run_in_executor               1.9            1.44
    uvloop, run_in_executor                       1.6            1.26
    uvloop, a future of our own                   1.6            1.18

granian takes uvloop where it is installed. Another process (WEB_CONCURRENCY) buys the rest back; nothing buys back a thread
that waits for a silent client. Tried, and not worth its lines: a queue in the place of the executor.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from io import BytesIO
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import unquote_to_bytes

from flask import Flask

from models import tracing
from models.core import strands
from models.errors import BlotterError
from models.settings import Settings, current
from web import app as application
from web.call import BODY, Context
from web.framing import is_plain
from web.operation import Operation
from web.routes import OPERATIONS

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

#: More of a body than this is kept only for a token that holds.
SMALL_BYTES: Final = 64 * 1024
#: A large body gets a second more for each of these.
BYTES_A_SECOND: Final = 64 * 1024
#: So many times the largest body is read and thrown away, for a client that does not listen before it has sent.
THROWN_AWAY: Final = 4

#: Whether we live is answered by the event loop: all threads may wait for a buffer that is stalled, and whoever is killed for
#: that helps nobody.
ALIVE: Final = "/healthz"

#: Objects more than were let go (Python's default: 700), then how many of these until the older ones are looked at.
COLLECT_AFTER: Final = (10_000, 10, 10)


def create_app(settings: Settings | None = None) -> Edge:
    """The ASGI application. Raises SettingsError as `web.app.create_app`."""
    settings = current() if settings is None else settings
    return Edge(application.create_app(settings), settings)


class Body(NamedTuple):
    """``fault``: why ``raw`` is empty although something was sent; ``seen``: bytes that came."""

    raw: bytes
    seen: int
    fault: Literal["", "coded", "cut", "late", "large", "unread"] = ""


_NONE: Final = Body(b"", 0)


class Answer(NamedTuple):
    """What WSGI answered."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Edge:
    """An ASGI application around ``app``. One event loop; ``settings.web_threads`` threads."""

    def __init__(self, app: Flask, settings: Settings, operations: Iterable[Operation] = OPERATIONS) -> None:
        """``operations``: what of ``app`` may run as a strand is told by these."""
        self._app = app
        context: Context = app.extensions["blotter"]
        self._context = context
        self._strands = re.compile("|".join(_addresses(one) for one in operations if one.strand))
        self._verifier = context.verifier
        self._limit = context.largest_body
        self._all_limit = self._limit * settings.web_threads
        self._deadline_s = settings.body_seconds
        self._held = 0
        self._threads = ThreadPoolExecutor(settings.web_threads, thread_name_prefix="blotter-web")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"].removeprefix("lifespan.")
            if kind == "startup":
                # What was loaded stays: collections need not look at it, nor after every second save. (A seventeenth of
                # a save's processor time.)
                gc.collect()
                gc.freeze()
                gc.set_threshold(*COLLECT_AFTER)
            if kind == "shutdown":
                # What runs ends first; granian has waited for the answers already.
                self._threads.shutdown()
                tracing.stop()
            await send({"type": f"lifespan.{kind}.complete"})
            if kind == "shutdown":
                return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        environ = environment(scope)
        body = _NONE
        try:
            if "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ:
                body = await self._body(environ, receive)
            if environ["PATH_INFO"] == ALIVE:
                answer = self._run(environ, body)
            elif self._may_strand(environ, body):
                answer = await strands.run(partial(self._run, environ, body), self._threads)
            else:
                answer = await self._in_thread(environ, body)
        finally:
            self._held -= len(body.raw)
        if body.fault:
            answer.headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    def _may_strand(self, environ: dict[str, Any], body: Body) -> bool:
        """A small save, once somebody has connected the pipeline, which blocks; one that waits until it is stored does, too."""
        pipeline = self._context.connected
        return (
            pipeline is not None
            and body.seen <= SMALL_BYTES
            and "HTTP_PREFER" not in environ
            and self._strands.fullmatch(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}") is not None
            and pipeline.takes_strands
        )

    def _in_thread(self, environ: dict[str, Any], body: Body) -> asyncio.Future[Answer]:
        """The answer of one of the threads; `run_in_executor` would chain two futures, each with its locks."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()

        def work() -> None:
            answer: Answer | BaseException
            try:
                answer = self._run(environ, body)
            except BaseException as error:  # noqa: BLE001 (raised where it is awaited)
                answer = error
            loop.call_soon_threadsafe(_settle, answered, answer)

        self._threads.submit(work)
        return answered

    async def _body(self, environ: dict[str, Any], receive: Receive) -> Body:
        """The body, received whole or with its fault; ``environ`` then tells its length, sent in chunks or not."""
        # As the server tells where one body ends, the next request begins: with chunks, a length has no meaning.
        coding = environ.pop("HTTP_TRANSFER_ENCODING", None)
        declared = int(environ["CONTENT_LENGTH"]) if coding is None else None
        if coding is None or is_plain(coding):
            body = await self._received(environ, declared, receive)
        else:
            body = Body(b"", 0, "coded")
        if declared is None:
            environ["CONTENT_LENGTH"] = str(body.seen)
        environ[BODY] = body.fault
        return body

    async def _received(self, environ: dict[str, Any], declared: int | None, receive: Receive) -> Body:
        pieces: list[bytes] = []
        seen = kept = 0
        fault: Literal["", "large", "unread"] = "large" if (declared or 0) > self._limit else ""
        known = False
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._deadline_s + (declared or 0) / BYTES_A_SECOND) as deadline:
                more = True
                while more and (declared is None or seen < declared):
                    message = await receive()
                    if message["type"] != "http.request":
                        return Body(b"", seen, "cut")
                    piece, more = message.get("body", b""), message.get("more_body", False)
                    seen += len(piece)
                    if declared is None:
                        deadline.reschedule(began + self._deadline_s + seen / BYTES_A_SECOND)
                    if not fault and seen > SMALL_BYTES and not known:
                        known = await self._is_known(environ)
                        fault = "" if known else "unread"
                    if not fault and seen > self._limit:
                        fault = "large"
                    if not fault and self._held + len(piece) > self._all_limit:
                        fault = "unread"
                    if fault:
                        pieces.clear()
                        self._held -= kept
                        kept = 0
                        if seen > self._limit * THROWN_AWAY:
                            return Body(b"", seen, fault)
                    else:
                        pieces.append(piece)
                        self._held += len(piece)
                        kept += len(piece)
            if fault:
                return Body(b"", seen, fault)
            if declared is not None and seen < declared:
                return Body(b"", seen, "cut")
            whole, kept = b"".join(pieces), 0
            return Body(whole, seen)
        except TimeoutError:
            return Body(b"", seen, fault or "late")
        finally:
            self._held -= kept

    async def _is_known(self, environ: dict[str, Any]) -> bool:
        """Whether the token holds. In a thread that is none of the views': keys may have to be fetched."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._verifier.caller, environ.get("HTTP_AUTHORIZATION"))
        except BlotterError:
            return False
        return True

    def _run(self, environ: dict[str, Any], body: Body) -> Answer:
        """The WSGI application's answer, in this thread."""
        environ["wsgi.input"] = BytesIO(body.raw)
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: object = None
        ) -> Callable[[bytes], None]:
            started.append((status, headers))
            return _refuse_write

        parts = self._app.wsgi_app(environ, start)
        try:
            text = b"".join(parts)
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()
        status, headers = started[-1]
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        return Answer(int(status[:3]), raw, text)


def _addresses(operation: Operation) -> str:
    """A pattern of its requests: method and path."""
    return f"{operation.method} {re.sub('{[^}]+}', '[^/]+', operation.path)}"


def _settle(answered: asyncio.Future[Answer], answer: Answer | BaseException) -> None:
    if answered.cancelled():
        return
    if isinstance(answer, BaseException):
        answered.set_exception(answer)
    else:
        answered.set_result(answer)


def _refuse_write(_: bytes) -> None:
    raise NotImplementedError("PEP 3333's write() is for applications of another age")


def environment(scope: Scope) -> dict[str, Any]:
    """WSGI's environ (PEP 3333) of an ASGI request, without its body."""
    path = _path(scope["raw_path"]) if scope.get("raw_path") else scope["path"].encode()
    server, client = scope.get("server") or ("localhost", 80), scope.get("client") or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": path.decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for raw, value in scope["headers"]:
        name = _variable(raw)
        if name is None:
            continue
        text = value.decode("latin-1")
        if name in environ:
            text = f"{environ[name]}{_BETWEEN.get(name, ',')}{text}"
        environ[name] = text
    return environ


def _path(raw: bytes) -> bytes:
    """The path of an address, decoded, in its one spelling: what a server in front may not let through for its spelling must
    not be let in here for another. A slash that was encoded divides nothing (RFC 3986, 2.2); two at the beginning, which
    Werkzeug would read as one, are no address of ours.
    """
    if b"%" in raw:
        raw = unquote_to_bytes(raw.replace(b"%2F", b"%252F").replace(b"%2f", b"%252f"))
    return b"/." + raw if raw.startswith(b"//") else raw


#: What stands between the values of a header that came more than once. No owner's name holds a line feed: of two, none is taken.
_BETWEEN: Final = {"HTTP_COOKIE": ";", "HTTP_BLOTTER_OWNER": "\n"}


@lru_cache(maxsize=1024)
def _variable(header: bytes) -> str | None:
    """CGI's name of a header; None for one with `_`, which would pass for its namesake with `-` (as nginx does)."""
    if b"_" in header:
        return None
    name = header.decode("latin-1").upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
