"""The breaker: refuses at once after a failure, lets exactly one probe through, believes what it says."""

from __future__ import annotations

from collections.abc import Callable
from threading import Barrier, Thread

import pytest
from sqlalchemy.engine import Engine

from models.errors import RecordRejected, StoreUnavailable
from models.postgres.breaker import Breaker
from models.postgres.engine import make_engine
from models.postgres.store import Store
from models.settings import Settings, load
from tests.postgres.examples import message, new_uid


def test_it_lets_all_through_until_one_fails() -> None:
    breaker = Breaker(1000)
    assert breaker.allow(0)
    assert breaker.allow(0)
    breaker.succeeded()
    assert breaker.allow(5)
    assert not breaker.is_open


def test_a_failure_refuses_for_a_while_then_lets_one_probe_through() -> None:
    breaker = Breaker(1000)
    breaker.failed(500)
    assert breaker.is_open
    assert [breaker.allow(now) for now in (500, 1000, 1499)] == [False, False, False]
    assert [breaker.allow(now) for now in (1500, 1500, 1700)] == [True, False, False]


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = Breaker(1000)
    breaker.failed(0)
    assert breaker.allow(1000)
    breaker.succeeded()
    assert breaker.allow(1000)
    assert breaker.allow(1000)


def test_a_probe_that_fails_opens_it_anew() -> None:
    breaker = Breaker(1000)
    breaker.failed(0)
    assert breaker.allow(1000)
    breaker.failed(1250)
    assert not breaker.allow(2249)
    assert breaker.allow(2250)


def test_a_probe_that_never_reports_is_given_up() -> None:
    breaker = Breaker(1000)
    breaker.failed(0)
    assert breaker.allow(1000)
    assert not breaker.allow(1999)
    assert breaker.allow(2000)


def test_of_many_threads_one_is_the_probe() -> None:
    breaker = Breaker(1000)
    breaker.failed(0)
    barrier = Barrier(16)
    allowed: list[bool] = []

    def ask() -> None:
        barrier.wait(10)
        allowed.append(breaker.allow(1000))

    threads = [Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(allowed) == [False] * 15 + [True]


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def test_a_store_whose_server_is_away_says_so_at_once_the_second_time(
    closed_port: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    engine = make_engine(f"postgresql://127.0.0.1:{closed_port}/x", role="web", settings=load({}))
    store = Store(engine, clock_ms=clock)
    with pytest.raises(StoreUnavailable, match="refused"):
        store.ping()

    asked: list[None] = []
    connect = engine.connect
    monkeypatch.setattr(engine, "connect", lambda: (asked.append(None), connect())[1])
    with pytest.raises(StoreUnavailable, match="a moment ago"):
        store.snapshot(new_uid())
    assert asked == []
    clock.now = 1000
    with pytest.raises(StoreUnavailable, match="refused"):
        store.write([message(new_uid())])
    assert asked == [None]


@pytest.mark.parametrize("failure", [RecordRejected("22000", "x"), StoreUnavailable("40P01"), RuntimeError()])
def test_an_answer_of_any_kind_does_not_open_it(engine: Engine, failure: Exception) -> None:
    store = Store(engine)

    def fail() -> None:
        with store._reading():
            raise failure

    with pytest.raises(type(failure)):
        fail()
    store.ping()


def test_a_probe_that_finds_the_server_closes_it(new_engine: Callable[[], Engine]) -> None:
    clock = Clock()
    breaker = Breaker(1000)
    store = Store(new_engine(), breaker=breaker, clock_ms=clock)
    breaker.failed(0)
    clock.now = 1000
    store.ping()
    store.ping()
