"""The edge without a server: what a thread raises, and a client that has gone, leave nothing waiting."""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from urllib.parse import unquote

import jwt
import pytest

from models.settings import Settings
from web.edge import Edge, create_app

SCOPE: dict[str, Any] = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/static/blotter.js",
    "raw_path": b"/static/blotter.js",
    "query_string": b"",
    "headers": [],
}


@pytest.fixture
def edge() -> Edge:
    return create_app(Settings(jwt_secret="x" * 32, web_threads=1))


async def nothing() -> dict[str, Any]:
    raise AssertionError("no body was announced")


async def answer(edge: Edge, **scope: Any) -> list[dict[str, Any]]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await asyncio.wait_for(edge({**SCOPE, **scope}, nothing, send), 10)
    return sent


def test_a_request_is_answered_by_a_thread(edge: Edge) -> None:
    start, body = asyncio.run(answer(edge))
    assert (start["status"], b"createBlotter" in body["body"]) == (200, True)


def test_who_acts_for_two_owners_at_once_acts_for_neither(edge: Edge) -> None:
    """Joined by a comma, as other headers are, they named a third one: what was saved would have been his."""
    claims = {"sub": "backend", "scope": "blotter:act-for", "exp": 1 << 40}
    token = jwt.encode(claims, "x" * 32, "HS256").encode()
    owners = [(b"blotter-owner", b"ann"), (b"blotter-owner", b"bob")]
    scope = {"path": "/api/conversations", "raw_path": b"/api/conversations"}
    headers = [(b"authorization", b"Bearer " + token), *owners]
    start, body = asyncio.run(answer(edge, **scope, headers=headers))
    assert (start["status"], b"Blotter-Owner must be one name" in body["body"]) == (422, True)


@pytest.mark.parametrize("fault", [RuntimeError, SystemExit])
def test_what_a_thread_raises_is_raised_where_it_is_awaited(
    edge: Edge, fault: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise fault("broken")

    with monkeypatch.context() as patched:
        patched.setattr(edge._app, "wsgi_app", broken)
        with pytest.raises(fault):
            asyncio.run(answer(edge))
    assert asyncio.run(answer(edge))[0]["status"] == 200, "its only thread is lost"


def test_a_request_that_is_given_up_costs_no_thread(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on = threading.Event(), threading.Event()
    whole = edge._app.wsgi_app

    def slow(*arguments: Any) -> Any:
        entered.set()
        assert go_on.wait(10)
        return whole(*arguments)

    async def main() -> None:
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        monkeypatch.setattr(edge._app, "wsgi_app", slow)
        first = asyncio.create_task(answer(edge))
        assert await asyncio.to_thread(entered.wait, 10)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set()
        assert (await answer(edge))[0]["status"] == 200
        assert faults == []

    asyncio.run(main())


@pytest.mark.parametrize(
    "path", [b"//healthz", b"///healthz", b"/%2Fhealthz", b"/%2fhealthz", b"/static%2Fblotter.js"]
)
def test_an_address_has_no_second_spelling(edge: Edge, path: bytes) -> None:
    """A server in front that shows `/metrics` to nobody does not know them as the same."""
    (start, _) = asyncio.run(answer(edge, path=unquote(path), raw_path=path))
    assert start["status"] == 404


def test_an_encoded_slash_divides_nothing(edge: Edge) -> None:
    claims = {"sub": "ann", "exp": 1 << 40}
    token = jwt.encode(claims, "x" * 32, "HS256").encode()
    path = b"/api/conversations/c%2Fmessages"
    scope = {"path": unquote(path), "raw_path": path, "headers": [(b"authorization", b"Bearer " + token)]}
    start, body = asyncio.run(answer(edge, **scope))
    assert (start["status"], b"conversationId" in body["body"]) == (422, True)
