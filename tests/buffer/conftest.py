"""A buffer on a real Valkey, laid out, with small times; a conversation in it that checks itself after every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from models.buffer.buffer import Buffer
from models.settings import load
from tests.buffer.chat import Chat
from tests.servers import Running, start_valkey


@pytest.fixture
def buffer(buffer_url: str) -> Iterator[Buffer]:
    made = Buffer.connect(load({"REDIS_URL": buffer_url, "BLOTTER_PARTITIONS": "2"}))
    made.initialise()
    yield made
    made.close()


@pytest.fixture
def chat(buffer: Buffer) -> Iterator[Chat]:
    """A conversation nobody has touched. It is recounted after every step."""
    made = Chat(buffer, "owner", "chat")
    yield made
    made.check()


@pytest.fixture(scope="session")
def quick_server() -> Iterator[Running]:
    """A buffer that does not wait for the disk: for thousands of orders, where durability is not in question."""
    with start_valkey(appendonly="no", appendfsync="no") as server:
        yield server


@pytest.fixture
def quick_buffer(quick_server: Running) -> Iterator[Buffer]:
    made = Buffer.connect(load({"REDIS_URL": quick_server.url, "BLOTTER_PARTITIONS": "1"}))
    made.client.flushall()
    made.initialise()
    yield made
    made.close()


@pytest.fixture
def limited(buffer_url: str) -> Iterator[Callable[..., Chat]]:
    """A conversation in a buffer with other settings: `limited(BLOTTER_MAX_ITEM_BYTES="2048")`."""
    made: list[Buffer] = []

    def make(**environ: str) -> Chat:
        buffer = Buffer.connect(load({"REDIS_URL": buffer_url, "BLOTTER_PARTITIONS": "2", **environ}))
        buffer.initialise()
        made.append(buffer)
        return Chat(buffer, "owner", "chat")

    yield make
    for buffer in made:
        buffer.close()
