"""Clients of bad manners at the real web: header floods, heads that never end, smuggled lengths, odd methods and types.
Nobody else waits for them, and no answer is a 5xx.

Half-sent bodies: tests/acceptance/test_edge.py.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from models.postgres.migrate import upgrade
from tests.acceptance.webserver import environment, token, web_process
from tests.security.bodies import BODIES, ROUTES
from tests.servers import start_postgres, start_valkey

PATH = "/api/conversations/c/messages"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with start_valkey() as valkey, start_postgres(fsync="off") as postgres:
        upgrade(postgres.url)
        with web_process(environment(postgres.url, valkey.url, BLOTTER_BODY_SECONDS="2"), threads=2) as base:
            yield base


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=10)


def spoken(url: str, raw: bytes) -> list[int]:
    """All statuses that come back for ``raw``, until the server closes or says no more."""
    got = b""
    with connect(url) as wire:
        wire.settimeout(4)
        with suppress(OSError):
            wire.sendall(raw)
            while data := wire.recv(65536):
                got += data
    return [int(line.split()[1]) for line in got.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def saves(url: str, number: int = 0) -> float:
    """Seconds that an honest save takes."""
    began = time.monotonic()
    body = {"id": f"m{number}", "role": "user", "content": "hello"}
    answer = httpx.put(
        f"{url}{PATH}", json=body, headers={"Authorization": f"Bearer {token('ann')}"}, timeout=20
    )
    assert answer.status_code == 202
    return time.monotonic() - began


def test_heads_that_never_end_hold_up_nobody(url: str) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            wire = stack.enter_context(connect(url))
            wire.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Slow: ".encode())
        assert max(saves(url, number) for number in range(5)) < 2


@pytest.mark.parametrize(
    "headers",
    [
        "".join(f"X-{n}: {n}\r\n" for n in range(5_000)),
        f"X-Long: {'x' * 2_000_000}\r\n",
        f"Authorization: Bearer {'x' * 200_000}\r\n",
        f"Cookie: {'a=b; ' * 50_000}\r\n",
        "X-Odd\x01: x\r\n",
        "X-Odd: \x00\r\n",
        " folded: x\r\n",
        ": nameless\r\n",
    ],
    ids=["five thousand", "two megabytes", "a huge token", "cookies", "odd name", "NUL", "folded", "nameless"],
)  # fmt: skip
def test_floods_of_headers_are_refused_or_ignored(url: str, headers: str) -> None:
    raw = f"GET /api/conversations HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n".encode()
    assert all(400 <= status < 500 for status in spoken(url, raw))
    saves(url)


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\r\nContent-Length: 50\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 1e3\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content_Length: 5\r\n",
    ],
)
def test_a_second_request_is_not_smuggled_in_a_body(url: str, framing: str) -> None:
    """With an owner's token in front, and a stranger's request behind: that one is never answered as the owner's."""
    inner = b"GET /api/conversations HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{framing}"
    raw = f"{head}Authorization: Bearer {token('ann')}\r\n\r\n".encode() + b"0\r\n\r\n" + inner
    assert all(400 <= status < 500 for status in spoken(url, raw))
    saves(url)


@pytest.mark.parametrize(
    "method", ["TRACE", "CONNECT", "HEAD", "OPTIONS", "PROPFIND", "get", "POST", "PUT", "PATCH", "DELETE", "GET", "BREW"]
)  # fmt: skip
def test_no_method_on_any_address_is_a_fault(url: str, method: str) -> None:
    paths = sorted({route.to("c-methods") for route in ROUTES if "events" not in route.path})
    with httpx.Client(headers={"Authorization": f"Bearer {token('ann')}"}, timeout=20) as http:
        for path in paths:
            answer = http.request(
                method, f"{url}{path}", json={"id": "x"} if method in ("POST", "PUT") else None
            )
            assert answer.status_code < 500, (method, path)
            assert token("ann")[:20].encode() not in answer.content, "the request is echoed"
            override = http.post(f"{url}{path}", json={}, headers={"X-HTTP-Method-Override": "DELETE"})
            assert override.status_code < 500


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml",
     "application/json; charset=utf-16", "application/json, text/plain", "APPLICATION/JSON-seq", "text/json", "*/*"],
)  # fmt: skip
def test_no_body_of_another_type_is_taken(url: str, kind: str) -> None:
    """What a form of another site can send without asking (simple requests) is never a save."""
    for route in ROUTES:
        if route.body:
            answer = httpx.request(
                route.method, f"{url}{route.to('c-types')}", content=json.dumps(BODIES[route.id]).encode(),
                headers={"Authorization": f"Bearer {token('ann')}", "Content-Type": kind}, timeout=20,
            )  # fmt: skip
            assert answer.status_code in (400, 415), (route.id, answer.text)
