"""The HTTP API over a real pipeline, in one process, through the edge: saves as strands, all else in threads.

Every answer is held against the OpenAPI document.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

import jwt
import orjson
import uvloop
from flask import Flask
from jsonschema import Draft202012Validator
from werkzeug.datastructures import Headers

from tests.flow.rig import Rig
from web.call import Context
from web.edge import Edge
from web.openapi import document

SECRET = "a-secret-of-at-least-32-bytes-for-tests"
_loops = threading.local()
_numbers = itertools.count(1)


class Reply(NamedTuple):
    """An answer; ``body`` parsed where there is one."""

    status: int
    headers: Headers
    body: Any


def token(owner: str = "ann", **claims: Any) -> str:
    """A bearer token for ``owner``."""
    return jwt.encode({"sub": owner, "exp": int(time.time()) + 600, **claims}, SECRET, algorithm="HS256")


class Api:
    """Calls as a client would make them, and the rig behind."""

    def __init__(self, made: Rig, app: Flask) -> None:
        self.rig = made
        self.app = app
        context: Context = app.extensions["blotter"]
        context.pipeline()
        self._edge = Edge(app, context.settings)

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        owner: str = "ann",
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **claims: Any,
    ) -> Reply:
        """One request, below /api/conversations where ``path`` does not begin with a slash."""
        address = path if path.startswith("/") else f"/api/conversations/{path}"
        data = raw if raw is not None else None if body is None else orjson.dumps(body)
        sent = {"Authorization": f"Bearer {token(owner, **claims)}", **(headers or {})}
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        reply = _runner().run(request(self._edge, method, address, sent, data))
        check(method, address, reply)
        return reply


async def request(
    edge: Edge, method: str, address: str, headers: Mapping[str, str], data: bytes | None
) -> Reply:
    """One request as a server would hand it to the edge, on the running loop."""
    path, _, query = address.partition("?")
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    if data is not None:
        raw.append((b"content-length", str(len(data)).encode()))
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": unquote(path),
        "raw_path": path.encode(), "query_string": query.encode(), "headers": raw,
    }  # fmt: skip
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data or b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await edge(scope, receive, send)
    start, body = sent
    found = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]])
    json = found.get("Content-Type", "").endswith("json")
    return Reply(start["status"], found, orjson.loads(body["body"]) if json and body["body"] else None)


def fresh(name: str = "c") -> str:
    """A conversation's id nobody has used."""
    return f"{name}-{next(_numbers)}"


def _runner() -> asyncio.Runner:
    """One event loop for all Apis, as in a process of web; who calls from another thread (no strands) has his own."""
    if not hasattr(_loops, "runner"):
        _loops.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    runner: asyncio.Runner = _loops.runner
    return runner


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    return orjson.loads(orjson.dumps(document()))


@lru_cache(maxsize=64)
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": name, "components": _document()["components"]})


def check(method: str, path: str, reply: Reply) -> None:
    """The answer is one the document names, in the shape it gives."""
    for template, methods in _document()["paths"].items():
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path.partition("?")[0]) and method.lower() in methods:
            responses = methods[method.lower()]["responses"]
            assert str(reply.status) in responses, (
                f"{method} {template} answered {reply.status}: {reply.body}"
            )
            content = responses[str(reply.status)].get("content", {})
            if reply.body is not None:
                (media,) = content.values()
                _validator(media["schema"]["$ref"]).validate(reply.body)
            return
