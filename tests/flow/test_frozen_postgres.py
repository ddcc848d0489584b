"""Postgres frozen (SIGSTOP): connections are accepted, nothing is answered. One call finds out, the others do not wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest

from models.postgres.migrate import upgrade
from tests.flow.rig import Rig, rig
from tests.servers import RunningPostgres, eventually, start_postgres, start_valkey

#: Connections that stand idle when it freezes: each of them would have to be found out by itself.
IDLE = 4


class World(Rig):
    """A rig, and the Postgres to freeze."""

    postgres: RunningPostgres


@pytest.fixture
def world() -> Iterator[World]:
    with start_valkey() as valkey, start_postgres(fsync="off") as postgres:
        upgrade(postgres.url)
        with rig(valkey.url, postgres.url) as made:
            world = World(made.pipeline)
            world.postgres = postgres
            yield world


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_one_list_waits_for_a_frozen_postgres_the_others_saves_and_hot_reads_do_not(world: World) -> None:
    world.say("cold", "m", "x")
    world.evict("cold")
    world.say("hot", "m", "x")
    together = threading.Barrier(IDLE)

    def connect() -> None:
        with world.pipeline.store._engine.connect() as connection:
            together.wait()
            connection.exec_driver_sql("SELECT 1")

    with ThreadPoolExecutor(IDLE) as pool:
        for future in [pool.submit(connect) for _ in range(IDLE)]:
            future.result()

    def listed() -> tuple[bool, list[str]]:
        page = world.pipeline.conversations("ann", archived=False, after=None, limit=10)
        return page.degraded, [item.record.id for item in page.conversations]

    def hot_list() -> None:
        assert listed() == (True, ["hot"])

    assert listed() == (False, ["hot", "cold"])
    world.postgres.pause()
    try:
        # What the web's connections wait for a silent server (models/postgres/engine.py).
        assert seconds(hot_list) < 4
        lists, others = [], []
        ends_at = time.monotonic() + 3.5
        while time.monotonic() < ends_at:
            lists.append(seconds(hot_list))
            others.append(seconds(lambda: world.say("hot", f"m{len(lists)}", "still")))
            others.append(seconds(lambda: world.texts("hot")))
        assert median(lists) < 0.1
        # Once a second one asks again, and waits a quarter of a second for a connection.
        assert sum(lists) < 2.5
        assert max(lists) < 1
        assert median(others) < 0.1
        assert max(others) < 1
    finally:
        world.postgres.resume()
    eventually(lambda: listed() == (False, ["hot", "cold"]))
