"""A wrong address is told at once; a server that has answered before is waited for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import httpx
import pytest
from blotter_client import ApiError, AsyncBlotter, Blotter, NotReached, RetryPolicy, Unreachable
from blotter_client.blocking import client

QUICK = RetryPolicy(base_s=0.001, cap_s=0.001, patience_s=0.05)


class Server:
    """Answers what `script` says, in order, the last entry again and again: a status, or an error to raise."""

    def __init__(self, *script: int | Exception) -> None:
        self.script = list(script)
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        now = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(now, Exception):
            raise now
        return httpx.Response(now, json={"conversations": [], "after": None})

    def client(self) -> Blotter:
        return Blotter("http://blotter.test:8400", "t", retry=QUICK, transport=httpx.MockTransport(self))


REFUSED = httpx.ConnectError("[Errno 111] Connection refused")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8400",
        "blotter.example",
        "ftp://x",
        "http://",
        "http://[::1",
        "http://h:99999",
        "http://a b",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_sent(url: str) -> None:
    for kind in (Blotter, AsyncBlotter):
        with pytest.raises(ValueError, match="is no address of Blotter"):
            kind(url, "t")


def test_a_first_connection_that_is_refused_is_told_at_once() -> None:
    server = Server(REFUSED)
    with server.client() as blotter, pytest.raises(NotReached) as found:
        blotter.list_conversations()
    assert server.asked == 1
    assert str(found.value) == (
        "http://blotter.test:8400 cannot be reached ([Errno 111] Connection refused): "
        "start Blotter there, or correct the address"
    )

    async def asynchronously() -> None:
        transport = httpx.MockTransport(server)
        async with AsyncBlotter("http://blotter.test", "t", transport=transport) as blotter:
            await blotter.list_conversations()

    with pytest.raises(NotReached):
        asyncio.run(asynchronously())


@pytest.mark.parametrize("first", [200, 503])
def test_a_server_that_answered_before_is_waited_for(first: int) -> None:
    server = Server(first, REFUSED, REFUSED, 200)
    with server.client() as blotter:
        if first == 200:
            blotter.list_conversations()
        assert blotter.list_conversations()["conversations"] == []
    assert server.asked == 4

    gone = Server(200, REFUSED)
    with gone.client() as blotter:
        blotter.list_conversations()
        with pytest.raises(Unreachable, match="cannot be reached") as found:
            blotter.list_conversations()
    assert not isinstance(found.value, NotReached)
    assert gone.asked > 3


def test_silence_is_waited_for_even_at_first() -> None:
    server = Server(httpx.ConnectTimeout("slow"), 200)
    with server.client() as blotter:
        blotter.list_conversations()
    assert server.asked == 2


def test_a_server_that_comes_back_late_and_busy_is_given_patience_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0

    def pause(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    monkeypatch.setattr(client, "pause", pause)
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: now_s))
    seen = {0: 0, 200: 0, 503: 0}

    def answer(_: httpx.Request) -> httpx.Response:
        status = 200 if now_s == 0 and not seen[200] else 0 if now_s < 38 else 503 if now_s < 50 else 200
        seen[status] += 1
        if status == 0:
            raise REFUSED
        return httpx.Response(status, json={"conversations": [], "after": None})

    patience = RetryPolicy(base_s=0.1, cap_s=1.0, patience_s=40)
    transport = httpx.MockTransport(answer)
    with Blotter("http://blotter.test:8400", "t", retry=patience, transport=transport) as blotter:
        blotter.list_conversations()
        blotter.list_conversations()
    assert seen[200] == 2
    assert seen[0] > 20
    assert seen[503] > 5


def test_a_server_that_comes_and_goes_does_not_have_patience_for_ever() -> None:
    server = Server(200, *[REFUSED, 503] * 500)
    with server.client() as blotter:
        blotter.list_conversations()
        with pytest.raises((Unreachable, ApiError)):
            blotter.list_conversations()
    assert server.asked < 500


@pytest.mark.parametrize(
    "page",
    [
        httpx.Response(200, html="<h1>Sign in</h1>"),
        httpx.Response(200),
        httpx.Response(200, json=["not", "Blotter"]),
        httpx.Response(202, text='{"id": "m", "vers', headers={"Content-Type": "application/json"}),
    ],
)
def test_a_page_of_somebody_else_acknowledges_nothing(page: httpx.Response) -> None:
    saved = httpx.Response(202, json={"id": "m", "state": "buffered"})
    answers = [page, saved]
    transport = httpx.MockTransport(lambda _: answers.pop(0))
    patient = RetryPolicy(base_s=0.001, cap_s=0.001, patience_s=5)
    with Blotter("http://blotter.test:8400", "t", retry=patient, transport=transport) as blotter:
        assert blotter.conversation("c").save_user_message("m", content="hello")["state"] == "buffered"
    assert answers == []
