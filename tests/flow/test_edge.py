"""Saves on web's event loop, beside requests that hold its threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from models.errors import StoreUnavailable
from models.settings import load
from tests.flow.api import SECRET, request, token
from tests.flow.rig import Rig, rig
from web.app import create_app
from web.edge import Edge


@pytest.fixture
def chat(buffer_url: str, database_url: str) -> Iterator[Rig]:
    with rig(buffer_url, database_url) as made:
        yield made


@pytest.fixture
def edge(chat: Rig) -> Edge:
    """One with a single thread."""
    settings = load({"BLOTTER_JWT_SECRET": SECRET, "WEB_THREADS": "1"})
    app = create_app(settings, chat.pipeline)
    app.extensions["blotter"].pipeline()
    return Edge(app, settings)


async def ask(edge: Edge, method: str, path: str, data: bytes | None = None) -> int:
    headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}
    return (await request(edge, method, f"/api/conversations/{path}", headers, data)).status


@pytest.fixture
def held(chat: Rig, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Reads of what is cold, as all but `c` is, hold their thread: set when one does, and set to let it go."""
    chat.say("c", "m0", "x")
    entered, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        entered.set()
        assert go_on.wait(30)
        raise StoreUnavailable("away")

    monkeypatch.setattr(chat.pipeline.store, "base", slow)
    return entered, go_on


def test_it_is_alive_while_all_threads_wait(
    edge: Edge, held: tuple[threading.Event, threading.Event]
) -> None:
    """With the buffer stalled and many clients it took 18 s: a probe would have had every web killed, again and again."""
    entered, go_on = held

    async def main() -> None:
        reading = asyncio.create_task(ask(edge, "GET", "cold"))
        try:
            assert await asyncio.to_thread(entered.wait, 10)
            for method in ("GET", "HEAD"):
                assert (await asyncio.wait_for(request(edge, method, "/healthz", {}, None), 5)).status == 200
        finally:
            go_on.set()
            await reading

    asyncio.run(main())


def test_saves_of_what_is_hot_need_no_thread(
    edge: Edge, chat: Rig, held: tuple[threading.Event, threading.Event]
) -> None:
    """Not for the figures of the buffer's memory either, which one of them asks for each second."""
    entered, go_on = held

    async def main() -> None:
        message = b'{"id": "m1", "role": "user", "content": "x"}'
        assert await ask(edge, "POST", "c/messages", message) == 202
        reading = asyncio.create_task(ask(edge, "GET", "cold"))
        try:
            assert await asyncio.to_thread(entered.wait, 10)
            for _ in range(3):
                chat.pipeline.pressure._next_ms = 0
                assert await asyncio.wait_for(ask(edge, "POST", "c/messages", message), 5) == 202
                assert chat.pipeline.pressure._next_ms > 0
        finally:
            go_on.set()
            await reading
            chat.buffer.wire.close()
            await asyncio.sleep(0)

    asyncio.run(main())
