"""`blotter status` on real servers: exit code, words and figures as things go wrong and well again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.buffer import keys as names
from tests.acceptance.console import Console
from tests.flow.crews import CrewRig, crew_rig
from tests.servers import eventually


@pytest.fixture
def chat(buffer_url: str, database_url: str) -> Iterator[CrewRig]:
    with crew_rig(buffer_url, database_url) as made:
        yield made


@pytest.fixture
def blotter(chat: CrewRig) -> Console:
    return Console(chat)


def come_alive(chat: CrewRig) -> None:
    """As if worker and beat ran."""
    chat.crew.partitions.alive("host:1", 60_000)
    chat.crew.partitions.claim(names.BEAT, 60_000, over=True)


def test_green_then_amber_then_red(chat: CrewRig, blotter: Console) -> None:
    result = blotter("status", exits=1)
    assert "no worker is alive" in result.stdout
    assert "→ start workers" in result.stdout
    come_alive(chat)
    assert blotter("status").stdout.startswith("green  all is well\n")
    assert blotter.json("status")["level"] == "green"

    chat.reject_poison()
    chat.say("c", "m1", "poison")
    chat.flush_once()
    found = blotter.json("status", exits=1)
    assert (found["level"], found["figures"]["deadLetters"]) == ("amber", 1)
    assert "blotter dead list" in found["reasons"][0]["step"]

    chat.buffer.client.config_set("appendonly", "no")
    try:
        found = blotter.json("status", exits=2)
        assert "appendonly is off" in found["reasons"][0]["reason"]
    finally:
        chat.buffer.client.config_set("appendonly", "yes")
        eventually(lambda: chat.buffer.client.info("persistence")["aof_rewrite_in_progress"] == 0)


def test_postgres_away_is_amber_and_the_buffer_away_is_red(chat: CrewRig, blotter: Console) -> None:
    come_alive(chat)
    blotter.environ["DATABASE_URL"] = "postgresql://127.0.0.1:1/none"
    assert "Postgres is not usable" in blotter.json("status", exits=1)["reasons"][0]["reason"]
    blotter.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"
    found = blotter.json("status", exits=2)
    assert (found["level"], found["figures"]) == ("red", None)
    assert "the buffer did not answer" in found["reasons"][0]["reason"]


def test_a_dead_address_is_said_once_with_the_step_that_helps(blotter: Console, tmp_path: Path) -> None:
    blotter.environ["REDIS_URL"] = "redis://:PASSWORD@127.0.0.1:1/0"
    said = blotter("status", exits=2).stdout
    assert said.count("red ") == 1
    assert said.splitlines()[1:] == [
        "  → start the buffer, or correct REDIS_URL in the environment (127.0.0.1:1)"
    ]
    (tmp_path / "env").write_text("REDIS_URL=redis://127.0.0.1:1/0\n")
    said = blotter("status", "--data", str(tmp_path), exits=2).stdout
    assert f"`blotter up --data {tmp_path}` starts all of it again" in said


def test_watching_goes_on_until_interrupted(chat: CrewRig, blotter: Console) -> None:
    come_alive(chat)
    assert blotter("status", "--watch", "--json", exits=2).stdout == ""
    argv = [str(Path(sys.executable).with_name("blotter")), "status", "--watch", "--every", "0.1"]
    environ = {**os.environ, **blotter.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        seen = 0
        for line in watching.stdout:
            seen += line.startswith("green")
            if seen == 3:
                break
        watching.send_signal(signal.SIGINT)
        rest, said = watching.communicate(timeout=20)
    assert watching.returncode == 0, said
    assert "Traceback" not in rest + said
