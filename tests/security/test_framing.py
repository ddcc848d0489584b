"""Where a body ends, asked of web and of events over the wire: no two readings, or the connection is closed.

Each request is followed by another on the same connection; what is answered tells where the server saw the first one end.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from models.postgres.migrate import upgrade
from tests.acceptance.webserver import SECRET, environment, token, web_process
from tests.flow.events import events_process
from tests.servers import start_postgres, start_valkey

PATH = "/api/conversations/c/messages"
BODY = json.dumps({"id": "m", "role": "user", "content": "hello"})
CHUNKS = f"{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n"


class Urls(NamedTuple):
    web: str
    events: str


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    log: Path = tmp_path_factory.mktemp("framing") / "events.log"
    with start_valkey() as valkey, start_postgres(fsync="off") as postgres:
        upgrade(postgres.url)
        environ = environment(postgres.url, valkey.url)
        with (
            web_process(environ, threads=2) as web,
            events_process(
                log, REDIS_URL=valkey.url, DATABASE_URL=postgres.url, BLOTTER_JWT_SECRET=SECRET
            ) as events,
        ):
            yield Urls(web, events.url)


class Spoken(NamedTuple):
    """What came back. ``closed``: the server closed the connection by itself."""

    statuses: list[int]
    closed: bool
    text: str


def speak(url: str, line: str, headers: str, body: str) -> Spoken:
    """A request, and behind it another: GET /healthz, whose answer tells that the connection went on."""
    behind = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    raw = (
        f"{line} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {token('ann')}\r\n"
        f"{headers}\r\n{body}{behind}"
    )
    parts = urlsplit(url)
    got, closed = b"", False
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=10) as wire:
        with suppress(OSError):
            wire.sendall(raw.encode())
        # The answer to what lies behind is the last that comes on a connection that stays open.
        while b'{"status":"ok"}' not in got:
            try:
                data = wire.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                closed = True
                break
            got += data
    return Spoken([int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3})", got)], closed, got.decode())


AMBIGUOUS = [
    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    f"Content-Length: {len(CHUNKS)}\r\nTransfer-Encoding: Chunked\r\n",
]


@pytest.mark.parametrize("framing", AMBIGUOUS)
def test_of_a_length_and_chunks_the_chunks_count_and_the_connection_ends(urls: Urls, framing: str) -> None:
    """Another server in front may have gone by the length: what it takes for the next request is not answered here."""
    assert speak(urls.web, f"PUT {PATH}", framing, CHUNKS)[:2] == ([202], True)
    answer = speak(urls.events, "GET /api/conversations/c/events", framing, CHUNKS)
    assert answer[:2] == ([200], True)
    assert '"hello"' in answer.text


CODED = [
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity, chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\nContent-Length: 4\r\n",
]


@pytest.mark.parametrize("framing", CODED)
def test_codings_besides_chunked_are_refused_whatever_is_asked_and_the_connection_ends(
    urls: Urls, framing: str
) -> None:
    for url, line in (
        (urls.web, f"PUT {PATH}"),
        (urls.web, "GET /api/conversations"),
        (urls.web, "GET /healthz"),
        (urls.web, "GET /nowhere"),
        (urls.events, "GET /api/conversations/c/events"),
        (urls.events, "GET /healthz"),
    ):
        answer = speak(url, line, framing, CHUNKS)
        assert answer[:2] == ([400], True), (line, answer)
        assert '"/problems/malformed"' in answer.text
        assert "Transfer-Encoding" in answer.text


MALFORMED = [
    "Transfer-Encoding: chunked, gzip\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: xchunked\r\nContent-Length: 4\r\n",
    "Transfer-Encoding : chunked\r\nContent-Length: 4\r\n",
    "Transfer-Encoding: \x0bchunked\r\nContent-Length: 4\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding:\r\nContent-Length: 4\r\n",
    "X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "Content-Length: 4\r\nContent-Length: 5\r\n",
    "Content-Length: 4, 4\r\n",
    "Content-Length: +4\r\n",
    "Content-Length: 0x4\r\n",
]


@pytest.mark.parametrize("framing", MALFORMED)
def test_what_the_server_itself_refuses_ends_the_connection(urls: Urls, framing: str) -> None:
    for url, line in ((urls.web, f"PUT {PATH}"), (urls.events, "GET /api/conversations/c/events")):
        assert speak(url, line, framing, CHUNKS)[:2] == ([400], True), line


@pytest.mark.parametrize(
    "body", [CHUNKS.replace("\r\n", "\n"), CHUNKS.replace("\r\n", ";x\n", 1), f"-{CHUNKS}"]
)
def test_chunks_that_only_some_would_read_end_the_connection(urls: Urls, body: str) -> None:
    assert speak(urls.web, f"PUT {PATH}", "Transfer-Encoding: chunked\r\n", body)[:2] == ([400], True)


@pytest.mark.parametrize("coding", ["chunked", "CHUNKED", " chunked "])
def test_chunks_alone_are_taken_and_the_connection_goes_on(urls: Urls, coding: str) -> None:
    answer = speak(urls.web, f"PUT {PATH}", f"Transfer-Encoding: {coding}\r\n", CHUNKS)
    assert answer[:2] == ([202, 200], False)
