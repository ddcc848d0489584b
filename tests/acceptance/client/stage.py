"""What the tests of the Python client share: a running web, a network that loses answers, words."""

from __future__ import annotations

import random
from typing import Any

import httpx
from blotter_client import (
    Blotter,
    RetryPolicy,
)

from tests.acceptance.webserver import token
from tests.servers import Running

#: Emoji, a family of four joined, combining marks, right to left, characters beyond 16 bits.
TRICKY = "na\u0301ïve 👩‍👩‍👧‍👦 שלום \u202bمرحبا\u202c 𝔘𝔫𝔦 🇩🇪 e\u0301\u0323 "
STALE_S = 1.5


class Stage:
    """A running web, and what it stands on."""

    def __init__(self, url: str, buffer: Running, environ: dict[str, str]) -> None:
        self.url = url
        self.buffer = buffer
        self.environ = environ

    def client(self, owner: str = "ann", **how: Any) -> Blotter:
        return Blotter(self.url, token(owner), **how)


def words(seed: int, count: int = 120) -> list[str]:
    chance = random.Random(seed)
    return [chance.choice(TRICKY.split(" ")) + " " for _ in range(count)]


class Unreliable(httpx.BaseTransport):
    """The real transport; every answer may be lost after the request was carried out, or the request before it was."""

    def __init__(self, chance: random.Random, share: float) -> None:
        self._real = httpx.HTTPTransport()
        self._chance = chance
        self._share = share
        self.lost = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self._chance.random() < self._share / 2:
            self.lost += 1
            raise httpx.ConnectTimeout("never sent", request=request)
        response = self._real.handle_request(request)
        if self._chance.random() < self._share:
            response.close()
            self.lost += 1
            raise httpx.ReadError("the answer was lost", request=request)
        return response

    def close(self) -> None:
        self._real.close()


class Recorder(httpx.HTTPTransport):
    """The real transport; remembers what was sent, to send it again."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "GET":
            self.sent.append(request)
        return super().handle_request(request)


class AsyncUnreliable(httpx.AsyncBaseTransport):
    """The same, asynchronous."""

    def __init__(self, chance: random.Random, share: float) -> None:
        self._real = httpx.AsyncHTTPTransport()
        self._chance = chance
        self._share = share

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._real.handle_async_request(request)
        if self._chance.random() < self._share:
            await response.aclose()
            raise httpx.ReadError("the answer was lost", request=request)
        return response

    async def aclose(self) -> None:
        await self._real.aclose()


QUICK = RetryPolicy(base_s=0.005, cap_s=0.05, patience_s=30.0)
