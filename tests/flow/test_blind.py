"""Postgres goes and comes back: saves go on, journals wait, a flush adopts, replays and commits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.core import commands as c
from models.pipeline import failpoints
from models.postgres.migrate import upgrade
from tests.flow.crews import CrewRig, crew_rig
from tests.servers import RunningPostgres, eventually, start_postgres


@pytest.fixture(scope="module")
def postgres() -> Iterator[RunningPostgres]:
    with start_postgres(fsync="off") as server:
        upgrade(server.url)
        yield server


@pytest.fixture
def chat(buffer_url: str, postgres: RunningPostgres) -> Iterator[CrewRig]:
    with crew_rig(buffer_url, postgres.url) as made:
        made.sql("TRUNCATE conversations, messages, tool_results, artifacts, artifact_versions")
        yield made


def flush_until_clean(chat: CrewRig, *names: str) -> None:
    """As beat and workers do, with what is overdue rung for."""

    def clean() -> bool:
        chat.crew.sweeper.sweep()
        for number in set(chat.rung):
            chat.crew.flusher.flush(number)
        counts = chat.crew.partitions.counts()
        return not any(count.due or count.blind for count in counts)

    eventually(clean, within_s=30)
    chat.assert_clean(*names)


def test_saves_outlive_postgres_and_everything_is_there_when_it_returns(
    chat: CrewRig, postgres: RunningPostgres
) -> None:
    chat.say("hot", "m1", "before")
    chat.say("cold", "m1", "before")
    chat.flush_once("hot")
    chat.evict("cold")
    postgres.stop()
    try:
        chat.say("hot", "m2", "meanwhile")
        assert chat.say("cold", "m2", "meanwhile").base == "unknown"
        assert chat.say("new", "m1", "meanwhile").base == "unknown"
        for number in range(30):
            chat.say("cold", f"n{number}", str(number))
        assert chat.texts("hot") == [("m1", "before"), ("m2", "meanwhile")]
        assert chat.flush_once("hot").state == "failed"
        assert chat.flush_once("cold").state in ("failed", "paused")
        assert chat.trials("hot") == {}
    finally:
        postgres.start()
    flush_until_clean(chat, "hot", "cold", "new")
    assert chat.stored_texts("hot") == {"m1": "before", "m2": "meanwhile"}
    assert chat.stored_texts("new") == {"m1": "meanwhile"}
    expected = {"m1": "before", "m2": "meanwhile", **{f"n{n}": str(n) for n in range(30)}}
    assert chat.stored_texts("cold") == expected
    assert [name for name, _ in chat.texts("cold")] == list(expected)


@pytest.mark.parametrize(
    "step", ["flush.2", "adopt.1", "adopt.2", "adopt.3", "adopt.4", "replay.1", "replay.2"]
)
def test_a_flush_that_dies_while_it_adopts_loses_and_doubles_nothing(
    chat: CrewRig, postgres: RunningPostgres, step: str
) -> None:
    chat.say("c", "m1", "before")
    chat.evict("c")
    postgres.stop()
    try:
        for number in range(45):
            chat.say("c", f"n{number}", str(number))
        chat.save("c", c.put("m", "r", {"role": "assistant", "content": "ab"}, status="streaming"))
        chat.save("c", c.Append("m", "r", 2, "cd", 2))
    finally:
        postgres.start()
    eventually(lambda: chat.pipeline.store.ping() is None if _answers(chat) else False)
    for _ in range(3):
        failpoints.arm(step, failpoints.crash)
        try:
            chat.flush_once()
        except failpoints.Crash:
            chat.expire_lease()
        failpoints.disarm()
    chat.save("c", c.Append("m", "r", 4, "", 0, st="complete"))
    flush_until_clean(chat, "c")
    expected = {"m1": "before", **{f"n{n}": str(n) for n in range(45)}, "r": "abcd"}
    assert chat.stored_texts("c") == expected


def _answers(chat: CrewRig) -> bool:
    return chat.pipeline.ready()["store"] == "ok"
