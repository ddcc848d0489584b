"""What seeded runs found, each as the shortest schedule: these were red."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.core import commands as c
from models.core.commands import Delete
from tests.faults.schedules import Stage, a_flusher_outlives_the_buffer, said
from tests.faults.world import World, world
from tests.servers import RunningPostgres, start_valkey


@pytest.fixture(scope="module")
def made(postgres_server: RunningPostgres, template_database: str) -> Iterator[World]:
    with (
        start_valkey(appendonly="no") as valkey,
        postgres_server.new_database(template_database) as database_url,
        world(valkey.url, database_url) as made,
    ):
        yield made


@pytest.fixture
def stage(made: World) -> Stage:
    made.reset()
    return Stage(made)


def test_a_bell_set_by_a_replay_is_rung(stage: Stage) -> None:
    """The script set the bell, nobody was sent: for its lifetime no save could ring for that partition."""
    stage.world.store_away = True
    stage.say("m1", "one")
    stage.world.store_away = False
    # A reader replays the journal; no beat comes by.
    stage.read()
    verdict = stage.finish(stage.answer_bells)
    assert not verdict.anomalies, str(verdict)


def test_a_result_that_only_a_deleted_message_links_is_shown(stage: Stage) -> None:
    stage.clients.save("c0", said("m1", "one"), c.put("t", "t1", {"message_id": "m1"}))
    # It moves to a message that is not there (yet); the tombstone of the first still links it.
    stage.clients.save("c0", c.put("t", "t1", {"message_id": "m9"}), Delete("m", "m1"))
    stage.read()
    verdict = stage.finish()
    assert not verdict.anomalies, str(verdict)


def test_a_commit_after_the_buffer_was_lost_reaches_who_adopted_before_it(stage: Stage) -> None:
    """A hot base without what a slow flusher committed: readers missed it, later saves went over it."""
    a_flusher_outlives_the_buffer(stage)
    texts = {item.record.id for item in stage.world.pipeline.read("ann", "c0").messages}
    assert texts == {"m1", "m2", "m3"}
    verdict = stage.finish()
    assert not verdict.anomalies, str(verdict)
