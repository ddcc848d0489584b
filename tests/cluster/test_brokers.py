"""Doorbells by other brokers: RabbitMQ's quorum queues, and Redis under Sentinels, whose primary dies.

The sweep is slow here, so that what is in Postgres soon came by a bell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.pipeline.doorbell import Doorbell
from models.postgres.migrate import upgrade
from tests.cluster.brokers import MASTER, start_rabbitmq, start_watched
from tests.flow.crews import CrewRig, crew_rig
from tests.flow.test_workers import Programs, await_stored, await_workers
from tests.servers import eventually, start_postgres
from web.ops.around import state_of_broker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

#: A bell's countdown, the worker's way to Postgres, and a busy machine; far below the sweep's minute.
SOON_S = 15.0


@contextlib.contextmanager
def running(
    buffer_url: str, database_url: str, tmp_path: Path, **environ: str
) -> Iterator[tuple[CrewRig, Programs, Doorbell]]:
    """A worker on this broker, and a doorbell that rings it."""
    environ |= {"BLOTTER_SWEEP_SECONDS": "60"}
    with crew_rig(buffer_url, database_url, **environ) as chat:
        programs = Programs(
            {"DATABASE_URL": database_url, "REDIS_URL": buffer_url, "BLOTTER_PARTITIONS": "4", **environ},
            tmp_path,
        )
        doorbell = Doorbell(chat.pipeline.settings, silence_s=0.5)
        try:
            programs.worker(2)
            await_workers(chat, programs)
            yield chat, programs, doorbell
        finally:
            doorbell.close()
            programs.end()


def say(chat: CrewRig, doorbell: Doorbell, name: str) -> None:
    chat.rung.clear()
    chat.say(name, "m1", "a")
    for number in chat.rung:
        doorbell.ring(number)


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[str]:
    with start_postgres(fsync="off") as postgres:
        upgrade(postgres.url)
        yield postgres.url


def test_bells_by_quorum_queues_of_rabbitmq(
    buffer_url: str, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_rabbitmq() as rabbit:
        monkeypatch.setenv("CELERY_BROKER_URL", rabbit.url)
        with running(buffer_url, stored, tmp_path, CELERY_BROKER_URL=rabbit.url) as (
            chat,
            programs,
            doorbell,
        ):
            assert state_of_broker(chat.pipeline.settings) == "ok"
            for number in range(5):
                say(chat, doorbell, f"c{number}")
                await_stored(chat, f"c{number}", within_s=SOON_S)
            assert doorbell.sent >= 5
            assert ["blotter", "quorum", "0"] in [line.split("\t") for line in rabbit.queues().splitlines()]

            # Away: saves go on, bells are dropped, and what was saved is stored when it is back and rings again.
            rabbit.stop()
            say(chat, doorbell, "away")
            eventually(lambda: doorbell.dropped > 0, within_s=20)
            rabbit.start()
            eventually(
                lambda: ring_again(chat, doorbell) and "m1" in chat.stored_texts("away"),
                within_s=60,
                every_s=0.5,
            )
            assert "Traceback" not in programs.log()


def test_bells_go_on_when_sentinels_make_the_replica_the_primary(
    buffer_url: str, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_watched() as watched:
        broker = {"CELERY_BROKER_URL": watched.url, "BLOTTER_BROKER_MASTER": MASTER}
        for name, value in broker.items():
            monkeypatch.setenv(name, value)
        with running(buffer_url, stored, tmp_path, **broker) as (chat, _, doorbell):
            for number in range(3):
                say(chat, doorbell, f"c{number}")
                await_stored(chat, f"c{number}", within_s=SOON_S)
            assert doorbell.sent >= 3
            assert state_of_broker(chat.pipeline.settings) == "ok"
            dead = watched.primary()
            dead.kill()
            say(chat, doorbell, "meanwhile")
            eventually(lambda: watched.primary() is not dead, within_s=30, every_s=0.1)
            eventually(
                lambda: ring_again(chat, doorbell) and "m1" in chat.stored_texts("meanwhile"),
                within_s=60,
                every_s=0.5,
            )
            say(chat, doorbell, "after")
            eventually(
                lambda: ring_again(chat, doorbell) and "m1" in chat.stored_texts("after"),
                within_s=30,
                every_s=0.5,
            )


def ring_again(chat: CrewRig, doorbell: Doorbell) -> bool:
    """What the sweep does."""
    for keys in chat.buffer.partitions:
        doorbell.ring(keys.number)
    return True
