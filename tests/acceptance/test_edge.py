"""The web's edge, as clients of any manners meet it: slow, silent, cut off, too large."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from models.postgres.migrate import upgrade
from tests.acceptance.webserver import environment, token, web_process
from tests.servers import start_postgres, start_valkey

BODY_S = 2.0
THREADS = 2


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with start_valkey() as valkey, start_postgres(fsync="off") as postgres:
        upgrade(postgres.url)
        environ = environment(postgres.url, valkey.url, BLOTTER_BODY_SECONDS=str(BODY_S))
        with web_process(environ, threads=THREADS) as base:
            yield base


class Client:
    """A connection and what is written on it, byte by byte."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=15)

    def head(self, path: str, *headers: str, owner: str | None = "ann", method: str = "POST") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
        if owner is not None:
            lines.append(f"Authorization: Bearer {token(owner)}")
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        with self.socket.makefile("rb") as file:
            status = int(file.readline().split()[1])
            headers = {}
            while line := file.readline().strip():
                name, _, value = line.decode().partition(": ")
                headers[name.lower()] = value
            return status, headers, file.read(int(headers.get("content-length", 0)))


Connect = Callable[[], Client]


@pytest.fixture
def connect(url: str) -> Iterator[Connect]:
    with ExitStack() as stack:

        def new() -> Client:
            client = Client(url)
            stack.callback(client.socket.close)
            return client

        yield new


def message(number: int = 1) -> bytes:
    return json.dumps({"id": f"m{number}", "role": "user", "content": "hello"}).encode()


def status_of(url: str, path: str) -> int:
    request = urllib.request.Request(f"{url}{path}", headers={"Authorization": f"Bearer {token('ann')}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_two_hundred_half_sent_bodies_hold_up_nobody_and_are_answered_408(url: str, connect: Connect) -> None:
    halves = [connect() for _ in range(200)]
    for half in halves:
        half.head("/api/conversations/half/messages", "Content-Length: 5000")
        half.send(b'{"id":')
    began = time.monotonic()
    for number in range(5):
        assert status_of(url, "/healthz") == 200
        whole, raw = connect(), message(number)
        whole.head("/api/conversations/whole/messages", f"Content-Length: {len(raw)}")
        whole.send(raw)
        assert whole.answer()[0] == 202
    assert time.monotonic() - began < BODY_S, "they waited for those who were silent"
    for half in halves:
        status, headers, body = half.answer()
        assert (status, json.loads(body)["type"]) == (408, "/problems/body-late")
        assert headers["connection"] == "close"
        assert half.socket.recv(1) == b"", "the connection stayed open"
    assert status_of(url, "/api/conversations/half") == 404


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_all_before_it_listens_reads_its_413(
    url: str, connect: Connect, chunked: bool
) -> None:
    client = connect()
    size, piece = 40 * 1024**2, b" " * 1024**2
    client.head(
        "/api/conversations/c/sync", "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    )
    for _ in range(size // len(piece)):
        client.send(b"100000\r\n" + piece + b"\r\n" if chunked else piece)
    if chunked:
        client.send(b"0\r\n\r\n")
    status, headers, body = client.answer()
    assert (status, json.loads(body)["limit"]) == (413, 16 * 1024**2)
    assert headers["connection"] == "close"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_was_cut_off_is_refused_though_it_is_whole_json(
    url: str, connect: Connect, chunked: bool
) -> None:
    client = connect()
    raw = message(77)
    if chunked:
        client.head("/api/conversations/cut/messages", "Transfer-Encoding: chunked")
        client.send(b"%x\r\n%s\r\n" % (len(raw), raw))
    else:
        client.head("/api/conversations/cut/messages", f"Content-Length: {len(raw) + 10}")
        client.send(raw)
    client.socket.shutdown(socket.SHUT_WR)
    status, _, body = client.answer()
    assert (status, json.loads(body)["type"]) == (400, "/problems/malformed")
    assert status_of(url, "/api/conversations/cut") == 404


def test_a_body_in_chunks_is_kept(url: str, connect: Connect) -> None:
    client = connect()
    client.head("/api/conversations/chunks/messages", "Transfer-Encoding: chunked")
    for byte in (message()[:10], message()[10:]):
        client.send(b"%x\r\n%s\r\n" % (len(byte), byte))
    client.send(b"0\r\n\r\n")
    assert client.answer()[0] == 202
    assert status_of(url, "/api/conversations/chunks/messages/m1") == 200


def test_of_a_stranger_a_large_body_is_thrown_away_and_the_answer_is_401(url: str, connect: Connect) -> None:
    client = connect()
    client.head("/api/conversations/c/messages", f"Content-Length: {3 * 1024**2}", owner=None)
    client.send(b" " * 3 * 1024**2)
    status, headers, _ = client.answer()
    assert (status, headers["connection"]) == (401, "close")


def test_a_large_sync_of_an_owner_is_kept(url: str, connect: Connect) -> None:
    client = connect()
    raw = json.dumps({
        "messages": [{"id": f"m{n}", "role": "user", "content": "x" * 200_000} for n in range(10)]
    }).encode()  # fmt: skip
    client.head("/api/conversations/large/sync", f"Content-Length: {len(raw)}")
    client.send(raw)
    status, headers, body = client.answer()
    assert (status, len(json.loads(body)["items"])) == (200, 10)
    assert "connection" not in headers


def test_a_header_with_an_underscore_does_not_pass_for_its_namesake(url: str, connect: Connect) -> None:
    client = connect()
    raw = message()
    client.head("/api/conversations/mine/messages", f"Content-Length: {len(raw)}", "Blotter_Owner: bob")
    client.send(raw)
    assert client.answer()[0] == 202, "taken for Blotter-Owner, it would have been 403"
    assert status_of(url, "/api/conversations/mine") == 200


def test_one_connection_serves_one_request_after_another(url: str, connect: Connect) -> None:
    client = connect()
    for number in range(3):
        raw = message(number)
        client.head("/api/conversations/kept-alive/messages", f"Content-Length: {len(raw)}")
        client.send(raw)
        assert client.answer()[0] == 202
    client.head("/docs", owner=None, method="HEAD")
    with client.socket.makefile("rb") as file:
        assert file.readline().split()[1] == b"200"
