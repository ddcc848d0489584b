"""BLOTTER_ACK_REPLICAS: a save is answered when replicas have it, a repeated one too; and a server that was demoted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from models.buffer.buffer import Buffer
from models.errors import BufferUnavailable
from models.settings import load
from tests.buffer.chat import Chat
from tests.servers import Running, eventually, start_valkey


@pytest.fixture
def pair() -> Iterator[tuple[Running, Running]]:
    """A primary and its replica, in step."""
    with start_valkey(repl_diskless_sync_delay="0") as primary, start_valkey() as replica:
        with redis.Redis.from_url(replica.url) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", str(primary.port))
            eventually(lambda: client.info("replication")["master_link_status"] == "up")
        yield primary, replica


def buffer_on(server: Running, replicas: int) -> Buffer:
    environ = {"REDIS_URL": server.url, "BLOTTER_PARTITIONS": "2", "BLOTTER_BUFFER_TIMEOUT_MS": "600"}
    return Buffer.connect(load({**environ, "BLOTTER_ACK_REPLICAS": str(replicas)}))


def test_a_save_is_answered_when_a_replica_has_it(pair: tuple[Running, Running]) -> None:
    primary, replica = pair
    waiting = buffer_on(primary, 1)
    waiting.initialise()
    chat = Chat(waiting, "owner", "chat")
    assert chat.put("m", "m1", role="user", content="kept").outcome == "accepted"
    with redis.Redis.from_url(replica.url) as client:
        assert client.exists(chat.rows_key)
    replica.pause()
    with pytest.raises(BufferUnavailable, match="NOREPLICAS"):
        chat.put("m", "m2", role="user", content="in doubt")
    replica.resume()
    eventually(lambda: chat.put("m", "m3", role="user", content="kept").outcome == "accepted")
    waiting.close()


def test_a_duplicate_is_answered_when_a_replica_has_what_it_repeats(pair: tuple[Running, Running]) -> None:
    """It writes nothing itself, and comes by another connection: WAIT alone would not wait for anything."""
    primary, replica = pair
    first, second = buffer_on(primary, 0), buffer_on(primary, 1)
    first.initialise()
    second.initialise()
    replica.pause()
    assert Chat(first, "owner", "chat").put("m", "m1", rev=1, role="user", content="x").outcome == "accepted"
    again = Chat(second, "owner", "chat")
    with pytest.raises(BufferUnavailable, match="NOREPLICAS"):
        again.put("m", "m1", rev=1, role="user", content="x")
    replica.resume()
    eventually(lambda: again.put("m", "m1", rev=1, role="user", content="x").outcome == "duplicate")
    first.close()
    second.close()


def test_too_few_replicas_are_a_refusal_in_half_the_time_a_call_may_take(
    pair: tuple[Running, Running],
) -> None:
    primary, _ = pair
    wanting = buffer_on(primary, 2)
    wanting.initialise()
    with pytest.raises(BufferUnavailable, match="NOREPLICAS"):
        Chat(wanting, "owner", "chat").put("m", "m1", role="user", content="x")
    wanting.close()


def test_a_server_that_was_demoted_is_unavailable(pair: tuple[Running, Running]) -> None:
    primary, replica = pair
    buffer = buffer_on(primary, 0)
    buffer.initialise()
    with redis.Redis.from_url(replica.url) as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
    with redis.Redis.from_url(primary.url) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", str(replica.port))
    with pytest.raises(BufferUnavailable, match="READONLY"):
        Chat(buffer, "owner", "chat").put("m", "m1", role="user", content="x")
    buffer.close()
