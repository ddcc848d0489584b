"""The doorbell: one message, soon; a dead broker costs who rings nothing."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from models.pipeline.doorbell import Doorbell
from models.settings import load
from tests.servers import eventually, free_port, start_valkey


@pytest.fixture
def broker(broker_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(broker_url) as client:
        yield client


def bell(url: str, **how: Any) -> Doorbell:
    return Doorbell(load({"CELERY_BROKER_URL": url}), **how)


def messages(client: Any) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """(task, arguments, headers) of what lies in the queue."""
    found = []
    for raw in client.lrange("blotter", 0, -1):
        message = json.loads(raw)
        args, _, _ = json.loads(base64.b64decode(message["body"]))
        found.append((message["headers"]["task"], args, message["headers"]))
    return found


def test_a_ring_is_one_small_message_that_starts_soon_and_expires(broker_url: str, broker: Any) -> None:
    doorbell = bell(broker_url)
    doorbell.ring(3)
    eventually(lambda: broker.llen("blotter") == 1)
    [(task, args, headers)] = messages(broker)
    assert (task, args) == ("blotter.flush", [3])
    assert headers["eta"] is not None
    assert headers["expires"] is not None
    doorbell.close()
    assert doorbell.sent == 1


def test_closing_sends_what_was_rung_for(broker_url: str, broker: Any) -> None:
    doorbell = bell(broker_url)
    for partition in range(10):
        doorbell.ring(partition)
    doorbell.close()
    assert sorted(args[0] for _, args, _ in messages(broker)) == list(range(10))
    doorbell.ring(11)
    assert broker.llen("blotter") == 10


def ring_cost_s(doorbell: Doorbell) -> float:
    began = time.perf_counter()
    for partition in range(16):
        doorbell.ring(partition)
    return time.perf_counter() - began


def test_a_broker_that_refuses_costs_nothing_and_is_tried_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    doorbell = bell(f"redis://127.0.0.1:{free_port()}/0")
    tried = []
    publish = doorbell._publish
    monkeypatch.setattr(doorbell, "_publish", lambda *rang: (tried.append(rang[0]), publish(*rang)))
    assert ring_cost_s(doorbell) < 0.1
    eventually(lambda: doorbell.dropped >= 16)
    assert ring_cost_s(doorbell) < 0.1
    assert doorbell.dropped >= 32
    assert len(tried) == 1
    assert doorbell.sent == 0
    doorbell.close()


def test_a_frozen_broker_costs_its_thread_half_a_second_and_is_found_again() -> None:
    with start_valkey(role="broker") as server:
        doorbell = bell(server.url, silence_s=0.2)
        doorbell.ring(1)
        eventually(lambda: doorbell.sent == 1)
        server.pause()
        assert ring_cost_s(doorbell) < 0.1
        began = time.monotonic()
        eventually(lambda: doorbell.dropped >= 16)
        assert time.monotonic() - began < 2.5
        server.resume()

        def rung() -> bool:
            doorbell.ring(2)
            return doorbell.sent >= 2

        eventually(rung)
        server.kill()
        assert ring_cost_s(doorbell) < 0.1
        dropped = doorbell.dropped
        eventually(lambda: (doorbell.ring(3), doorbell.dropped > dropped)[1])
        server.start()
        sent = doorbell.sent
        eventually(lambda: (doorbell.ring(4), doorbell.sent > sent)[1])
        doorbell.close()


def test_each_process_rings_by_itself_after_a_fork(broker_url: str, broker: Any) -> None:
    import os

    doorbell = bell(broker_url)
    doorbell.ring(1)
    eventually(lambda: broker.llen("blotter") == 1)
    pid = os.fork()
    if pid == 0:
        doorbell.ring(2)
        doorbell.close(5)
        os._exit(0 if doorbell.sent == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert broker.llen("blotter") == 2
    doorbell.close()
