"""Postgres goes and comes back: saves go on, journals wait, a flush adopts, replays and commits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from models.core import commands as c
from models.errors import BufferFull, StoreUnavailable
from models.pipeline import failpoints
from models.pipeline.figures import figures
from models.pipeline.flush import BEYOND_SHARE
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


def test_a_buffer_that_journals_have_filled_empties_itself_when_postgres_returns(
    chat: CrewRig, postgres: RunningPostgres
) -> None:
    """To adopt their bases takes memory, and there is none; but nothing else would ever make room."""
    names = [f"c{number}" for number in range(8)]
    for name in names:
        chat.say(name, "m1", "before " * 10_000)
        chat.evict(name)
    postgres.stop()
    client = chat.buffer.client
    before = client.config_get("maxmemory")["maxmemory"]
    try:
        for name in names:
            assert chat.say(name, "m2", "meanwhile " * 10_000).base == "unknown"
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] / (BEYOND_SHARE + 0.05)))
        postgres.start()
        # Beyond the bound they wait …
        eventually(lambda: chat.flush_once(names[0]).state == "done", within_s=10)
        assert sum(count.blind for count in chat.crew.partitions.counts()) == len(names)
        # … below it they go, although the buffer takes no save.
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] / 1.01))
        with pytest.raises(BufferFull):
            chat.say("another", "m1", "no room")
        flush_until_clean(chat, *names)
    finally:
        client.config_set("maxmemory", before)
        if postgres._process is None:
            postgres.start()
    for name in names:
        assert set(chat.stored_texts(name)) == {"m1", "m2"}


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
    eventually(lambda: _answers(chat))
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


@contextmanager
def away(chat: CrewRig, postgres: RunningPostgres) -> Iterator[None]:
    """Postgres is gone; afterwards it answers again."""
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()
    eventually(lambda: _answers(chat))


class EarlierBuffer:
    """The buffer as it is now, to be set back to: its server comes up with an old file and another run id."""

    def __init__(self, chat: CrewRig) -> None:
        self._chat = chat
        client = chat.buffer.client
        self._held = {key: client.dump(key) for key in client.keys()}  # noqa: SIM118

    def set_back(self) -> None:
        client = self._chat.buffer.client
        client.flushall()
        for key, value in self._held.items():
            client.restore(key, 0, value)
        for keys in self._chat.buffer.partitions:
            client.hset(keys.meta, "run", "another")
        self._chat.buffer.initialise()


def test_a_save_on_a_buffer_set_back_while_postgres_is_away_wins_over_nothing_newer(
    chat: CrewRig, postgres: RunningPostgres
) -> None:
    chat.save("c", c.put("m", "r", {"role": "assistant", "content": "old"}, status="streaming"))
    chat.flush("c")
    chat.say("c", "dirty", "not committed")
    earlier = EarlierBuffer(chat)
    chat.save("c", c.Append("m", "r", 3, " and acknowledged", 17))
    chat.say("c", "m2", "committed too")
    chat.flush("c")
    earlier.set_back()
    with away(chat, postgres):
        assert chat.save("c", c.put("m", "r", {"metadata": {"rated": 5}})).base == "unknown"
        chat.say("c", "m3", "blind")
        # What it has of the texts may be old.
        for offset in (3, 20):
            with pytest.raises(StoreUnavailable):
                chat.save("c", c.Append("m", "r", offset, "!", 1))
        with pytest.raises(StoreUnavailable):
            chat.pipeline.item("ann", "c", "m", "m2")
        view = chat.pipeline.read("ann", "c")
        assert (view.partial, view.etag) == (True, None)
        assert [item.record.id for item in view.messages] == ["r", "dirty", "m3"]
        chat.save("c", c.put("c", "", {"title": "blind"}))
        [listed] = chat.pipeline.conversations("ann", archived=False, after=None, limit=5).conversations
        assert listed.record.title == "blind"
        assert chat.flush_once().state == "failed"
        chat.end_pause()
    assert chat.texts("c") == [
        ("r", "old and acknowledged"), ("dirty", "not committed"), ("m2", "committed too"), ("m3", "blind"),
    ]  # fmt: skip
    chat.save("c", c.Append("m", "r", 20, "", 0, st="complete"))
    flush_until_clean(chat, "c")
    assert chat.stored_texts() == dict(chat.texts("c"))
    assert chat.stored()["r"].metadata == '{"rated":5}'


def test_a_journal_set_back_is_not_applied_over_what_came_after_it(
    chat: CrewRig, postgres: RunningPostgres
) -> None:
    chat.say("c", "m1", "base")
    chat.say("c", "m2", "base")
    chat.say("c", "m3", "base")
    chat.evict("c")
    with away(chat, postgres):
        chat.say("c", "m1", "blind")
        chat.save("c", c.Delete("m", "m2"))
        earlier = EarlierBuffer(chat)
        chat.say("c", "m4", "later in the journal")
    assert dict(chat.texts("c")) == {"m1": "blind", "m3": "base", "m4": "later in the journal"}
    chat.say("c", "m1", "newer")
    chat.flush("c")
    earlier.set_back()
    with away(chat, postgres):
        # In the journal that came back, behind what was applied once; and in its own right.
        chat.say("c", "m3", "blind")
    expected = {"m1": "newer", "m3": "blind", "m4": "later in the journal"}
    assert dict(chat.texts("c")) == expected
    chat.pipeline.conversations("ann", archived=False, after=None, limit=5)
    flush_until_clean(chat, "c")
    assert {name: text for name, text in chat.stored_texts("c").items() if name != "m2"} == expected
    assert chat.stored("c")["m2"].deleted_ms is not None


@pytest.mark.parametrize("ahead_us", [0, 3_600_000_000])
def test_a_journal_that_only_saw_its_server_start_anew_is_applied(
    chat: CrewRig, postgres: RunningPostgres, ahead_us: int
) -> None:
    """Also where the base was saved under a clock that was ahead."""
    chat.buffer.now_us = ahead_us and chat.buffer.now_ms() * 1000 + ahead_us
    chat.say("c", "m1", "base")
    chat.buffer.now_us = 0
    chat.flush("c")
    keys = chat.place("c").keys
    chat.buffer.client.unlink(keys.rows(chat.place("c").hex), keys.bodies(chat.place("c").hex))
    with away(chat, postgres):
        chat.say("c", "m1", "blind")
        EarlierBuffer(chat).set_back()
        chat.say("c", "m2", "blind")
    assert dict(chat.texts("c")) == {"m1": "blind", "m2": "blind"}
    flush_until_clean(chat, "c")
    assert chat.stored_texts("c") == {"m1": "blind", "m2": "blind"}


def test_what_is_hot_under_another_epoch_is_shown_as_partial_while_postgres_is_away(
    chat: CrewRig, postgres: RunningPostgres
) -> None:
    chat.say("c", "m1", "old")
    EarlierBuffer(chat).set_back()
    with away(chat, postgres):
        view = chat.pipeline.read("ann", "c")
        assert (view.partial, view.etag, [item.record.id for item in view.messages]) == (True, None, ["m1"])
        with pytest.raises(StoreUnavailable):
            chat.pipeline.item("ann", "c", "m", "other")
    assert not chat.pipeline.read("ann", "c").partial


def test_what_only_postgres_knows_is_out_of_reach_not_missing(
    chat: CrewRig, postgres: RunningPostgres
) -> None:
    chat.say("c", "m1", "before")
    chat.save("c", c.put("m", "r", {"role": "assistant", "content": "hello"}, status="streaming"))
    chat.save("c", c.Append("m", "r", 5, "", 0, st="complete"))
    chat.evict("c")
    with away(chat, postgres):
        chat.save("c", c.put("m", "r", {"metadata": {"a": 1}}, status="streaming", revision=1))
        with pytest.raises(StoreUnavailable):
            chat.save("c", c.Append("m", "r", 5, " you", 4))
        with pytest.raises(StoreUnavailable):
            chat.pipeline.item("ann", "c", "m", "m1")
        # A tombstone makes no conversation: whether there is one is not known.
        chat.save("d", c.Delete("m", "m1"))
        with pytest.raises(StoreUnavailable):
            chat.pipeline.read("ann", "d")
    eventually(lambda: not chat.pipeline.read("ann", "c").partial)
    assert chat.save("c", c.Append("m", "r", 5, " you", 4)).items[0].outcome == "accepted"
    assert chat.texts("c") == [("m1", "before"), ("r", "hello you")]


def test_what_is_superseded_is_counted_and_told_without_its_text(
    chat: CrewRig, postgres: RunningPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    chat.save("c", c.put("m", "m1", {"content": "base"}, revision=5))
    chat.evict("c")
    with away(chat, postgres):
        chat.save("c", c.put("m", "m1", {"content": "secret words"}, revision=4))
        chat.say("c", "m2", "kept")
    with caplog.at_level(logging.WARNING, "blotter.adopt"):
        assert chat.texts("c") == [("m1", "base"), ("m2", "kept")]
    [line] = [record.getMessage() for record in caplog.records if record.name == "blotter.adopt"]
    assert (
        line
        == f"conversation {chat.place('c').hex}: blind saves superseded at their replay: stale-revision 1"
    )
    assert figures(chat.buffer)["counters"]["superseded"] == 1


def test_a_sync_made_while_postgres_was_away_stands_in_the_clients_order(
    chat: CrewRig, postgres: RunningPostgres
) -> None:
    for name in ("k1", "k2"):
        chat.say("c", name, name)
    chat.evict("c")
    order = ["n0", "k1", *(f"n{number}" for number in range(1, 60)), "k2", "n99"]
    puts = [c.put("m", name, {"role": "user", "content": name}) for name in order]
    with away(chat, postgres):
        result = chat.pipeline.sync("ann", "c", puts, order=order)
        assert result.base == "unknown"
        assert [name for name, _ in chat.texts("c")] == order
        late = ["n0", "late", "k1"]
        chat.pipeline.sync("ann", "c", [c.put("m", name, {"content": name}) for name in late], order=late)
    expected = ["n0", "late", *order[1:]]
    assert [name for name, _ in chat.texts("c")] == expected
    flush_until_clean(chat, "c")
    assert [m.id for m in sorted(chat.stored().values(), key=lambda m: m.position)] == expected


def test_a_sync_on_a_buffer_set_back_is_placed_among_what_postgres_has(chat: CrewRig) -> None:
    chat.say("c", "k1", "k1")
    earlier = EarlierBuffer(chat)
    chat.say("c", "k2", "k2")
    chat.flush("c")
    earlier.set_back()
    order = ["k1", "n", "k2"]
    chat.pipeline.sync("ann", "c", [c.put("m", name, {"content": name}) for name in order], order=order)
    assert [name for name, _ in chat.texts("c")] == order


def _answers(chat: CrewRig) -> bool:
    return chat.pipeline.ready()["store"] == "ok"
