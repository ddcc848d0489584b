"""kill -9 at every numbered step, one by one, in real processes: web, Celery worker, commands. See processes.py.

One test a point. Each has a conversation of its own with a message that is already in Postgres, a script that brings the
part to the point, and what must be true once the part is back: every acknowledged save is there, in the order of saving,
once; buffer, Postgres and API agree; nothing is dirty; `blotter drain` and `blotter verify` say so too.

`make test` takes a third of them, BLOTTER_TEST_TIER=full (.ci/run) all.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.faults.points import documented, hooked
from tests.faults.processes import Chat, Programs

FULL = os.environ.get("BLOTTER_TEST_TIER") == "full"
NEW = {"id": "m2", "role": "user", "content": "new"}
BOTH = {"m1": "old", "m2": "new"}


# ---------------------------------------------------------------- the list of points
def test_every_documented_step_has_its_hook_and_every_hook_is_documented() -> None:
    assert set(documented()) == set(hooked())
    assert [step for step, places in hooked().items() if len(places) != 1] == []


def test_every_step_is_tried() -> None:
    assert {point for point, _ in MATRIX} == set(documented())
    assert set(MATRIX) >= TAKEN


@pytest.mark.parametrize(
    "family", ["save", "adopt", "replay", "flush", "settle", "evict", "dead", "sweep", "verify"]
)
def test_steps_are_numbered_without_gaps(family: str) -> None:
    numbers = [
        int(n) for kind, n in (step.split(".") for step in documented()) if kind == family and n.isdigit()
    ]
    assert numbers == list(range(1, len(numbers) + 1))


# ---------------------------------------------------------------- the ways to each point
def saving(chat: Chat, point: str) -> dict[str, str]:
    """The web dies while it saves. The client does not know, and saves again: acknowledged, it is read and listed at once."""
    first = chat._replace(id=f"{chat.id}new")
    with first.unflushed(), chat.blotter.dies_at(point, "web"):
        assert not chat.blotter.try_save(first.id, NEW), "acknowledged by the dead"
        first.save(NEW)
        assert [m["content"] for m in chat.blotter.read(first.id)["messages"]] == ["new"]
        assert chat.blotter.listed().count(first.id) == 1
    chat.blotter.assert_kept(first.id, {"m2": "new"})
    return {"m1": "old"}


def saving_to_a_cold_one(chat: Chat, point: str) -> dict[str, str]:
    """The web dies while it brings the conversation back from Postgres."""
    chat.evict()
    with chat.blotter.dies_at(point, "web"):
        assert not chat.blotter.try_save(chat.id, NEW), "acknowledged by the dead"
    chat.save(NEW)
    return BOTH


def flushing(chat: Chat, point: str) -> dict[str, str]:
    """The worker dies while it flushes what was acknowledged."""
    with chat.blotter.dies_at(point, "worker", poke=chat.ring):
        chat.save(NEW)
    return BOTH


def flushing_blind_saves(chat: Chat, point: str) -> dict[str, str]:
    """Postgres was away; the worker dies while it adopts the base, or replays the journal on it."""
    chat.evict()
    more = {f"n{number}": str(number) for number in range(25)}
    chat.blotter.proxy.refuse()
    try:
        for name, text in {"m2": "new", **more}.items():
            chat.save({"id": name, "role": "user", "content": text})
        assert chat.blotter.rig.buffer.client.llen(chat.keys.journal(chat.hex)) == 26
    finally:
        chat.blotter.proxy.accept()
    with chat.blotter.dies_at(point, "worker", poke=chat.ring):
        pass
    return {**BOTH, **more}


def flushing_what_is_rejected(chat: Chat, point: str) -> dict[str, str]:
    """The worker dies when it has set a row aside. It is readable all the time, and replayed when the cause is mended."""
    rig = chat.blotter.rig
    rig.reject_poison()
    try:
        with chat.blotter.dies_at(point, "worker", poke=chat.ring):
            chat.save({**NEW, "content": "poison"})
        chat.save({"id": "m3", "role": "user", "content": "healthy"})
        chat.blotter.forget_the_dead(chat.id)
        assert chat.blotter.console.json("drain", "--timeout", "20")["deadLetters"] == 1
        assert rig.stored_texts(chat.id) == {"m1": "old", "m3": "healthy"}
        expected = {"m1": "old", "m2": "poison", "m3": "healthy"}
        assert [m["content"] for m in chat.blotter.read(chat.id)["messages"]] == list(expected.values())
    finally:
        rig.accept_poison()
    assert len(chat.blotter.console.json("dead", "replay", "--all")["done"]) == 1
    return expected


def flushing_a_buffer_set_back(chat: Chat, point: str) -> dict[str, str]:
    """The buffer lies behind Postgres; the worker dies when it has adopted over it."""
    client = chat.blotter.rig.buffer.client
    rows, bodies = chat.keys.rows(chat.hex), chat.keys.bodies(chat.hex)
    with chat.unflushed():
        chat.save({"id": "m1", "role": "user", "content": "older"})
        copies = client.dump(rows), client.dump(bodies)
        chat.store()
        chat.save({"id": "m1", "role": "user", "content": "newest"})
        chat.store()
        client.restore(rows, 0, copies[0], replace=True)
        client.restore(bodies, 0, copies[1], replace=True)
        client.zadd(chat.keys.due, {f"{chat.hex}/m/m1": 1})
    with chat.blotter.dies_at(point, "worker", poke=chat.ring):
        pass
    return {"m1": "newest"}


def settling(chat: Chat, point: str) -> dict[str, str]:
    """The worker dies while it ends a reply whose writer fell silent."""
    chat.save({"id": "r", "role": "assistant", "content": "half a", "status": "streaming"})
    chat.store()
    chat.change("m/r", o=1)
    chat.blotter.rig.buffer.client.zadd(chat.keys.open, {f"{chat.hex}/m/r": 1})
    with chat.blotter.dies_at(point, "worker", poke=chat.blotter.sweep):
        pass
    chat.blotter.console("sweep")
    reply = chat.blotter.read(chat.id)["messages"][-1]
    assert (reply["status"], reply["statusReason"]) == ("interrupted", "stale")
    return {"m1": "old", "r": "half a"}


def evicting(chat: Chat, point: str) -> dict[str, str]:
    """The worker dies while it takes an idle conversation out of the buffer."""
    chat.change("h", t=1)
    chat.blotter.rig.buffer.client.zadd(chat.keys.idle, {chat.hex: 1})
    with chat.blotter.dies_at(point, "worker", poke=chat.blotter.sweep):
        pass
    return {"m1": "old"}


def sweeping(chat: Chat, point: str) -> dict[str, str]:
    """The worker dies in the middle of a sweep."""
    with chat.blotter.dies_at(point, "worker", poke=chat.blotter.sweep):
        chat.save(NEW)
    return BOTH


def replaying_a_dead_letter(chat: Chat, point: str) -> dict[str, str]:
    """The command dies while it replays."""
    rig = chat.blotter.rig
    rig.reject_poison()
    try:
        chat.save({**NEW, "content": "poison"})
        assert chat.blotter.console.json("drain", "--timeout", "20")["deadLetters"] == 1
    finally:
        rig.accept_poison()
    chat.blotter.command_dies_at(point, "dead", "replay", f"{chat.hex}/m/m2")
    chat.blotter.console("dead", "replay", "--all")
    return {"m1": "old", "m2": "poison"}


def verifying(chat: Chat, point: str) -> dict[str, str]:
    """The command dies while it repairs."""
    chat.blotter.rig.sql(f"DELETE FROM messages WHERE conversation_uid = '{chat.hex}'")
    chat.change("h", n=7, dirty=3)
    chat.blotter.command_dies_at(point, "verify", "--repair")
    assert chat.blotter.console.json("verify", "--repair")["left"] == []
    return {"m1": "old"}


Way = Callable[[Chat, str], dict[str, str]]
WAYS: dict[str, Way] = {
    "save": saving,
    "adopt": flushing_blind_saves,
    "replay": flushing_blind_saves,
    "flush": flushing,
    "settle": settling,
    "evict": evicting,
    "dead": replaying_a_dead_letter,
    "sweep": sweeping,
    "verify": verifying,
}
SPECIAL: dict[str, Way] = {
    "flush.2": flushing_blind_saves,
    "flush.9": flushing_a_buffer_set_back,
    "flush.bury": flushing_what_is_rejected,
}
MATRIX: list[tuple[str, Way]] = [
    (point, SPECIAL.get(point) or WAYS[point.split(".")[0]]) for point in documented()
] + [(point, saving_to_a_cold_one) for point in documented() if point.startswith("adopt.")]
#: What `make test` takes: between the script and its answer, around COMMIT, between two places that must agree.
TAKEN = {
    ("save.2", saving),
    ("save.3", saving),
    ("adopt.3", saving_to_a_cold_one),
    ("adopt.4", flushing_blind_saves),
    ("replay.1", flushing_blind_saves),
    ("replay.2", flushing_blind_saves),
    ("flush.1", flushing),
    ("flush.5", flushing),
    ("flush.6", flushing),
    ("flush.7", flushing),
    ("flush.8", flushing),
    ("flush.9", flushing_a_buffer_set_back),
    ("flush.bury", flushing_what_is_rejected),
    ("settle.2", settling),
    ("evict.2", evicting),
    ("dead.2", replaying_a_dead_letter),
    ("sweep.2", sweeping),
    ("verify.3", verifying),
}
TRIED = [entry for entry in MATRIX if FULL or entry in TAKEN]


@pytest.mark.parametrize(("point", "way"), TRIED, ids=[f"{point}-{way.__name__}" for point, way in TRIED])
def test_killed_at(chat: Chat, point: str, way: Way) -> None:
    expected = way(chat, point)
    chat.blotter.assert_kept(chat.id, expected)
    chat.blotter.assert_alive(chat.id, expected)


def test_whoever_was_killed_has_a_successor(blotter: Programs) -> None:
    blotter.all_are_back()
