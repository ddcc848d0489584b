"""Postgres behind pgbouncer in transaction mode: everything the store does, and a pooler that ends in the middle."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from models.core import commands as c
from models.pipeline.crew import Crew
from models.pipeline.erase import Eraser
from models.postgres.migrate import check, upgrade
from tests.cluster.pooler import LIMITS, Pooler, set_limits, start_pgbouncer
from tests.cluster.writers import Writers
from tests.flow.crews import CrewRig
from tests.flow.rig import rig
from tests.servers import RunningPostgres, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CHATS = [f"chat{n}" for n in range(8)]


@pytest.fixture(scope="module")
def pooler(postgres_server: RunningPostgres) -> Iterator[Pooler]:
    with start_pgbouncer(postgres_server) as made:
        yield made


@pytest.fixture
def pooled(buffer_url: str, database_url: str, pooler: Pooler) -> Iterator[CrewRig]:
    """A rig whose every statement goes through the pooler."""
    set_limits(database_url)
    with rig(buffer_url, pooler.url_of(database_url), DATABASE_PREPARE="0") as made:
        made.buffer.initialise()
        yield CrewRig(made.pipeline, database_url, made.rung)


def test_a_whole_life_through_the_pooler(pooled: CrewRig) -> None:
    for chat in CHATS:
        pooled.say(chat, "m1", "hello")
        for number in range(12):  # more often than psycopg would have prepared a statement
            pooled.save(chat, c.put("a", f"a{number}", {"title": "t", "content": f"text {number}"}))
            pooled.flush_once(chat)
    assert pooled.crew.drain(within_s=30).done
    pooled.assert_clean(*CHATS)
    for chat in CHATS:
        pooled.evict(chat)
        assert pooled.texts(chat) == [("m1", "hello")]
    page = pooled.pipeline.conversations("ann", archived=False, after=None, limit=5)
    assert len(page.conversations) == 5
    pooled.crew.sweeper.sweep()
    assert pooled.crew.verifier.verify().found == ()
    erased = Eraser(pooled.buffer, pooled.pipeline.store, pooled.rung.append).erase("ann", within_s=30)
    assert erased.done


def test_the_schema_is_made_through_the_pooler(pooler: Pooler, empty_database_url: str) -> None:
    upgrade(pooler.url_of(empty_database_url))
    assert check(empty_database_url) is None


def test_the_servers_timeouts_are_those_of_the_role(pooled: CrewRig, pooler: Pooler) -> None:
    """Asked for on connecting they are ignored by the pooler, so the documentation has them set otherwise."""
    with psycopg.connect(pooler.url_of(pooled.database_url)) as connection:
        for name, value in LIMITS.items():
            row = connection.execute(f"SHOW {name}").fetchone()
            assert row == (value,)


def test_the_pooler_ends_while_saving_and_nothing_is_lost(pooled: CrewRig, pooler: Pooler) -> None:
    crews = [pooled.crew, pooled.another()]
    with Writers(pooled, CHATS) as writers:
        for round_ in range(3):
            before = writers.count
            eventually(lambda before=before: writers.count > before + 100, within_s=30)
            flush_all(pooled, crews[round_ % 2])
            pooler.stop()
            # Saving goes on: also where Postgres was asked before, and for conversations it has never seen.
            before = writers.count
            eventually(lambda before=before: writers.count > before + 100, within_s=30)
            pooled.say(f"new{round_}", "m1", "hi")
            flush_all(pooled, crews[round_ % 2])
            pooler.start()
    assert writers.faults == []
    assert writers.refused == 0
    pooled.buffer.client.delete(*(keys.hold for keys in pooled.buffer.partitions))
    assert pooled.crew.drain(within_s=60).done
    assert writers.lost() == []
    assert pooled.crew.verifier.verify().found == ()


def flush_all(pooled: CrewRig, crew: Crew) -> None:
    for keys in pooled.buffer.partitions:
        crew.flusher.flush(keys.number)
