"""`blotter drain`, `sweep` and `openapi` on real servers."""

from __future__ import annotations

from pathlib import Path

import orjson

from models.core import commands as c
from tests.acceptance.console import Console
from tests.flow.crews import CrewRig


def reply(chat: CrewRig, name: str) -> None:
    chat.save(name, c.put("m", "r", {"role": "assistant", "content": "half a"}, status="streaming"))


def test_everything_is_in_postgres_open_replies_too(chat: CrewRig, blotter: Console) -> None:
    for number in range(9):
        chat.say(f"c{number}", "m1", "a")
    reply(chat, "c0")
    result = blotter("drain", "--timeout", "20")
    assert "nothing is dirty" in result.stderr
    assert result.stdout == ""
    assert len(blotter.said(result)) == 1, "no progress bar where nobody watches"
    assert "draining" not in result.stderr
    assert chat.stored_texts("c0") == {"m1": "a", "r": "half a"}
    chat.assert_clean("c0", "c8")
    assert blotter.json("drain") == {"done": True, "dirty": 0, "blind": 0, "deadLetters": 0}


def test_a_timeout_is_exit_code_1_and_says_what_is_left(chat: CrewRig, blotter: Console) -> None:
    chat.say("c", "m1", "a")
    assert chat.buffer.begin(chat.place("c").keys, "another").state == "taken"
    assert blotter.json("drain", "--timeout", "0.2", exits=1)["dirty"] == 2
    assert (
        "2 rows not in Postgres yet; `blotter status`" in blotter("drain", "--timeout", "0", exits=1).stderr
    )


def test_dead_letters_are_told_and_not_waited_for(chat: CrewRig, blotter: Console) -> None:
    chat.reject_poison()
    chat.say("c", "m1", "poison")
    chat.say("c", "m2", "a")
    result = blotter("drain", "--timeout", "20")
    assert "1 dead letter left in the buffer: `blotter dead list` says why" in result.stderr
    assert chat.stored_texts("c") == {"m2": "a"}


def test_a_sweep_now(chat: CrewRig, blotter: Console) -> None:
    chat.say("c", "m1", "a")
    chat.buffer.client.delete(chat.place("c").keys.bell)
    assert blotter.json("sweep")["rung"] == 1
    assert "rang for 0 partitions" in blotter("sweep").stderr


def test_the_document_is_the_one_that_is_served(blotter: Console, tmp_path: Path) -> None:
    from web.openapi import document_bytes

    assert orjson.loads(blotter("openapi").stdout) == orjson.loads(document_bytes(None))
    (tmp_path / "env").write_text("BASE_URL=http://127.0.0.1:8400\n")
    named = orjson.loads(blotter("openapi", "--data", str(tmp_path)).stdout)
    assert named["servers"] == [{"url": "http://127.0.0.1:8400"}]


def test_the_buffer_knows_its_number_of_partitions(chat: CrewRig, blotter: Console) -> None:
    """An operator's shell rarely has every setting."""
    chat.say("c", "m1", "a")
    blotter.environ["BLOTTER_PARTITIONS"] = "16"
    assert blotter.json("drain", "--timeout", "20")["done"]
    chat.assert_clean("c")
