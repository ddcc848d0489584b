"""The sweep: rings, settles, evicts, finds strays, purges; beside others, and after the buffer was lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice

import pytest

from models.buffer import keys as names
from models.core import commands as c
from models.core.schedule import DAY_MS
from models.errors import StoreUnavailable
from models.pipeline import failpoints
from tests.flow.crews import CrewRig, crew_rig, same_partition
from tests.servers import eventually

STALE = {"BLOTTER_STALE_SECONDS": "0.05", "BLOTTER_STREAM_FLUSH_SECONDS": "0.01"}


@pytest.fixture
def chat(buffer_url: str, database_url: str) -> Iterator[CrewRig]:
    with crew_rig(buffer_url, database_url, BLOTTER_MIN_IDLE_SECONDS="0") as made:
        yield made


@pytest.fixture
def brief(buffer_url: str, database_url: str) -> Iterator[CrewRig]:
    """Silence of 50 ms is stale."""
    with crew_rig(buffer_url, database_url, **STALE) as made:
        yield made


def reply(chat: CrewRig, name: str = "c", text: str = "half a") -> None:
    chat.save(name, c.put("m", "r", {"role": "assistant", "content": text}, status="streaming"))


# ---------------------------------------------------------------- rings
def test_work_whose_bell_was_lost_is_rung_for_once_its_time_is_over(chat: CrewRig) -> None:
    chat.say("c", "m1", "a")
    keys = chat.place("c").keys
    chat.rung.clear()
    assert chat.crew.sweeper.sweep().rung == 0, "the bell is out"
    chat.buffer.client.delete(keys.bell)
    assert chat.crew.sweeper.sweep().rung == 1
    assert chat.crew.sweeper.sweep().rung == 0
    assert chat.rung == [keys.number]
    chat.flush_once()
    assert chat.crew.sweeper.sweep().rung == 0


@pytest.mark.parametrize("state", ["lease", "hold"])
def test_a_partition_somebody_is_at_or_that_pauses_is_not_rung_for(chat: CrewRig, state: str) -> None:
    chat.say("c", "m1", "a")
    keys = chat.place("c").keys
    chat.buffer.client.delete(keys.bell)
    chat.buffer.client.set(getattr(keys, state), "x")
    assert chat.crew.sweeper.sweep().rung == 0
    assert not chat.crew.partitions.look([keys.number], ring=True)[0].rung
    chat.buffer.client.delete(getattr(keys, state))
    assert chat.crew.sweeper.sweep().rung == 1


def test_sweeps_at_once_ring_once_settle_once_and_stumble_over_nothing(brief: CrewRig) -> None:
    names_ = [f"c{n}" for n in range(12)]
    for name in names_:
        reply(brief, name)
    for name in names_:
        brief.flush(name)
    before = {name: brief.stored(name)["r"].version for name in names_}
    partitions = {brief.place(name).keys.number for name in names_}
    brief.rung.clear()
    for keys in brief.buffer.partitions:
        brief.buffer.client.delete(keys.bell)
    eventually(lambda: len(list(brief.crew.partitions.stale(brief.crew.partitions.now_ms(), 99))) == 12)
    settled: list[int] = []
    crews = [brief.another() for _ in range(4)]
    threads = [
        threading.Thread(target=lambda crew=crew: settled.append(crew.sweeper.sweep().settled))
        for crew in crews
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(settled) == 12
    assert sorted(brief.rung) == sorted(partitions)
    for name in names_:
        brief.flush_once(name)
        assert brief.stored(name)["r"].status == "interrupted"
        assert brief.stored(name)["r"].version > before[name]


# ---------------------------------------------------------------- settles
def test_a_silent_reply_is_interrupted_and_a_late_save_brings_it_back(brief: CrewRig) -> None:
    reply(brief)
    eventually(lambda: brief.crew.sweeper.sweep().settled == 1)
    brief.flush_once()
    stored = brief.stored()["r"]
    assert (stored.status, stored.settled_from, stored.content) == ("interrupted", "streaming", "half a")
    brief.save("c", c.Append("m", "r", 6, " reply", 6))
    brief.flush("c")
    stored = brief.stored()["r"]
    assert (stored.status, stored.settled_from, stored.content) == ("streaming", None, "half a reply")


def test_a_save_between_the_look_and_the_script_keeps_its_reply(brief: CrewRig) -> None:
    reply(brief)
    eventually(lambda: list(brief.crew.partitions.stale(brief.crew.partitions.now_ms(), 9)) != [])
    failpoints.arm("settle.1", lambda step: brief.save("c", c.Append("m", "r", 0, "", 0)) and None)
    assert brief.crew.settler.settle(brief.crew.partitions.now_ms()) == 0


def test_what_an_older_buffer_left_is_merged_with_postgres_before_it_is_settled(brief: CrewRig) -> None:
    """The buffer was set back to half a reply whose end is in Postgres: settling must not win over it."""
    reply(brief)
    place = brief.place("c")
    client = brief.buffer.client
    kept = {key: client.dump(key) for key in (place.keys.rows(place.hex), place.keys.bodies(place.hex))}
    brief.save("c", c.put("m", "r", {"content": "half a reply"}, status="complete"))
    brief.flush("c")
    for key, value in kept.items():
        client.restore(key, 0, value, replace=True)
    client.zadd(place.keys.open, {f"{place.hex}/m/r": 1})
    client.hset(place.keys.meta, "e", "another")
    brief.crew.settler.settle(brief.crew.partitions.now_ms())
    assert brief.texts("c") == [("r", "half a reply")]
    brief.flush("c")
    stored = brief.stored()["r"]
    assert (stored.status, stored.content) == ("complete", "half a reply")


def test_what_an_older_buffer_left_waits_for_postgres_and_is_then_settled(
    brief: CrewRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object) -> None:
        raise StoreUnavailable("away")

    reply(brief)
    place = brief.place("c")
    brief.buffer.client.hset(place.keys.meta, "e", "another")
    eventually(lambda: list(brief.crew.partitions.stale(brief.crew.partitions.now_ms(), 9)) != [])
    with monkeypatch.context() as patched:
        patched.setattr(brief.pipeline.store, "base", away)
        assert brief.crew.settler.settle(brief.crew.partitions.now_ms()) == 0
    assert brief.crew.settler.settle(brief.crew.partitions.now_ms()) == 1
    brief.flush("c")
    assert brief.stored()["r"].status == "interrupted"


# ---------------------------------------------------------------- evicts
def test_idle_conversations_leave_and_are_read_again(buffer_url: str, database_url: str) -> None:
    with crew_rig(
        buffer_url, database_url, BLOTTER_IDLE_SECONDS="0.02", BLOTTER_MIN_IDLE_SECONDS="0"
    ) as chat:
        chat.say("c", "m1", "a")
        chat.flush_once()
        eventually(lambda: chat.crew.sweeper.sweep().evicted == 1)
        place = chat.place("c")
        assert chat.buffer.client.exists(place.keys.rows(place.hex), place.keys.bodies(place.hex)) == 0
        assert chat.texts("c") == [("m1", "a")]
        chat.assert_clean()


def test_nothing_leaves_that_postgres_lost(buffer_url: str, database_url: str) -> None:
    """A standby took over without the last commits: of what leaves next, one in the middle is gone from Postgres."""
    with crew_rig(
        buffer_url, database_url, BLOTTER_IDLE_SECONDS="0.02", BLOTTER_MIN_IDLE_SECONDS="0"
    ) as chat:
        conversations = [f"c{n}" for n in range(12)]
        for name in conversations:
            chat.say(name, "m1", "a")
            chat.flush(name)
        chat.pipeline.store.erase([chat.place("c5").uid])
        for _ in range(3):
            chat.crew.sweeper.sweep()
        place = chat.place("c5")
        assert chat.buffer.client.exists(place.keys.rows(place.hex)) == 1
        assert chat.texts("c5") == [("m1", "a")]
        assert chat.crew.partitions.stands(names.SET_BACK)


def test_nothing_leaves_of_which_postgres_lost_a_part(buffer_url: str, database_url: str) -> None:
    """The same, and the conversation went on before anybody looked: its last save is stored, an earlier one is gone."""
    with crew_rig(
        buffer_url, database_url, BLOTTER_IDLE_SECONDS="0.02", BLOTTER_MIN_IDLE_SECONDS="0"
    ) as chat:
        for message in ("m1", "m2"):
            chat.say("c", message, message)
            chat.flush("c")
        chat.sql("DELETE FROM messages WHERE id = 'm2'")
        chat.say("c", "m3", "m3")
        chat.flush("c")
        for _ in range(3):
            chat.crew.sweeper.sweep()
        assert chat.texts("c") == [("m1", "m1"), ("m2", "m2"), ("m3", "m3")]
        assert chat.crew.partitions.stands(names.SET_BACK)


def test_what_purge_took_from_postgres_keeps_nothing_in_the_buffer(
    buffer_url: str, database_url: str
) -> None:
    with crew_rig(
        buffer_url, database_url, BLOTTER_IDLE_SECONDS="0.02", BLOTTER_MIN_IDLE_SECONDS="0"
    ) as chat:
        for message in ("m1", "m2"):
            chat.say("c", message, message)
        chat.save("c", c.Delete("m", "m1"))
        chat.flush("c")
        chat.sql("UPDATE messages SET deleted_at = deleted_at - interval '1 year' WHERE id = 'm1'")
        assert chat.crew.purger.batch(chat.buffer.now_ms()) == 1
        eventually(lambda: chat.crew.sweeper.sweep().evicted == 1)
        assert not chat.crew.partitions.stands(names.SET_BACK)
        assert chat.texts("c") == [("m2", "m2")]


def test_what_is_dirty_dead_open_or_recent_stays(chat: CrewRig) -> None:
    chat.reject_poison()
    chat.say("dirty", "m1", "a")
    chat.say("dead", "m1", "poison")
    chat.flush_once("dead")
    reply(chat, "open")
    chat.flush("open")
    chat.say("clean", "m1", "a")
    chat.flush("clean")
    chat.say("dirty", "m2", "b")
    evict = {
        name: chat.buffer.evict(chat.place(name).keys, chat.place(name).hex, 0)
        for name in ("dirty", "dead", "open", "clean")
    }
    assert evict == {"dirty": 0, "dead": 0, "open": 0, "clean": 1}
    chat.say("recent", "m1", "a")
    chat.flush("recent")
    assert chat.buffer.evict(chat.place("recent").keys, chat.place("recent").hex, 60_000) == 0


def test_under_pressure_the_oldest_go_and_never_more_than_a_round(chat: CrewRig) -> None:
    names_ = ["c", *islice(same_partition(chat), 40)]
    for name in names_:
        chat.say(name, "m1", "a")
        chat.flush(name)
    client = chat.buffer.client
    assert chat.crew.sweeper.sweep().evicted == 0
    used = client.info("memory")["used_memory"]
    ceiling = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", int(used / 0.7))
    try:
        chat.crew.sweeper.sweep()
        gone = {
            name for name in names_ if client.exists(chat.place(name).keys.rows(chat.place(name).hex)) == 0
        }
        assert 1 <= len(gone) <= 32
        assert gone == set(names_[: len(gone)])
    finally:
        client.config_set("maxmemory", ceiling)


# ---------------------------------------------------------------- a lost buffer
def test_an_emptied_buffer_gets_a_new_epoch_and_strays_are_settled(brief: CrewRig) -> None:
    brief.crew.sweeper.sweep()
    reply(brief)
    brief.say("done", "m1", "a")
    brief.flush("c")
    brief.flush("done")
    epoch = brief.buffer.initialise()
    brief.buffer.client.flushall()
    assert brief.stored()["r"].status == "streaming"

    def settled() -> bool:
        brief.crew.sweeper.sweep()
        brief.flush_once()
        return brief.stored()["r"].status == "interrupted"

    eventually(settled)
    assert brief.buffer.initialise() != epoch
    # Only what was in flight came back into the buffer.
    done = brief.place("done")
    assert brief.buffer.client.exists(done.keys.rows(done.hex)) == 0
    brief.assert_clean()


def test_a_reply_that_was_written_a_moment_before_the_buffer_was_lost_is_watched_again(chat: CrewRig) -> None:
    reply(chat)
    chat.flush("c")
    chat.buffer.client.flushall()
    eventually(lambda: chat.crew.sweeper.sweep().adopted == 1)
    assert chat.buffer.client.zcard(chat.place("c").keys.open) == 1


def test_the_walk_for_strays_goes_in_pages_and_rests_for_a_day(brief: CrewRig) -> None:
    for number in range(7):
        reply(brief, f"c{number}")
        brief.flush(f"c{number}")
    brief.buffer.client.flushall()
    epoch = brief.buffer.initialise()
    now_ms = brief.crew.partitions.now_ms() + 1_000
    steps = [brief.another().strays.step(epoch, now_ms, page_rows=3) for _ in range(8)]
    assert sum(steps) == 7
    assert brief.crew.partitions.chores()["scan_done_ms"] == str(now_ms)
    brief.buffer.client.delete(*(k for k in brief.buffer.client.keys("blotter:{*c:*")))
    assert brief.crew.strays.step(epoch, now_ms + DAY_MS - 1) == 0
    assert brief.crew.strays.step(epoch, now_ms + DAY_MS) == 7
    assert brief.crew.strays.step("another epoch", now_ms + DAY_MS + 1) == 0, "all hot"


def test_the_sweep_goes_on_while_postgres_is_away(brief: CrewRig) -> None:
    reply(brief)

    class Away:
        def in_flight(self, **how: object) -> object:
            raise StoreUnavailable("away")

        purge = snapshot = in_flight

    brief.crew.strays._store = brief.crew.purger._store = Away()  # type: ignore[assignment]
    eventually(lambda: brief.crew.sweeper.sweep().settled == 1)


def test_old_tombstones_are_purged_once_a_day_in_batches(buffer_url: str, database_url: str) -> None:
    with crew_rig(buffer_url, database_url, BLOTTER_RETENTION_DAYS="0") as chat:
        for number in range(5):
            chat.say("c", f"m{number}", "a")
        chat.save("c", *(c.Delete("m", f"m{number}") for number in range(3)))
        chat.flush_once()
        assert len(chat.stored()) == 5
        eventually(lambda: chat.crew.sweeper.sweep().purged == 3)
        assert set(chat.stored()) == {"m3", "m4"}
        eventually(lambda: "purge_done_ms" in (chat.crew.sweeper.sweep() and chat.crew.partitions.chores()))
        chat.save("c", c.Delete("m", "m3"))
        chat.flush_once()
        now_ms = chat.crew.partitions.now_ms()
        assert chat.crew.purger.step(now_ms) == 0
        assert chat.crew.purger.step(now_ms + DAY_MS) == 1
        assert datetime.now(UTC) > datetime.fromtimestamp(0, UTC)


# ---------------------------------------------------------------- the clock went back
@contextmanager
def clock_ahead(chat: CrewRig, ahead_ms: int) -> Iterator[None]:
    """What is saved here is saved under a clock that is ahead; afterwards it is right."""
    chat.buffer.now_us = (chat.buffer.now_ms() + ahead_ms) * 1000
    try:
        yield
    finally:
        chat.buffer.now_us = 0


def test_what_was_saved_under_a_clock_far_ahead_leaves_the_buffer(chat: CrewRig) -> None:
    """It stayed for as long as the clock had been ahead: beyond reach of the one thing that frees memory."""
    with clock_ahead(chat, 365 * DAY_MS):
        chat.say("c", "m1", "a")
    chat.say("other", "m1", "a")
    chat.flush("c")
    chat.flush("other")
    assert chat.crew.sweeper.sweep().evicted == 1
    assert chat.pipeline.figures()["hotConversations"] == 1
    assert chat.texts("c") == [("m1", "a")]


def test_what_fell_silent_under_a_clock_far_ahead_is_settled(brief: CrewRig) -> None:
    with clock_ahead(brief, 365 * DAY_MS):
        reply(brief)
    assert brief.crew.sweeper.sweep().settled == 0, "its silence counts from here"
    eventually(lambda: brief.crew.sweeper.sweep().settled == 1)


def test_a_reader_of_what_fell_silent_under_a_clock_ahead_sees_it_end(brief: CrewRig) -> None:
    with clock_ahead(brief, 3_600_000):
        reply(brief)
    eventually(lambda: not brief.pipeline.read("ann", "c").in_flight)


def test_a_journal_begun_under_a_clock_ahead_is_replayed(
    chat: CrewRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched, clock_ahead(chat, 3_600_000):
        patched.setattr(chat.pipeline.store, "base", away)
        assert chat.say("c", "m1", "a").base == "unknown"
    assert chat.crew.sweeper.sweep().rung == 1


@pytest.mark.parametrize("chore", ["scan_done_ms", "purge_done_ms"])
def test_a_chore_done_under_a_clock_far_ahead_is_due(chat: CrewRig, chore: str) -> None:
    for _ in "mta":
        chat.crew.sweeper.sweep()
    assert chat.crew.partitions.chores()["scan_after"] == ""
    now_ms = chat.crew.partitions.now_ms()
    chat.crew.partitions.note_chore(**{chore: now_ms + 365 * DAY_MS})
    chat.crew.sweeper.sweep()
    assert int(chat.crew.partitions.chores()[chore]) - now_ms < DAY_MS


# ---------------------------------------------------------------- heartbeats, patrol
def test_only_a_sweep_for_beat_says_that_beat_lives(chat: CrewRig) -> None:
    chat.crew.sweeper.sweep()
    assert chat.crew.partitions.stands(names.SWEEP)
    assert not chat.crew.partitions.stands(names.BEAT)
    chat.crew.sweeper.sweep(for_beat=True)
    assert chat.crew.partitions.stands(names.BEAT)
    assert chat.buffer.client.pttl(names.BEAT) > 0


def test_a_patrol_flushes_what_bells_and_beat_have_missed(chat: CrewRig) -> None:
    chat.say("c", "m1", "a")
    crew = chat.another()
    crew.patrol._late_ms = 50
    eventually(crew.patrol.look)
    assert chat.stored_texts() == {"m1": "a"}
    assert chat.crew.partitions.workers(chat.crew.partitions.now_ms()) == [crew.patrol.name]
    assert not crew.patrol.look()
    chat.assert_clean()


def test_a_patrol_sweeps_only_where_nobody_has_lately(brief: CrewRig) -> None:
    reply(brief)
    brief.crew.sweeper.sweep()
    eventually(lambda: list(brief.crew.partitions.stale(brief.crew.partitions.now_ms(), 9)) != [])
    brief.crew.patrol.look()
    assert brief.pipeline.item("ann", "c", "m", "r") is not None
    assert brief.due() == ["c/", "m/r"]
    open_ = brief.place("c").keys.open
    brief.buffer.client.delete(names.SWEEP)
    brief.buffer.client.zadd(open_, {f"{brief.place('c').hex}/m/r": 1})
    brief.crew.patrol.look()
    assert brief.buffer.client.zcard(open_) == 0


def test_the_patrol_thread_works_alone_and_ends_in_order(chat: CrewRig) -> None:
    crew = chat.another()
    crew.patrol._late_ms, crew.patrol._every_s = 0, 0.02
    crew.patrol.start()
    chat.say("c", "m1", "a")
    eventually(lambda: chat.stored_texts() == {"m1": "a"})
    began = time.monotonic()
    crew.patrol.stop()
    assert time.monotonic() - began < 5
    assert chat.crew.partitions.workers(chat.crew.partitions.now_ms()) == []
    chat.assert_clean()


# ---------------------------------------------------------------- figures
def test_figures_count_what_is_there(chat: CrewRig) -> None:
    chat.reject_poison()
    chat.say("dead", "m1", "poison")
    chat.flush_once("dead")
    chat.say("c", "m1", "a")
    reply(chat, "open")
    eventually(lambda: chat.pipeline.figures()["oldestDirtyAgeSeconds"] > 0.02)
    figures = chat.pipeline.figures()
    assert figures["deadLetters"] == 1
    assert figures["dirtyItems"] == 5
    assert figures["hotConversations"] == 3
    assert figures["inFlightItems"] == 1
    assert figures["oldestDirtyAgeSeconds"] < 30
    assert 0 < figures["bufferUsedBytes"] < figures["bufferMaxBytes"]
    assert figures["counters"]["buried"] == 1
    assert figures["flushSeconds"]["count"] == 1
    assert figures["flushSeconds"]["buckets"][-1] == [10.0, 1]
    assert sum(p["due"] for p in figures["partitions"]) == 4
    chat.crew.drain(within_s=10)
    after = chat.pipeline.figures()
    assert (after["dirtyItems"], after["oldestDirtyAgeSeconds"]) == (1, 0.0)
