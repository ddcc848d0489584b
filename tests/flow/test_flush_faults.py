"""What goes wrong in a flush: COMMITs without an answer, rows that Postgres refuses, rows that kill, a buffer set back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from models.buffer.buffer import Buffer
from models.core import commands as c
from models.core.batches import ALONE_TRIES, GROUP_TRIES
from models.core.records import Record
from models.errors import BufferSlow, BufferUnavailable, StoreUnavailable
from models.pipeline import failpoints
from models.pipeline.crew import Crew
from models.postgres.errors import SchemaError
from models.postgres.store import WriteOutcome
from models.settings import load
from tests.flow.crews import CrewRig, crew_rig

Write = Callable[[Sequence[Record]], WriteOutcome]


@pytest.fixture
def chat(buffer_url: str, database_url: str) -> Iterator[CrewRig]:
    with crew_rig(buffer_url, database_url) as made:
        yield made


def poisonous(records: Sequence[Record]) -> bool:
    return any((getattr(record, "content", None) or "").startswith("poison") for record in records)


# ---------------------------------------------------------------- transient
def test_a_commit_whose_answer_never_came_is_made_again_and_found_done(chat: CrewRig) -> None:
    chat.say("c", "m1", "a")

    def lose_the_answer(write: Write, records: Sequence[Record]) -> WriteOutcome:
        write(records)
        raise StoreUnavailable("the outcome of COMMIT is unknown")

    flushed = chat.flush_once(crew=chat.another(lose_the_answer))
    assert (flushed.state, flushed.rows) == ("failed", 0)
    assert chat.due() == ["c/", "m/m1"]
    before = chat.stored()["m1"]
    assert chat.flush_once().state == "paused"
    chat.end_pause()
    assert chat.flush_once().rows == 2
    assert chat.stored()["m1"] == before
    chat.assert_clean()


def test_a_lease_lost_during_commit_is_not_released_by_its_former_holder(chat: CrewRig) -> None:
    chat.say("c", "m1", "a")
    keys = chat.place("c").keys

    def stall(write: Write, records: Sequence[Record]) -> WriteOutcome:
        chat.expire_lease()
        assert chat.buffer.begin(keys, "another").state == "taken"
        return write(records)

    flushed = chat.flush_once(crew=chat.another(stall))
    assert flushed.rows == 2
    assert chat.buffer.client.get(keys.lease) == b"another"
    chat.buffer.release(keys, "another")
    chat.assert_clean()


def test_pauses_grow_with_each_error_in_a_row_and_end_with_a_success(chat: CrewRig) -> None:
    chat.say("c", "m1", "a")
    keys = chat.place("c").keys

    def away(write: Write, records: Sequence[Record]) -> WriteOutcome:
        raise StoreUnavailable("away")

    crew = chat.another(away)
    crew.flusher._chance = lambda: 0.0
    pauses = []
    for _ in range(8):
        assert chat.flush_once(crew=crew).state == "failed"
        pauses.append(round(chat.buffer.client.pttl(keys.hold) / 250) * 250)
        chat.end_pause()
    assert pauses == [250, 500, 1000, 2000, 4000, 8000, 8000, 8000]
    assert chat.flush_once().rows == 2
    assert chat.buffer.client.exists(keys.fails) == 0
    chat.assert_clean()


@pytest.mark.parametrize("error", [StoreUnavailable("away"), SchemaError("not migrated")])
def test_transient_errors_never_count_against_a_row(chat: CrewRig, error: Exception) -> None:
    chat.say("c", "m1", "a")

    def fail(write: Write, records: Sequence[Record]) -> WriteOutcome:
        assert chat.trials(), "the trial is noted before the transaction"
        raise error

    crew = chat.another(fail)
    for _ in range(GROUP_TRIES + ALONE_TRIES + 2):
        assert chat.flush_once(crew=crew).state == "failed"
        assert chat.trials() == {}
        chat.end_pause()
    assert chat.dead() == {}
    chat.flush_once()
    chat.assert_clean()


def test_an_acknowledgement_that_fails_leaves_the_row_for_the_next_flush(chat: CrewRig) -> None:
    chat.say("c", "m1", "a")
    real = chat.buffer.acknowledge

    def fail(*args: Any) -> Any:
        raise BufferUnavailable("away")

    chat.buffer.acknowledge = fail
    with pytest.raises(BufferUnavailable):
        chat.flush_once()
    chat.buffer.acknowledge = real
    assert chat.due() == ["c/", "m/m1"]
    assert chat.flush_once().rows == 2
    chat.assert_clean()


# ---------------------------------------------------------------- not read in time
def slow_at(chat: CrewRig, name: str) -> None:
    """Rows with ``name`` among them are never read in time."""
    real = chat.buffer.rows

    def rows(keys: Any, refs: Sequence[str], most: int) -> Any:
        if any(ref.endswith(name) for ref in refs):
            raise BufferSlow("no answer")
        return real(keys, refs, most)

    chat.buffer.rows = rows


def test_a_row_that_cannot_be_read_in_time_is_set_aside_and_the_others_are_stored(chat: CrewRig) -> None:
    for number in range(20):
        chat.say("c", f"m{number}", f"text {number}")
    slow_at(chat, "/m/m7")
    for _ in range(GROUP_TRIES + ALONE_TRIES):
        assert chat.dead() == {}
        with pytest.raises(BufferSlow):
            chat.flush_once()
    assert chat.flush_once().buried == 1
    assert list(chat.dead()) == ["m/m7"]
    assert chat.stored_texts() == {f"m{number}": f"text {number}" for number in range(20) if number != 7}
    assert chat.trials() == {}


def test_a_row_that_was_slow_for_a_while_is_stored_and_nothing_is_held_against_it(chat: CrewRig) -> None:
    chat.say("c", "m1", "a")
    real = chat.buffer.rows
    slow_at(chat, "/m/m1")
    for _ in range(GROUP_TRIES + ALONE_TRIES - 1):
        with pytest.raises(BufferSlow):
            chat.flush_once()
    chat.buffer.rows = real
    assert chat.flush_once().rows >= 1
    assert (chat.stored_texts(), chat.trials(), chat.dead()) == ({"m1": "a"}, {}, {})
    chat.assert_clean()


def test_a_buffer_that_does_not_answer_at_all_counts_against_no_row(
    chat: CrewRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.pipeline.flush.ANSWER_S", 0)
    chat.say("c", "m1", "a")
    slow_at(chat, "/m/m1")
    partitions: Any = chat.crew.partitions
    real = partitions.note_trial

    def away(*args: Any) -> None:
        raise BufferUnavailable("away")

    partitions.note_trial = away
    for _ in range(GROUP_TRIES + ALONE_TRIES + 2):
        with pytest.raises(BufferUnavailable):
            chat.flush_once()
    partitions.note_trial = real
    assert (chat.trials(), chat.dead()) == ({}, {})


def test_a_row_of_far_too_many_parts_does_not_stop_its_partition(buffer_url: str, database_url: str) -> None:
    """A buffer filled before there was a limit: it takes 200 ms and more to read the row, of 50."""
    settings = {"BLOTTER_MAX_ITEM_BYTES": "67108864", "BLOTTER_BUFFER_TIMEOUT_MS": "20000"}
    with crew_rig(buffer_url, database_url, **settings) as chat:
        chat.say("c", "m1", "a")
        chat.buffer._limits["parts"] = 1_000_000
        chat.save("c", c.put("m", "m2", {"parts": [{"type": "text", "text": "t"}] * 20_000}))
        chat.say("c", "m3", "b")
        environ = {"REDIS_URL": buffer_url, "BLOTTER_PARTITIONS": "4", "BLOTTER_BUFFER_TIMEOUT_MS": "50"}
        hasty = Crew(Buffer.connect(load(environ)), chat.pipeline.store, chat.rung.append)
        for _ in range(50):
            if chat.trials().get("m/m2", 0) == GROUP_TRIES + ALONE_TRIES:
                break
            with pytest.raises(BufferSlow):
                chat.flush_once(crew=hasty)
            chat.expire_lease()
        # On a busy machine other calls may take more than 50 ms as well.
        assert chat.flush_once().buried == 1
        assert (list(chat.dead()), chat.stored_texts()) == (["m/m2"], {"m1": "a", "m3": "b"})
        hasty.buffer.close()


def test_an_answer_that_comes_late_is_told_from_a_buffer_that_is_not_there(
    chat: CrewRig, buffer_url: str
) -> None:
    impatient = {"REDIS_URL": buffer_url, "BLOTTER_PARTITIONS": "4", "BLOTTER_BUFFER_TIMEOUT_MS": "100"}
    hasty = Buffer.connect(load(impatient))
    chat.buffer.client.execute_command("CLIENT", "PAUSE", "500", "ALL")
    with pytest.raises(BufferSlow):
        hasty.rows(chat.place("c").keys, [f"{chat.place('c').hex}/m/m1"], 1)
    hasty.close()
    nobody = Buffer.connect(load({**impatient, "REDIS_URL": "redis://127.0.0.1:1/0"}))
    with pytest.raises(BufferUnavailable) as caught:
        nobody.rows(chat.place("c").keys, [], 1)
    assert not isinstance(caught.value, BufferSlow)


# ---------------------------------------------------------------- rejected
def test_rejected_rows_are_set_aside_and_their_batch_commits(chat: CrewRig) -> None:
    chat.reject_poison()
    for number in range(60):
        chat.say("c", f"m{number}", "poison, secret" if number in (7, 8, 41) else f"text {number}")
    calls: list[int] = []

    def count(write: Write, records: Sequence[Record]) -> WriteOutcome:
        calls.append(len(records))
        return write(records)

    flushed = chat.flush_once(crew=chat.another(count))
    assert (flushed.state, flushed.buried, flushed.rows) == ("done", 3, 58)
    assert len(calls) <= 2 * 3 * 6 + 1
    assert set(chat.dead()) == {"m/m7", "m/m8", "m/m41"}
    why = chat.dead()["m/m7"]
    assert why["sqlstate"] == "23514"
    assert "no_poison" in why["reason"]
    assert "secret" not in json.dumps(why)
    assert set(chat.stored_texts()) == {f"m{n}" for n in range(60)} - {"m7", "m8", "m41"}
    # Readable, not due, and the partition has nothing left to do.
    assert dict(chat.texts("c"))["m7"] == "poison, secret"
    assert chat.due() == []
    assert chat.flush_once().rows == 0
    assert chat.buffer.evict(chat.place("c").keys, chat.place("c").hex, 0) == 0


def test_a_dead_letter_is_replayed_after_its_cause_is_mended(chat: CrewRig) -> None:
    chat.reject_poison()
    chat.say("c", "m1", "poison")
    chat.say("c", "m2", "fine")
    chat.flush_once()
    [letter] = list(chat.crew.dead_letters.all())
    assert (letter.owner, letter.conversation, letter.kind, letter.id) == ("ann", "c", "m", "m1")
    shown = chat.crew.dead_letters.show(letter.ref)
    assert shown is not None
    assert shown[1].content == "poison"  # type: ignore[union-attr]
    assert chat.crew.dead_letters.replay(letter.ref)
    assert chat.flush_once().buried == 1
    chat.accept_poison()
    chat.rung.clear()
    assert chat.crew.dead_letters.replay(letter.ref)
    assert chat.rung == [chat.place("c").keys.number]
    chat.flush_once()
    assert chat.dead() == {}
    assert chat.stored_texts() == {"m1": "poison", "m2": "fine"}
    assert not chat.crew.dead_letters.replay(letter.ref)
    chat.assert_clean()


def test_a_dead_letter_is_overtaken_by_a_newer_save(chat: CrewRig) -> None:
    chat.reject_poison()
    chat.say("c", "m1", "poison")
    chat.flush_once()
    assert set(chat.dead()) == {"m/m1"}
    chat.say("c", "m1", "cured")
    assert chat.dead() == {}
    chat.flush_once()
    assert chat.stored_texts() == {"m1": "cured"}
    chat.assert_clean()


def test_a_purged_dead_letter_leaves_what_postgres_has(chat: CrewRig) -> None:
    chat.say("c", "m1", "first")
    chat.flush_once()
    chat.reject_poison()
    chat.say("c", "m1", "poison")
    chat.flush_once()
    [letter] = list(chat.crew.dead_letters.all())
    assert chat.crew.dead_letters.purge(letter.ref)
    assert chat.dead() == {}
    assert chat.texts("c") == [("m1", "first")]
    chat.assert_clean()


def test_a_row_saved_anew_while_it_was_being_rejected_gets_its_chance(chat: CrewRig) -> None:
    chat.reject_poison()
    chat.say("c", "m1", "poison")

    def cure(write: Write, records: Sequence[Record]) -> WriteOutcome:
        if poisonous(records) and len(records) == 1:
            chat.say("c", "m1", "cured")
        return write(records)

    assert chat.flush_once(crew=chat.another(cure)).buried == 0
    assert chat.stored_texts() == {"m1": "cured"}
    chat.assert_clean()


# ---------------------------------------------------------------- killers
def test_a_row_that_kills_its_worker_is_found_and_set_aside(chat: CrewRig) -> None:
    for number in range(6):
        chat.say("c", f"m{number}", "poison" if number in (0, 3) else "fine")
    deaths = 0

    def die(write: Write, records: Sequence[Record]) -> WriteOutcome:
        if poisonous(records):
            raise failpoints.Crash("killed")
        return write(records)

    crew = chat.another(die)
    for _ in range(40):
        try:
            if chat.flush_once(crew=crew).rows == 0:
                break
        except failpoints.Crash:
            deaths += 1
            chat.expire_lease()
            if deaths == GROUP_TRIES:
                # Under suspicion together: a new row does not wait for them.
                chat.say("c", "m9", "fine")
    assert deaths == GROUP_TRIES + 2 * ALONE_TRIES
    assert set(chat.dead()) == {"m/m0", "m/m3"}
    assert "killed the worker" in chat.dead()["m/m0"]["reason"]
    assert chat.stored_texts() == {f"m{n}": "fine" for n in (1, 2, 4, 5, 9)}
    assert chat.trials() == {}
    for letter in list(chat.crew.dead_letters.all()):
        assert chat.crew.dead_letters.replay(letter.ref)
    chat.flush_once()
    chat.assert_clean()


def test_a_row_this_code_stumbles_over_counts_like_a_killer(chat: CrewRig) -> None:
    chat.say("c", "m1", "poison")
    chat.say("c", "m2", "fine")

    def stumble(write: Write, records: Sequence[Record]) -> WriteOutcome:
        if poisonous(records):
            raise TypeError("a bug")
        return write(records)

    crew = chat.another(stumble)
    stumbles = 0
    for _ in range(20):
        try:
            if chat.flush_once(crew=crew).rows == 0:
                break
        except TypeError:
            stumbles += 1
            assert chat.flush_once(crew=crew).state == "paused"
            chat.end_pause()
    assert stumbles == GROUP_TRIES + ALONE_TRIES
    assert set(chat.dead()) == {"m/m1"}
    assert chat.stored_texts() == {"m2": "fine"}


def test_a_row_that_cannot_be_read_is_set_aside_at_once(chat: CrewRig) -> None:
    chat.say("c", "m1", "fine")
    chat.save("c", c.put("m", "m2", {"role": "assistant", "parts": [{"type": "text", "text": "a"}]}))
    place = chat.place("c")
    skeleton = chat.buffer.client.hget(place.keys.bodies(place.hex), "m/m2/#0")
    broken = skeleton.replace(b'{"type"', b'{"ty"e"')
    assert broken != skeleton
    chat.buffer.client.hset(place.keys.bodies(place.hex), "m/m2/#0", broken)
    flushed = chat.flush_once()
    assert (flushed.buried, flushed.rows) == (1, 2)
    assert set(chat.dead()) == {"m/m2"}
    assert chat.stored_texts() == {"m1": "fine"}


# ---------------------------------------------------------------- rolled back
def take(chat: CrewRig) -> dict[bytes, bytes]:
    return {key: chat.buffer.client.dump(key) for key in chat.buffer.client.keys("blotter:{*")}


def put_back(chat: CrewRig, dump: dict[bytes, bytes]) -> None:
    chat.buffer.client.flushall()
    for key, value in dump.items():
        chat.buffer.client.restore(key, 0, value)
    chat.expire_lease()


@pytest.mark.parametrize("crash", ["", "flush.9"])
def test_a_buffer_set_back_takes_what_postgres_has_newer(chat: CrewRig, crash: str) -> None:
    """A power cut with everysec, or a failover: the buffer stands at an older state, dirty, that was committed since."""
    chat.say("c", "m1", "old")
    chat.say("c", "m2", "same")
    dump = take(chat)
    chat.say("c", "m1", "new")
    chat.say("c", "m3", "added")
    chat.flush_once()
    stored = chat.stored()
    put_back(chat, dump)
    chat.say("c", "m4", "after")
    if crash:
        failpoints.arm(crash, failpoints.crash)
        with pytest.raises(failpoints.Crash):
            chat.flush_once()
        failpoints.disarm()
        chat.expire_lease()
    flushed = chat.flush_once()
    assert flushed.healed == (0 if crash else 1)
    chat.flush_once()
    assert chat.stored_texts() == {"m1": "new", "m2": "same", "m3": "added", "m4": "after"}
    assert {name: chat.stored()[name] for name in ("m1", "m2", "m3")} == stored
    assert sorted(chat.texts("c")) == sorted(chat.stored_texts().items())
    chat.assert_clean()
