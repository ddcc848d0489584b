"""`blotter verify`: silent on what is right, whatever goes on; each fault found by name, and put right by --repair."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from models.core import commands as c
from models.pipeline import failpoints
from tests.acceptance.console import Console
from tests.flow.crews import CrewRig


def fill(chat: CrewRig) -> None:
    """A conversation with one of everything, stored: all of it clean."""
    for number in range(3):
        chat.say("c", f"m{number}", f"text {number}")
    reply = {"role": "assistant", "content": "one", "metadata": {"a": [1, "ä"]}}
    chat.save("c", c.put("m", "r", reply, status="streaming"))
    chat.save("c", c.put("t", "t1", {"message_id": "m1", "tool_name": "x", "output": {"a": 1}}))
    chat.save("c", c.put("a", "a1", {"message_id": "m1", "content": "one"}))
    chat.flush("c")
    for number in range(20):
        chat.save("c", c.Append("m", "r", 3 + 2 * number, "xy", 2))
    chat.flush("c")


def kinds(blotter: Console, exits: int = 1) -> set[str]:
    return {fault["kind"] for fault in blotter.json("verify", exits=exits)["faults"]}


def test_what_is_right_is_called_right(chat: CrewRig, blotter: Console) -> None:
    fill(chat)
    chat.say("dirty", "m1", "a")
    chat.say("cold", "m1", "a")
    chat.evict("cold")
    chat.save("gone", c.put("m", "m1", {"content": "a"}), c.Delete("c", ""))
    chat.save("c", c.Delete("m", "m0"))
    chat.buffer.client.hset("blotter:stats", "flushes", 1)
    result = blotter.json("verify")
    assert (result["conversations"], result["faults"]) == (3, [])
    assert result["rows"] == 10
    said = blotter("verify")
    assert "3 conversations with 10 rows: all is right" in said.stderr
    assert len(blotter.said(said)) == 1, "no progress bar where nobody watches"
    assert said.stdout == ""


def test_it_keeps_silent_while_saves_flushes_and_evictions_go_on(chat: CrewRig, blotter: Console) -> None:
    stop = threading.Event()

    def busy(index: int) -> None:
        round_ = 0
        while not stop.is_set():
            round_ += 1
            chat.say(f"b{index}", f"m{round_ % 7}", f"{round_}")
            if round_ % 3 == 0:
                chat.flush_once(f"b{index}")
            if round_ % 11 == 0:
                place = chat.place(f"b{index}")
                chat.buffer.evict(place.keys, place.hex, 0)

    threads = [threading.Thread(target=busy, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert blotter.json("verify")["left"] == []
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# ---------------------------------------------------------------- each fault
def rows_key(chat: CrewRig) -> str:
    place = chat.place("c")
    return place.keys.rows(place.hex)


def change(chat: CrewRig, name: str, **fields: Any) -> None:
    """Change a row, or the header, behind everybody's back; None drops a field."""
    raw = msgspec.msgpack.decode(chat.buffer.client.hget(rows_key(chat), name))
    raw = {key: value for key, value in {**raw, **fields}.items() if value is not None}
    chat.buffer.client.hset(rows_key(chat), name, msgspec.msgpack.encode(raw))


def ref(chat: CrewRig, name: str) -> str:
    return f"{chat.place('c').hex}/{name}"


def older_in_buffer(chat: CrewRig) -> None:
    """As after a restore of an old copy of the buffer that nobody noticed."""
    before = chat.buffer.client.dump(rows_key(chat)), chat.buffer.client.dump(bodies_key(chat))
    chat.say("c", "m1", "newer")
    chat.flush("c")
    chat.buffer.client.restore(rows_key(chat), 0, before[0], replace=True)
    chat.buffer.client.restore(bodies_key(chat), 0, before[1], replace=True)


def bodies_key(chat: CrewRig) -> str:
    place = chat.place("c")
    return place.keys.bodies(place.hex)


def dirty(chat: CrewRig) -> None:
    chat.say("c", "m9", "dirty")


FAULTS: dict[str, tuple[str, Callable[[CrewRig], Any]]] = {
    "a counter": ("counters", lambda chat: change(chat, "h", n=99, dirty=7)),
    "a dirty row in no index": (
        "not-due",
        lambda chat: (dirty(chat), chat.buffer.client.zrem(chat.place("c").keys.due, ref(chat, "m/m9"))),
    ),
    "a due entry of a clean row": (
        "stray-entry",
        lambda chat: chat.buffer.client.zadd(chat.place("c").keys.due, {ref(chat, "m/m1"): 1}),
    ),
    "a due entry of no row": (
        "stray-entry",
        lambda chat: chat.buffer.client.zadd(chat.place("c").keys.due, {ref(chat, "m/none"): 1}),
    ),
    "an open entry of a conversation that is not here": (
        "stray-entry",
        lambda chat: chat.buffer.client.zadd(chat.place("c").keys.open, {f"{7:032x}/m/m1": 1}),
    ),
    "an idle entry of a conversation that is not here": (
        "stray-entry",
        lambda chat: chat.buffer.client.zadd(chat.place("c").keys.idle, {f"{7:032x}": 1}),
    ),
    "no idle entry": (
        "not-idle",
        lambda chat: chat.buffer.client.zrem(chat.place("c").keys.idle, chat.place("c").hex),
    ),
    "an open reply without its deadline": (
        "open-index",
        lambda chat: chat.buffer.client.zrem(chat.place("c").keys.open, ref(chat, "m/r")),
    ),
    "a dead letter without a reason": (
        "dead-index",
        lambda chat: (
            dirty(chat),
            chat.flush_poison("m9"),
            chat.buffer.client.hdel(chat.place("c").keys.dead, ref(chat, "m/m9")),
        ),
    ),
    "a reason without a dead letter": (
        "dead-index",
        lambda chat: chat.buffer.client.hset(chat.place("c").keys.dead, ref(chat, "m/m1"), "{}"),
    ),
    "a lifetime": ("expires", lambda chat: chat.buffer.client.pexpire(rows_key(chat), 600_000)),
    "a row that Postgres lost": ("row-lost", lambda chat: chat.sql("DELETE FROM messages WHERE id = 'm1'")),
    "an older row in Postgres": (
        "row-lost",
        lambda chat: chat.sql("UPDATE messages SET version = version - 1, content = 'old' WHERE id = 'm1'"),
    ),
    "a row set back in the buffer": ("stored-newer", older_in_buffer),
    "a row the buffer does not have": (
        "row-missing",
        lambda chat: chat.sql(
            "INSERT INTO messages (conversation_uid, id, role, content, position, status, version, created_at, updated_at)"
            " SELECT conversation_uid, 'extra', role, content, position || 'x', status, version, created_at, updated_at"
            " FROM messages WHERE id = 'm1'"
        ),
    ),
    "another content in Postgres": (
        "unequal",
        lambda chat: chat.sql("UPDATE messages SET content = 'by hand' WHERE id = 'm1'"),
    ),
    "another output in Postgres": (
        "unequal",
        lambda chat: chat.sql("UPDATE tool_results SET output = '{\"a\": 2}'"),
    ),
    "another title in Postgres": ("unequal", lambda chat: chat.sql("UPDATE conversations SET title = 'x'")),
    "a dirty conversation that its owner's list lacks": (
        "not-listed",
        lambda chat: (
            chat.save("c", c.put("c", "", {"title": "new"})),
            chat.buffer.unlist("ann", [(chat.place("c").uid, 1 << 53)]),
        ),
    ),
    "a clean row never stored": ("not-stored", lambda chat: change(chat, "m/m1", z=1)),
}


def flush_poison(chat: CrewRig, name: str) -> None:
    """Set a row aside."""
    version = chat.crew.partitions.version_of(chat.place("c").keys, ref(chat, f"m/{name}"))
    assert version is not None
    assert chat.buffer.bury(ref(chat, f"m/{name}"), version, '{"reason": "a test", "at_ms": 1}')


CrewRig.flush_poison = flush_poison  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_named_and_put_right(chat: CrewRig, blotter: Console, what: str) -> None:
    fill(chat)
    assert kinds(blotter, exits=0) == set()
    kind, break_it = FAULTS[what]
    before = [name for name, _ in chat.texts("c")]
    break_it(chat)
    assert kinds(blotter) >= {kind}
    assert kinds(blotter) >= {kind}, "looking changes nothing"
    printed = blotter("verify", exits=1)
    assert f"\t{kind}\t" in printed.stdout
    assert "text 1" not in printed.output
    repaired = blotter.json("verify", "--repair")
    assert {fault["kind"] for fault in repaired["faults"]} >= {kind}
    assert repaired["left"] == []
    assert kinds(blotter, exits=0) == set()
    assert "nothing" in blotter("drain", "--timeout", "20").stderr
    assert kinds(blotter, exits=0) == set()
    after = dict(chat.texts("c"))
    assert set(before) <= set(after)
    assert after["m1"] == chat.stored_texts()["m1"] == ("newer" if kind == "stored-newer" else "text 1")


def test_a_text_that_vanished_is_taken_from_postgres(chat: CrewRig, blotter: Console) -> None:
    fill(chat)
    chat.buffer.client.hdel(bodies_key(chat), "m/m1/content")
    assert kinds(blotter) == {"lost-text", "unequal"}
    assert blotter.json("verify", "--repair")["left"] == []
    assert dict(chat.texts("c"))["m1"] == chat.stored_texts()["m1"] == "text 1"
    assert kinds(blotter, exits=0) == set()


def test_a_text_that_only_the_buffer_had_is_told_and_nothing_is_made_up(
    chat: CrewRig, blotter: Console
) -> None:
    fill(chat)
    dirty(chat)
    chat.buffer.client.hdel(bodies_key(chat), "m/m9/content")
    assert kinds(blotter) == {"lost-text"}
    (left,) = blotter.json("verify", "--repair", exits=1)["left"]
    assert (left["kind"], left["item"]) == ("lost-text", "m/m9")


def test_a_text_of_no_row_is_told(chat: CrewRig, blotter: Console) -> None:
    fill(chat)
    chat.buffer.client.hset(bodies_key(chat), "m/none/content", "x")
    assert kinds(blotter) == {"stray-text"}


def test_what_is_saved_between_two_looks_is_no_fault(chat: CrewRig, blotter: Console) -> None:
    """The first look finds Postgres ahead, because a save was flushed after the buffer's snapshot."""
    fill(chat)
    looks = 0
    real = chat.pipeline.store.base

    from models.postgres.store import Store

    def late(self: Store, uid: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks <= 2:
            chat.say("c", "m1", f"newer {looks}")
            chat.flush("c")
        return real(uid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "base", late)
        assert kinds(blotter, exits=0) == set()
    assert looks == 3


def test_blind_saves_are_no_fault_and_are_told(chat: CrewRig, blotter: Console) -> None:
    place = chat.place("c")
    chat.buffer.initialise()
    chat.buffer.save(place, [c.put("m", "m1", {"content": "a"})], mode="blind")
    result = blotter.json("verify")
    assert (result["blind"], result["faults"]) == (1, [])
    assert "1 waiting for their base" in blotter("verify").stderr
    chat.buffer.client.zrem(place.keys.blind, place.hex)
    assert kinds(blotter) == {"blind-index"}
    blotter("verify", "--repair")
    assert blotter.json("drain", "--timeout", "20")["done"]
    assert chat.stored_texts() == {"m1": "a"}


def test_a_repair_that_dies_half_way_is_made_again(chat: CrewRig, blotter: Console) -> None:
    fill(chat)
    chat.sql("DELETE FROM messages WHERE id = 'm1'")
    change(chat, "h", n=99)
    failpoints.arm("adopt.4", failpoints.crash)
    with pytest.raises(failpoints.Crash):
        chat.crew.verifier.verify(repair=True)
    failpoints.disarm()
    blotter("verify", "--repair")
    blotter("drain", "--timeout", "20")
    chat.assert_clean("c") if "r" not in chat.stored() else None
    assert chat.stored_texts()["m1"] == "text 1"


def test_postgres_away_is_exit_code_2(chat: CrewRig, blotter: Console) -> None:
    fill(chat)
    blotter.environ["DATABASE_URL"] = "postgresql://127.0.0.1:1/none"
    result = blotter("verify", exits=2)
    assert result.stderr.strip().splitlines()[-1].startswith("Error:")
