"""`blotter drain`, `sweep` and `openapi` on real servers; and what every command says when nobody answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from models.core import commands as c
from tests.acceptance.console import Console
from tests.flow.crews import CrewRig, crew_rig
from web.cli import COMMANDS


@pytest.fixture
def chat(buffer_url: str, database_url: str) -> Iterator[CrewRig]:
    with crew_rig(buffer_url, database_url) as made:
        yield made


@pytest.fixture
def blotter(chat: CrewRig) -> Console:
    return Console(chat)


def reply(chat: CrewRig, name: str) -> None:
    chat.save(name, c.put("m", "r", {"role": "assistant", "content": "half a"}, status="streaming"))


def test_everything_is_in_postgres_open_replies_too(chat: CrewRig, blotter: Console) -> None:
    for number in range(9):
        chat.say(f"c{number}", "m1", "a")
    reply(chat, "c0")
    result = blotter("drain", "--timeout", "20")
    assert "nothing is dirty" in result.stderr
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, "no progress bar where nobody watches"
    assert "draining" not in result.stderr
    assert chat.stored_texts("c0") == {"m1": "a", "r": "half a"}
    chat.assert_clean("c0", "c8")
    assert blotter.json("drain") == {"done": True, "dirty": 0, "blind": 0, "deadLetters": 0}


def test_a_timeout_is_exit_code_1_and_says_what_is_left(chat: CrewRig, blotter: Console) -> None:
    chat.say("c", "m1", "a")
    assert chat.buffer.begin(chat.place("c").keys, "another").state == "taken"
    assert blotter.json("drain", "--timeout", "0.2", exits=1)["dirty"] == 2
    assert (
        "2 rows are not in Postgres yet; `blotter status`"
        in blotter("drain", "--timeout", "0", exits=1).stderr
    )


def test_dead_letters_are_told_and_not_waited_for(chat: CrewRig, blotter: Console) -> None:
    chat.reject_poison()
    chat.say("c", "m1", "poison")
    chat.say("c", "m2", "a")
    result = blotter("drain", "--timeout", "20")
    assert "1 dead letters stay in the buffer: `blotter dead list` says why" in result.stderr
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


ASKING = [
    ("drain",),
    ("sweep",),
    ("verify",),
    ("dead", "list"),
    ("dead", "replay", "--all"),
    ("dead", "show", f"{0:032x}/m/m1"),
    ("export", "--owner", "ann"),
    ("erase", "ann", "--yes"),
    ("status",),
]


@pytest.mark.parametrize("arguments", ASKING)
def test_a_buffer_that_is_away_is_exit_code_2_and_one_sentence(
    chat: CrewRig, blotter: Console, arguments: tuple[str, ...]
) -> None:
    blotter.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"
    result = blotter(*arguments, exits=2)
    assert "the buffer did not answer" in result.stdout + result.stderr
    assert result.stderr.count("\n") <= 1


@pytest.mark.parametrize("arguments", ASKING)
def test_a_folder_without_a_running_blotter_is_exit_code_2(
    blotter: Console, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = blotter(*arguments, "--data", str(tmp_path), exits=2)
    assert f"no Blotter is running in {tmp_path}" in result.stdout + result.stderr


@pytest.mark.parametrize("arguments", ASKING)
def test_the_folder_of_a_running_one_is_enough(
    chat: CrewRig, blotter: Console, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    names = ("REDIS_URL", "DATABASE_URL", "CELERY_BROKER_URL")
    (tmp_path / "env").write_text("".join(f"{name}={blotter.environ.pop(name)}\n" for name in names))
    exits = 1 if arguments[0] == "status" or arguments[1:2] == ("show",) else 0
    blotter(*arguments, "--data", str(tmp_path), exits=exits)


@pytest.mark.parametrize(
    "name",
    [
        ("drain",),
        ("status",),
        ("verify",),
        ("sweep",),
        ("openapi",),
        ("import",),
        ("export",),
        ("backfill",),
        ("erase",),
        ("token",),
        ("db", "upgrade"),
        ("db", "check"),
        *(("dead", action) for action in ("list", "show", "replay", "purge")),
    ],
)
def test_every_command_says_what_it_does_with_an_example(blotter: Console, name: tuple[str, ...]) -> None:
    help_text = blotter(*name, "--help").output
    assert "Example: blotter" in help_text
    assert "Exit code" in help_text
    assert "--data DIR" in help_text
    assert set(name[:1]) <= set(COMMANDS)
