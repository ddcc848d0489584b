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


def test_a_base_loaded_before_a_commit_of_what_the_buffer_lost_is_not_installed_after_it(
    stage: Stage,
) -> None:
    """As above, but whoever adopts has only loaded when the slow flusher is through."""
    stage.say("m1", "one")
    stage.flushing().finish()
    stage.say("m2", "two")
    slow = stage.flushing()
    slow.until("flush.5")
    stage.world.empty()
    stage.world.buffer.initialise()
    saver = stage.clients.start_save("c0", [said("m3", "three")])
    saver.until("adopt.2")
    slow.finish()
    saver.finish()
    texts = {item.record.id for item in stage.world.pipeline.read("ann", "c0").messages}
    assert texts == {"m1", "m2", "m3"}
    verdict = stage.finish()
    assert not verdict.anomalies, str(verdict)


def test_an_eviction_counter_set_back_does_not_come_to_an_old_value_again(stage: Stage) -> None:
    """A base loaded before the buffer was set back was installed after it, over what was committed in between."""
    names = (f"d{number}" for number in range(100))
    neighbour = next(name for name in names if stage.world.buffer.place("ann", name).keys == stage.keys)
    stage.clients.save(neighbour, said("m1", "beside"))
    stage.say("m1", "one")
    stage.make_cold()
    stage.world.copy()
    # One eviction after the copy; a base is loaded at this count.
    place = stage.world.buffer.place("ann", neighbour)
    assert stage.world.buffer.evict(place.keys, place.hex, 0) == 1
    slow = stage.saving(said("m2", "beside"))
    slow.until("adopt.2")
    stage.say("m1", "two")
    stage.flushing().finish()
    stage.read()
    stage.world.advance(1_000)
    stage.world.roll_back()
    stage.world.buffer.initialise()
    slow.finish()
    stage.read()
    verdict = stage.finish()
    assert not verdict.anomalies, str(verdict)


def test_an_artifact_in_flight_that_a_set_back_buffer_lacks_is_settled(stage: Stage) -> None:
    """Its conversation was hot, so the walk for strays passed it by: open for ever, until somebody looked."""
    stage.say("m1", "one")
    stage.flushing().finish()
    stage.world.copy()
    stage.clients.save("c0", c.put("a", "a1", {"content": "half a"}, status="streaming"))
    stage.world.advance(1_000)
    stage.flushing().finish()
    stage.world.roll_back()
    # Long enough to be stale, too short to be evicted.
    stage.world.advance(200_000)
    verdict = stage.finish()
    assert not verdict.anomalies, str(verdict)
    snapshot = stage.world.real_store.snapshot(stage.world.buffer.place("ann", "c0").uid)
    assert [artifact.status for artifact in snapshot.artifacts] == ["interrupted"]


def test_a_blind_save_that_clears_a_field_is_no_duplicate_of_not_knowing_it(stage: Stage) -> None:
    """The image of blind saves has no title, because nobody told it of one: the save that clears it was dropped."""
    stage.clients.save("c0", c.put("c", "", {"title": "a title"}))
    stage.make_cold()
    stage.world.store_away = True
    stage.say("m1", "one")
    stage.clients.save("c0", c.put("c", "", {"title": None}))
    stage.world.store_away = False
    verdict = stage.finish()
    assert not verdict.anomalies, str(verdict)
    assert stage.world.pipeline.read("ann", "c0").conversation.record.title is None
