"""The HTTP API over a real pipeline, in one process; every answer is held against the OpenAPI document."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jwt
import orjson
from flask import Flask
from jsonschema import Draft202012Validator

from tests.flow.rig import Rig
from web.openapi import document

SECRET = "a-secret-of-at-least-32-bytes-for-tests"
_numbers = itertools.count(1)


class Reply(NamedTuple):
    """An answer; ``body`` parsed where there is one."""

    status: int
    headers: Mapping[str, str]
    body: Any


def token(owner: str = "ann", **claims: Any) -> str:
    """A bearer token for ``owner``."""
    return jwt.encode({"sub": owner, "exp": int(time.time()) + 600, **claims}, SECRET, algorithm="HS256")


class Api:
    """Calls as a client would make them, and the rig behind."""

    def __init__(self, made: Rig, app: Flask) -> None:
        self.rig = made
        self.app = app
        self._client = app.test_client()

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
        response = self._client.open(address, method=method, data=data, headers=sent)
        text = response.get_data()
        json = (response.content_type or "").endswith("json")
        reply = Reply(response.status_code, response.headers, orjson.loads(text) if json and text else None)
        check(method, address, reply)
        return reply


def fresh(name: str = "c") -> str:
    """A conversation's id nobody has used."""
    return f"{name}-{next(_numbers)}"


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
