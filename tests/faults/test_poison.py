"""Poison: rows that Postgres refuses, rows that kill the worker, several of both in one batch, in real processes.

What must hold: the partition never waits, and the others of the batch commit; what is set aside stays readable and in the
buffer; it is stored once its cause is mended and it is replayed, or when a newer save overtakes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from models.core.batches import ALONE_TRIES, GROUP_TRIES
from tests.faults.processes import Chat
from tests.flow.crews import same_partition
from tests.servers import eventually


def message(name: str, content: str) -> dict[str, Any]:
    return {"id": name, "role": "user", "content": content}


@pytest.fixture(autouse=True)
def rejecting(chat: Chat) -> Iterator[None]:
    """Postgres refuses messages that begin with "poison", and "deadly" ones kill whoever writes them."""
    chat.blotter.rig.reject_poison()
    chat.blotter.deadly.touch()
    yield
    mend(chat)
    chat.blotter.console("dead", "replay", "--all")
    chat.blotter.console("drain", "--timeout", "20")
    chat.blotter.all_are_back()


def mend(chat: Chat) -> None:
    chat.blotter.deadly.unlink(missing_ok=True)
    chat.blotter.rig.sql("ALTER TABLE messages DROP CONSTRAINT IF EXISTS no_poison")


def letters(chat: Chat) -> dict[str, dict[str, Any]]:
    """The conversation's dead letters by the id of their message."""
    listed = chat.blotter.console.json("dead", "list", "--owner", "ann", "--conversation", chat.id)
    return {letter["id"]: letter for letter in listed["deadLetters"]}


def await_letters(chat: Chat, *names: str, poke: bool = False) -> None:
    def there() -> None:
        if poke:
            # What ten seconds do after each death.
            chat.blotter.rig.expire_lease(chat.id)
            chat.ring()
        eventually(lambda: set(letters(chat)) == set(names), within_s=0.5)

    eventually(there, within_s=40)


def test_rejected_rows_are_set_aside_while_the_rest_of_the_batch_and_the_partition_go_on(chat: Chat) -> None:
    rig = chat.blotter.rig
    (other,) = islice(same_partition(rig, like=chat.id), 1)
    with chat.unflushed():
        for number in range(12):
            text = f"poison {number}" if number in (3, 4, 9) else f"text {number}"
            chat.blotter.save((chat.id, other)[number % 2], message(f"n{number}", text))
    chat.ring()
    expected = {"m1": "old", **{f"n{n}": f"text {n}" for n in range(0, 12, 2) if n != 4}}
    eventually(lambda: rig.stored_texts(chat.id) == expected)
    eventually(lambda: rig.stored_texts(other) == {f"n{n}": f"text {n}" for n in (1, 5, 7, 11)})
    await_letters(chat, "n4")
    eventually(lambda: set(rig.dead(other)) == {"m/n3", "m/n4", "m/n9"})

    chat.blotter.save(other, message("more", "the partition does not wait"))
    eventually(lambda: "more" in rig.stored_texts(other), within_s=3)
    assert chat.blotter.console.json("verify")["faults"] == []
    assert chat.blotter.console.json("drain", "--timeout", "10")["deadLetters"] == 3
    assert ("n4", "poison 4") in [(m["id"], m["content"]) for m in chat.blotter.read(chat.id)["messages"]]

    mend(chat)
    assert len(chat.blotter.console.json("dead", "replay", "--all")["done"]) == 3
    chat.blotter.assert_kept(chat.id, {"m1": "old", **{f"n{n}": rig_text(n) for n in range(0, 12, 2)}})
    stored = {f"n{n}": rig_text(n) for n in range(1, 12, 2)}
    chat.blotter.assert_kept(other, {**stored, "more": "the partition does not wait"})


def rig_text(number: int) -> str:
    return f"poison {number}" if number in (3, 4, 9) else f"text {number}"


def test_a_dead_letter_is_readable_and_never_evicted(chat: Chat) -> None:
    chat.save(message("m2", "poison"))
    await_letters(chat, "m2")
    chat.change("h", t=1)
    chat.blotter.rig.buffer.client.zadd(chat.keys.idle, {chat.hex: 1})
    chat.blotter.console("sweep")
    assert chat.blotter.rig.buffer.client.zscore(chat.keys.idle, chat.hex) > 1, "it was looked at, and kept"
    assert [m["content"] for m in chat.blotter.read(chat.id)["messages"]] == ["old", "poison"]
    ref = letters(chat)["m2"]["ref"]
    assert chat.blotter.console.json("dead", "show", ref, "--content")["record"]["content"] == "poison"
    assert "blotter_dead_letters 1.0" in chat.blotter.http.get(f"{chat.blotter.url}/metrics").text


def test_a_newer_save_overtakes_a_dead_letter(chat: Chat) -> None:
    chat.save(message("m2", "poison"))
    await_letters(chat, "m2")
    chat.save(message("m2", "harmless"))
    eventually(lambda: chat.blotter.rig.stored_texts(chat.id) == {"m1": "old", "m2": "harmless"})
    assert letters(chat) == {}
    chat.blotter.assert_kept(chat.id, {"m1": "old", "m2": "harmless"})


def test_a_replay_too_early_sets_it_aside_again(chat: Chat) -> None:
    chat.save(message("m2", "poison"))
    await_letters(chat, "m2")
    first = letters(chat)["m2"]
    chat.blotter.console("dead", "replay", first["ref"])
    eventually(lambda: letters(chat).get("m2", first)["at"] != first["at"], within_s=20)
    mend(chat)
    chat.blotter.console("dead", "replay", first["ref"])
    eventually(lambda: chat.blotter.rig.stored_texts(chat.id) == {"m1": "old", "m2": "poison"})
    chat.blotter.assert_kept(chat.id, {"m1": "old", "m2": "poison"})


@pytest.mark.timeout(90)
def test_rows_that_kill_the_worker_are_found_among_healthy_and_rejected_ones(chat: Chat) -> None:
    rig, before = chat.blotter.rig, deaths(chat)
    texts = {"n0": "text", "n1": "deadly", "n2": "poison", "n3": "text", "n4": "deadly too", "n5": "text"}
    with chat.unflushed():
        for name, text in texts.items():
            chat.save(message(name, text))
    await_letters(chat, "n1", "n2", "n4", poke=True)
    healthy = {"m1": "old", "n0": "text", "n3": "text", "n5": "text"}
    eventually(lambda: rig.stored_texts(chat.id) == healthy)
    found = letters(chat)
    assert found["n1"]["reason"] == found["n4"]["reason"]
    assert found["n1"]["reason"].startswith("killed the worker")
    assert f"{ALONE_TRIES} times alone" in found["n1"]["reason"]
    assert found["n2"]["sqlstate"] == "23514"
    # Told by Celery's parent, which looks every five seconds.
    eventually(lambda: deaths(chat) - before >= GROUP_TRIES + 2 * ALONE_TRIES)

    chat.save(message("more", "the partition does not wait"))
    eventually(lambda: "more" in rig.stored_texts(chat.id), within_s=10)
    mend(chat)
    assert len(chat.blotter.console.json("dead", "replay", "--all")["done"]) == 3
    chat.blotter.assert_kept(chat.id, {"m1": "old", **texts, "more": "the partition does not wait"})
    assert rig.trials(chat.id) == {}


def deaths(chat: Chat) -> int:
    return chat.blotter.log("worker").count("exited with 'signal 9 (SIGKILL)'")
