"""`blotter repartition`: a buffer that is emptied and laid out anew, or refused with what is still in it."""

from __future__ import annotations

from typing import Any

import pytest

from models.buffer.buffer import Buffer
from models.core import commands as c
from models.errors import BufferPolicyError
from models.pipeline import repartition as module
from models.pipeline.repartition import repartition
from models.settings import load
from tests.acceptance.console import Console
from tests.flow.crews import CrewRig
from tests.flow.rig import rig

CHATS = [f"c{n}" for n in range(12)]


def numbers(chat: CrewRig) -> set[str]:
    """What the metas of all partitions say."""
    found = chat.buffer.client.keys("blotter:{p*}:meta")
    return {chat.buffer.client.hget(key, "n").decode() for key in found}


@pytest.mark.parametrize("partitions", [9, 2])
def test_a_buffer_in_use_gets_more_or_fewer_partitions(
    chat: CrewRig, blotter: Console, partitions: int
) -> None:
    for name in CHATS:
        chat.say(name, "m1", f"hello {name}")
    old = chat.pipeline
    said = blotter("repartition", str(partitions)).stderr
    assert f"start everything with BLOTTER_PARTITIONS={partitions}" in said
    settings = chat.pipeline.settings
    with rig(settings.redis_url, settings.database_url, BLOTTER_PARTITIONS=str(partitions)) as made:
        made.buffer.initialise()
        new = CrewRig(made.pipeline, settings.database_url, made.rung)
        for name in CHATS:
            assert new.texts(name) == [("m1", f"hello {name}")]
            new.say(name, "m2", "there")
        # A program that nobody told is refused by name, whatever it wants, hot or new, and changes nothing.
        for name in (*CHATS, "unknown"):
            with pytest.raises(BufferPolicyError, match=f"laid out with {partitions} partitions"):
                old.save("ann", name, [c.put("m", "m3", {"role": "user", "content": "lost?"})])
            with pytest.raises(BufferPolicyError, match=f"laid out with {partitions} partitions"):
                old.read("ann", name)
        assert new.crew.drain(within_s=20).done
        new.assert_clean(*CHATS)
        assert new.crew.verifier.verify().found == ()
    assert len(numbers(chat)) == 1


def test_while_workers_run_it_asks_first(chat: CrewRig, blotter: Console) -> None:
    chat.say("c", "m1", "a")
    chat.crew.partitions.alive("w1", 60_000)
    assert "1 worker still at work" in blotter("repartition", "8", exits=1).stderr
    assert "503" in blotter("repartition", "8", exits=1, answer="n\n").stderr
    assert numbers(chat) == {"4"}
    chat.say("c", "m2", "as before")
    blotter("repartition", "8", "--yes")
    assert numbers(chat) == {"8"}


def test_a_start_with_another_number_says_what_to_do(chat: CrewRig, blotter: Console) -> None:
    chat.say("c", "m1", "a")
    blotter.environ["BLOTTER_PARTITIONS"] = "8"
    other = Buffer.connect(load(blotter.environ))
    with pytest.raises(BufferPolicyError, match="`blotter repartition 8`"):
        other.initialise()
    other.close()


def test_what_is_not_in_postgres_keeps_the_number(chat: CrewRig, blotter: Console) -> None:
    chat.reject_poison()
    chat.say("c", "m1", "poison")
    chat.save("d", c.put("m", "r", {"role": "assistant", "content": "half a"}, status="streaming"))
    result = blotter("repartition", "8", "--timeout", "1", exits=1).stderr
    assert "as it was" in result
    assert "1 item in flight" in result
    assert "1 dead letter (" in result
    report = blotter.json("repartition", "8", "--timeout", "0", exits=1)
    assert (report["partitions"], report["done"], report["dead"]) == (4, False, 1)
    assert numbers(chat) == {"4"}
    # Nothing is in its way: saves go on as before.
    chat.say("c", "m2", "fine")


def test_what_postgres_lost_stays_in_the_buffer(chat: CrewRig, blotter: Console) -> None:
    for name in CHATS:
        chat.say(name, "m1", "a")
        chat.flush(name)
    chat.pipeline.store.erase([chat.place("c5").uid])
    said = blotter("repartition", "8", "--timeout", "1", exits=1).stderr
    assert "lacks what it had committed" in said
    assert "blotter verify --repair" in said
    assert blotter.json("repartition", "8", "--timeout", "0", exits=1)["set_back"] is True
    assert chat.texts("c5") == [("m1", "a")]
    blotter("verify", "--repair")
    blotter("repartition", "8")
    assert numbers(chat) == {"8"}
    assert chat.stored_texts("c5") == {"m1": "a"}


def test_a_save_between_the_last_look_and_the_closing_keeps_the_number(
    chat: CrewRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CHATS:
        chat.say(name, "m1", "a")
    step: Any = module._step
    late = iter(CHATS)

    def saving(crew: Any, keys: Any, what: str, *more: Any) -> bool:
        if what == "close" and keys.number == 1 and (name := next(late, None)) is not None:
            # By then partition 0 is closed.
            while chat.place(name).keys.number == 0:
                name = next(late)
            chat.say(name, "m2", "late")
        done: bool = step(crew, keys, what, *more)
        return done

    monkeypatch.setattr(module, "_step", saving)
    assert not repartition(chat.crew, 9, within_s=0).done
    assert numbers(chat) == {"4"}
    monkeypatch.setattr(module, "_step", step)
    for name in CHATS:
        chat.say(name, "m3", "still")


@pytest.mark.parametrize("at", range(1, 8))
def test_broken_off_anywhere_it_goes_on_where_it_was(
    chat: CrewRig, blotter: Console, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Four closings and four openings; saves are refused in between, and nobody saves by two numbers."""
    for name in CHATS:
        chat.say(name, "m1", "a")
    step: Any = module._step
    calls = iter(range(8))

    class Died(BaseException):
        pass

    def dying(*arguments: Any) -> bool:
        if next(calls) == at:
            raise Died
        done: bool = step(*arguments)
        return done

    monkeypatch.setattr(module, "_step", dying)
    with pytest.raises(Died):
        repartition(chat.crew, 9, within_s=5)
    monkeypatch.setattr(module, "_step", step)
    settings = load({**blotter.environ, "BLOTTER_PARTITIONS": "9"})
    early = Buffer.connect(settings)
    with pytest.raises(BufferPolicyError):
        early.initialise()
    early.close()
    blotter("repartition", "9")
    assert numbers(chat) == {"9"}
    with rig(settings.redis_url, settings.database_url, BLOTTER_PARTITIONS="9") as made:
        made.buffer.initialise()
        assert all(made.texts(name) == [("m1", "a")] for name in CHATS)
