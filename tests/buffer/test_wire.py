"""A thread's own connection: a reply never goes to another call, and a restarted server costs no save."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)
from redis.retry import Retry

from models.buffer.wire import Wire
from tests.servers import Running, eventually, start_valkey


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with start_valkey() as made:
        yield made


@pytest.fixture
def wire(server: Running) -> Iterator[Wire]:
    made = wired(server.url)
    yield made
    made.close()


def wired(url: str, seconds: float = 5) -> Wire:
    return Wire(redis.ConnectionPool.from_url(url, socket_timeout=seconds, retry=Retry(NoBackoff(), 0)))


def client_id(wire: Wire) -> int:
    return int(wire.execute_command("CLIENT", "ID"))


def test_a_thread_keeps_its_connection_and_shares_it_with_none(wire: Wire) -> None:
    ids: dict[int, set[int]] = {}
    together = threading.Barrier(4)

    def call(number: int) -> None:
        together.wait()
        ids[number] = {client_id(wire) for _ in range(20)}
        together.wait()

    threads = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(seen) for seen in ids.values()] == [1] * 4
    assert len(set.union(*ids.values())) == 4


def test_a_threads_connection_is_closed_with_it(wire: Wire, server: Running) -> None:
    ids: list[int] = []
    thread = threading.Thread(target=lambda: ids.append(client_id(wire)))
    gc.disable()
    try:
        thread.start()
        thread.join()
        with redis.Redis.from_url(server.url) as other:
            eventually(lambda: all(int(each["id"]) != ids[0] for each in other.client_list()))
    finally:
        gc.enable()


def test_a_connection_that_the_server_closed_is_noticed_before_anything_is_sent(
    wire: Wire, server: Running
) -> None:
    mine = client_id(wire)
    with redis.Redis.from_url(server.url) as other:
        other.client_kill_filter(_id=mine)
        eventually(lambda: all(int(each["id"]) != mine for each in other.client_list()))
    assert client_id(wire) != mine


def test_after_a_time_out_the_late_reply_is_nobodys(server: Running) -> None:
    wire = wired(server.url, 0.2)
    mine = client_id(wire)
    with pytest.raises(RedisTimeoutError):
        wire.execute_command("BLPOP", "nothing", 1)
    assert wire.execute_command("ECHO", "mine") == b"mine"
    assert client_id(wire) != mine
    wire.close()


def test_bytes_that_nobody_asked_for_are_no_reply(wire: Wire) -> None:
    wire.execute_command("PING")
    connection = wire._mine.held.connection
    # As if the reply of an interrupted call came late.
    connection.send_command("ECHO", "theirs")
    eventually(lambda: bool(wire._mine.held.poll.poll(0)))
    assert wire.execute_command("ECHO", "mine") == b"mine"


def test_an_error_reply_leaves_the_connection_in_step(wire: Wire) -> None:
    with pytest.raises(ResponseError):
        wire.execute_command("NO-SUCH-COMMAND")
    assert wire.execute_command("ECHO", "mine") == b"mine"


def test_each_process_connects_by_itself_after_a_fork(wire: Wire) -> None:
    mine = client_id(wire)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if client_id(wire) != mine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert client_id(wire) == mine


def test_a_server_that_is_gone_is_told_and_found_again() -> None:
    with start_valkey() as server:
        wire = wired(server.url)
        wire.execute_command("PING")
        server.kill()
        with pytest.raises(RedisConnectionError):
            wire.execute_command("PING")
        server.start()
        eventually(lambda: server.server.why_not_ready() == "")
        assert wire.execute_command("PING") in (b"PONG", True)
        wire.close()
