"""`blotter status` on real servers: exit code, words and figures as things go wrong and well again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from models.buffer import keys as names
from tests.acceptance.console import Console
from tests.flow.crews import CrewRig
from tests.servers import eventually
from web.cli import main


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


def test_a_number_of_partitions_that_saves_are_refused_for_is_red(chat: CrewRig, blotter: Console) -> None:
    come_alive(chat)
    blotter.environ["BLOTTER_PARTITIONS"] = "8"
    found = blotter.json("status", exits=2)
    (told,) = found["reasons"]
    assert told["reason"].endswith("laid out with 4 partitions, BLOTTER_PARTITIONS says 8: saves are refused")
    assert "`blotter repartition 8`" in told["step"]
    # What others were given cannot be known from an environment that does not say.
    del blotter.environ["BLOTTER_PARTITIONS"]
    assert blotter.json("status")["level"] == "green"
    blotter.environ["BLOTTER_PARTITIONS"] = "4"
    chat.buffer.client.hset(chat.buffer.partitions[0].meta, mapping={"n": "0", "was": "4"})
    (told,) = blotter.json("status", exits=2)["reasons"]
    assert "if that broke off, run it again" in told["step"]


def test_postgres_away_is_amber_and_the_buffer_away_is_red(chat: CrewRig, blotter: Console) -> None:
    come_alive(chat)
    blotter.environ["DATABASE_URL"] = "postgresql://127.0.0.1:1/none"
    assert "Postgres is not usable" in blotter.json("status", exits=1)["reasons"][0]["reason"]
    blotter.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"
    found = blotter.json("status", exits=2)
    assert (found["level"], found["figures"]) == ("red", None)
    assert "the buffer did not answer" in found["reasons"][0]["reason"]


@pytest.mark.parametrize(
    ("url", "reason", "step"),
    [
        (
            "redis://:PASSWORD@127.0.0.1:1/0",
            "the buffer did not answer",
            "start the buffer, or correct REDIS_URL in the environment (127.0.0.1:1/0)",
        ),
        ("localhost/PASSWORD", "REDIS_URL: must be an address that begins with redis://", "correct REDIS_URL in the environment"),
        ("", "the environment names DATABASE_URL and CELERY_BROKER_URL, but not REDIS_URL", "set that too, or name"),
    ],
)  # fmt: skip
def test_an_address_that_does_not_serve_is_said_once_with_the_step_that_helps(
    url: str, reason: str, step: str
) -> None:
    environ = {"DATABASE_URL": "postgresql://h/d", "CELERY_BROKER_URL": "redis://h", "REDIS_URL": url}
    result = CliRunner().invoke(main, ["status"], env=environ)
    assert result.exit_code == 2, result.output
    (said, next_step) = result.stdout.splitlines()
    assert said.startswith(f"red  {reason}")
    assert next_step.startswith(f"  → {step}")
    assert "PASSWORD" not in result.output


def test_a_password_that_the_buffer_refuses_is_told_from_a_buffer_that_is_away(blotter: Console) -> None:
    blotter.environ["REDIS_URL"] = blotter.environ["REDIS_URL"].replace(
        "redis://", "redis://nobody:SECRET@", 1
    )
    said = blotter("status", exits=2).stdout
    assert (
        "the buffer refuses this user or password\n  → correct REDIS_URL in the environment (127.0.0.1:"
        in said
    )
    assert "SECRET" not in said


def test_the_step_for_a_folder_is_to_start_what_ran_there(tmp_path: Path) -> None:
    names = (
        "DATABASE_URL=postgresql://h/d",
        "REDIS_URL=redis://127.0.0.1:1/0",
        "CELERY_BROKER_URL=redis://h",
    )
    (tmp_path / "env").write_text("\n".join(names))
    said = CliRunner().invoke(main, ["status", "--data", str(tmp_path)]).stdout
    assert f"start all of it: `blotter up --data {tmp_path}` ({tmp_path}/env names 127.0.0.1:1/0)" in said


def test_watching_goes_on_until_interrupted(chat: CrewRig, blotter: Console) -> None:
    come_alive(chat)
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


def test_watching_with_json_is_a_document_a_line_and_the_exit_code_is_of_the_last(
    chat: CrewRig, blotter: Console
) -> None:
    come_alive(chat)
    argv = [str(Path(sys.executable).with_name("blotter")), "status", "--watch", "--json", "--every", "0.1"]
    environ = {**os.environ, **blotter.environ}
    with subprocess.Popen(
        argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert (first["level"], first["figures"]["dirtyItems"]) == ("green", 0)
        chat.reject_poison()
        chat.say("c", "m1", "poison")
        chat.flush_once()
        at = first["at"]
        for line in watching.stdout:
            found = json.loads(line)
            assert found["at"] > at
            at = found["at"]
            if found["level"] == "amber":
                break
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=20)
    assert watching.returncode == 1, said
