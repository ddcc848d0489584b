"""Flush: what is due reaches Postgres, and only what was committed is forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from models.core import commands as c
from models.errors import Contention, StoreUnavailable
from models.pipeline import failpoints
from tests.flow.crews import CrewRig, crew_rig, same_partition
from tests.servers import eventually


@pytest.fixture
def chat(buffer_url: str, database_url: str) -> Iterator[CrewRig]:
    with crew_rig(buffer_url, database_url) as made:
        yield made


def test_a_flush_commits_all_that_is_due_and_leaves_a_clean_buffer(chat: CrewRig) -> None:
    for number in range(5):
        chat.say("c", f"m{number}", f"text {number}")
    chat.save("c", c.put("t", "r1", {"message_id": "m1", "tool_name": "x", "output": {"a": 1}}))
    chat.save("c", c.put("a", "a1", {"message_id": "m1", "content": "one"}))
    flushed = chat.flush_once()
    # Five messages, the result, the artifact with its version, the conversation's own row.
    assert (flushed.state, flushed.rows, flushed.batches) == ("done", 9, 1)
    assert chat.stored_texts() == {f"m{n}": f"text {n}" for n in range(5)}
    chat.assert_clean()
    assert chat.flush_once().rows == 0


# Step 2 is reached with blind journals only (test_blind.py), 9 with a rolled-back buffer (test_flush_faults.py).
@pytest.mark.parametrize("step", [1, 3, 4, 5, 6, 7, 8, 10, 11, 12])
def test_a_flush_that_dies_after_any_step_is_healed_by_the_next(chat: CrewRig, step: int) -> None:
    others = list(islice(same_partition(chat), 2))
    for name in ("c", *others):
        chat.say(name, "m1", f"hello {name}")
    failpoints.arm(f"flush.{step}", failpoints.crash)
    with pytest.raises(failpoints.Crash):
        chat.flush_once()
    failpoints.disarm()
    assert chat.flush_once().state == ("done" if step == 12 else "busy")
    chat.expire_lease()
    assert chat.flush_once().state == "done"
    for name in ("c", *others):
        assert chat.stored_texts(name) == {"m1": f"hello {name}"}
    chat.assert_clean("c", *others)


def test_a_save_between_peek_and_commit_stays_dirty_and_due(chat: CrewRig) -> None:
    chat.say("c", "m1", "old")
    seen: list[list[str]] = []

    def save_once(step: str) -> None:
        failpoints.disarm("flush.4")
        chat.say("c", "m1", "new")

    failpoints.arm("flush.4", save_once)
    failpoints.arm("flush.8", lambda step: seen.append(chat.due()))
    flushed = chat.flush_once()
    assert seen[0] == ["m/m1"]
    assert flushed.batches == 2
    assert chat.stored_texts() == {"m1": "new"}
    chat.assert_clean()


def test_a_row_listed_anew_while_an_older_one_was_committed_stays_listed(chat: CrewRig) -> None:
    """Between COMMIT of the older row and the next flush only the index knows the newer one."""
    chat.say("c", "m1", "a")
    seen: list[dict[object, int]] = []

    def rename(step: str) -> None:
        failpoints.disarm("flush.4")
        chat.save("c", c.put("c", "", {"title": "new"}))

    failpoints.arm("flush.4", rename)
    failpoints.arm("flush.7", lambda step: seen.append(dict(chat.buffer.listed("ann"))))
    chat.flush_once()
    assert list(seen[0]) == [chat.place("c").uid]
    assert seen[-1] == {}
    chat.assert_clean()


def test_two_flushers_at_one_partition_do_no_harm(chat: CrewRig) -> None:
    """The first loses its lease between peek and commit; the second commits a newer row before it."""
    chat.say("c", "m1", "old")

    def overtake(step: str) -> None:
        failpoints.disarm("flush.4")
        chat.expire_lease()
        chat.say("c", "m1", "new")
        assert chat.flush_once(crew=chat.another()).rows == 2

    failpoints.arm("flush.4", overtake)
    flushed = chat.flush_once()
    assert (flushed.rows, flushed.healed) == (1, 0)
    assert chat.stored_texts() == {"m1": "new"}
    chat.assert_clean()


def test_many_flushers_and_savers_at_once_end_with_everything_stored(chat: CrewRig) -> None:
    names = list(islice(same_partition(chat), 3))
    crews = [chat.another() for _ in range(3)]
    stop = threading.Event()

    def flush(index: int) -> None:
        while not stop.is_set():
            chat.flush_once(crew=crews[index])
            chat.expire_lease()

    flushers = [threading.Thread(target=flush, args=(index,)) for index in range(3)]
    for thread in flushers:
        thread.start()
    try:
        for round_ in range(30):
            for name in names:
                chat.say(name, f"m{round_ % 5}", f"{name} {round_}")
    finally:
        stop.set()
        for thread in flushers:
            thread.join()
    for name in names:
        chat.flush_once(name)
        assert chat.stored_texts(name) == {f"m{n}": f"{name} {25 + n}" for n in range(5)}
    # A save that lists its row after a flusher had committed and unlisted it leaves an entry for the list to drop.
    chat.pipeline.conversations("ann", archived=False, after=None, limit=10)
    chat.assert_clean(*names)


def test_large_rows_go_in_batches_of_a_mebibyte_or_one_row(chat: CrewRig) -> None:
    for number in range(3):
        chat.say("c", f"big{number}", "x" * 1_500_000)
    for number in range(5):
        chat.say("c", f"m{number}", "y" * 300_000)
    flushed = chat.flush_once()
    assert flushed.rows == 9
    assert 5 <= flushed.batches <= 7
    chat.assert_clean()


def test_a_flush_asked_to_stop_ends_after_its_batch_and_rings_again(chat: CrewRig) -> None:
    asked = threading.Event()
    crew = chat.another(stopping=asked.is_set)
    for name in islice(same_partition(chat), 300):
        chat.say(name, "m1", "a")
    chat.rung.clear()
    failpoints.arm("flush.10", lambda step: asked.set())
    flushed = chat.flush_once(crew=crew)
    assert flushed.batches == 1
    assert flushed.rung
    assert chat.rung == [chat.place("c").keys.number]
    assert chat.buffer.client.exists(chat.place("c").keys.lease) == 0
    failpoints.disarm()
    chat.rung.clear()
    assert chat.flush_once().rows == 600 - flushed.rows


def test_a_paused_partition_is_left_alone_and_its_bell_is_answered(chat: CrewRig) -> None:
    chat.say("c", "m1", "a")
    keys = chat.place("c").keys
    chat.buffer.client.set(keys.hold, "1")
    assert chat.flush_once().state == "paused"
    assert chat.buffer.client.exists(keys.bell) == 0
    chat.end_pause()
    assert chat.flush_once().rows == 2


def test_a_stale_due_entry_is_cleared(chat: CrewRig) -> None:
    chat.say("c", "m1", "a")
    chat.flush_once()
    place = chat.place("c")
    ghost = chat.place("ghost")
    chat.buffer.client.zadd(place.keys.due, {f"{place.hex}/m/m1": 1, f"{place.hex}/m/never": 1})
    chat.buffer.client.zadd(ghost.keys.due, {f"{ghost.hex}/m/m1": 1})
    chat.flush_once()
    chat.flush_once("ghost")
    assert chat.due() == []
    assert chat.due("ghost") == []
    chat.assert_clean()


def test_what_is_due_far_ahead_is_due_now_because_the_clock_went_back(chat: CrewRig) -> None:
    chat.say("c", "m1", "a")
    place = chat.place("c")
    ahead = time.time_ns() // 1_000_000 + 3 * 30_000
    for ref in chat.buffer.client.zrange(place.keys.due, 0, -1):
        chat.buffer.client.zadd(place.keys.due, {ref: ahead})
    chat.buffer.client.delete(place.keys.bell)
    assert [look.rung for look in chat.crew.partitions.look([place.keys.number], ring=True)] == [True]
    assert chat.flush_once().rows == 2
    chat.assert_clean()


def test_an_open_reply_is_not_due_before_its_interval(buffer_url: str, database_url: str) -> None:
    with crew_rig(buffer_url, database_url, BLOTTER_STREAM_FLUSH_SECONDS="25") as chat:
        chat.save("c", c.put("m", "m1", {"role": "assistant", "content": "a"}, status="streaming"))
        assert chat.flush_once().rows == 1
        assert chat.stored_texts() == {}
        assert chat.due() == ["m/m1"]


def test_an_open_reply_that_grew_during_its_commit_waits_for_its_next_interval(
    buffer_url: str, database_url: str
) -> None:
    with crew_rig(buffer_url, database_url, BLOTTER_STREAM_FLUSH_SECONDS="5") as chat:
        chat.save("c", c.put("m", "m1", {"role": "assistant", "content": "a"}, status="streaming"))
        place = chat.place("c")
        chat.crew.partitions.pull(place.keys)

        def grow(step: str) -> None:
            failpoints.disarm("flush.4")
            chat.save("c", c.Append("m", "m1", 1, "b", 1))

        failpoints.arm("flush.4", grow)
        assert chat.flush_once().batches == 1
        assert chat.stored_texts() == {"m1": "a"}
        due_ms = chat.buffer.client.zscore(place.keys.due, f"{place.hex}/m/m1")
        assert due_ms - chat.crew.partitions.now_ms() > 5_000


def test_a_long_reply_costs_postgres_a_few_writes(buffer_url: str, database_url: str) -> None:
    """Sixty appends over 1.5 s, the first interval 50 ms: doubling makes about five writes, not sixty, not thirty."""
    written: list[int] = []
    with crew_rig(
        buffer_url, database_url, BLOTTER_STREAM_FLUSH_SECONDS="0.05", BLOTTER_AUTOSAVE_SECONDS="30"
    ) as chat:

        def count(write, records):
            written.append(sum(r.id == "m1" for r in records))
            return write(records)

        crew = chat.another(count)
        chat.save("c", c.put("m", "m1", {"role": "assistant"}, status="streaming"))
        begun = time.monotonic()
        for step in range(60):
            while time.monotonic() < begun + step * 0.025:
                chat.flush_once(crew=crew)
            chat.save("c", c.Append("m", "m1", step * 10, "0123456789", 10))
        chat.save("c", c.Append("m", "m1", 600, "", 0, st="complete"))
        chat.flush_once(crew=crew)
        assert chat.stored_texts() == {"m1": "0123456789" * 60}
        chat.assert_clean()
    assert 3 <= sum(written) <= 8


def test_the_bell_is_set_once_until_a_flush_begins(chat: CrewRig) -> None:
    for number in range(50):
        chat.say("c", f"m{number}", "a")
    assert len(chat.rung) == 1
    failpoints.arm("flush.1", lambda step: chat.say("c", "late", "b"))
    chat.flush_once()
    # Rung by the save after the bell was deleted; the release finds that bell out.
    assert len(chat.rung) == 2


def test_rows_whose_journal_is_not_replayed_are_passed_over(chat: CrewRig) -> None:
    """A replay that broke off after its first script left rows applied, dirty and due: they wait for the rest."""
    away = chat.pipeline.store

    class Away:
        def base(self, uid: object) -> object:
            raise StoreUnavailable("away")

    saver = chat.pipeline.adopter
    saver._store = Away()
    for number in range(30):
        chat.say("c", f"m{number}", "a")
    saver._store = away
    place = chat.place("c")
    crew = chat.another()
    failpoints.arm("replay.2", failpoints.crash)
    with pytest.raises(failpoints.Crash):
        crew.adopter.replay(place)
    failpoints.disarm()
    assert chat.due()

    def busy(*args: object, **how: object) -> int:
        raise Contention("moved")

    crew.adopter.replay = busy
    chat.buffer.client.zadd(place.keys.due, {f"{place.hex}/c/": 1})
    began = time.monotonic()
    assert chat.flush_once(crew=crew).rows == 0
    assert time.monotonic() - began < 2
    assert chat.stored_texts() == {}
    assert chat.flush_once().state == "done"
    assert len(chat.stored_texts()) == 30
    chat.assert_clean()


def test_drain_takes_open_replies_too_and_tells_where_it_stands(chat: CrewRig) -> None:
    for number in range(8):
        chat.say(f"c{number}", "m1", "a")
        reply = c.put("m", "m2", {"role": "assistant", "content": "b"}, status="streaming")
        chat.save(f"c{number}", reply)
    told: list[int] = []
    drained = chat.crew.drain(within_s=10, progress=lambda now: told.append(now.dirty))
    assert drained.done
    assert told[-1] == 0
    for number in range(8):
        assert set(chat.stored_texts(f"c{number}")) == {"m1", "m2"}


def test_drain_waits_for_a_partition_another_holds_and_gives_up_in_time(chat: CrewRig) -> None:
    chat.say("c", "m1", "a")
    keys = chat.place("c").keys
    assert chat.buffer.begin(keys, "another").state == "taken"
    assert not chat.crew.drain(within_s=0.1).done
    release = threading.Timer(0.1, lambda: chat.buffer.release(keys, "another"))
    release.start()
    assert chat.crew.drain(within_s=10).done
    eventually(lambda: not release.is_alive())
    chat.assert_clean()
