"""`blotter up` with its real programs: a save survives the death of whatever handles it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from tests.acceptance.up import Up, alive
from tests.servers import eventually, private_directory

#: Of processors, by all programs until all are ready: what a start takes on a machine that others use tells nothing.
READY_WITHIN_CPU_S = 15.0
#: Who is killed. The others' turn is the nightly tier's; worker and events die in test_events_up.py, and each in test_up.py.
FULL = os.environ.get("BLOTTER_TEST_TIER") == "full"
VICTIMS = ("worker", "beat", "broker", "buffer", "web") if FULL else ("broker", "buffer", "web")


@pytest.fixture
def folder() -> Iterator[Path]:
    with private_directory() as directory:
        yield directory / "data"


class Chat:
    """An owner's view of a running Blotter."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        blotter = str(Path(sys.executable).with_name("blotter"))
        argv = [blotter, "token", "ann", "--data", str(folder)]
        token = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        self.environ = environ
        self.headers = {"Authorization": f"Bearer {token}"}
        self.path = f"{environ['BASE_URL']}/api/conversations/c1"

    def save(self, identifier: str, content: str) -> dict[str, object]:
        body = {"id": identifier, "role": "user", "content": content}
        answer = httpx.post(f"{self.path}/messages", json=body, headers=self.headers)
        assert answer.status_code == 202, answer.text
        found: dict[str, object] = answer.json()
        return found

    def read(self) -> dict[str, str]:
        answer = httpx.get(self.path, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return {item["id"]: item["content"] for item in answer.json()["messages"]}

    def stored(self) -> dict[str, str]:
        with psycopg.connect(self.environ["DATABASE_URL"]) as connection:
            return dict(connection.execute("SELECT id, content FROM messages").fetchall())


def start(folder: Path) -> tuple[Up, Chat]:
    running = Up(folder, programs=None)
    environ = running.wait_ready(within_s=60)
    return running, Chat(folder, environ)


@pytest.mark.timeout(180)
def test_a_save_is_kept_whoever_dies_and_stored_when_they_are_back(folder: Path) -> None:
    running, chat = start(folder)
    try:
        assert running.cpu_s() < READY_WITHIN_CPU_S
        assert httpx.get(f"{chat.environ['BASE_URL']}/healthz").status_code == 200
        assert httpx.get(f"{chat.environ['BASE_URL']}/api/conversations").status_code == 401, (
            "without a token"
        )
        chat.save("m1", "Is anybody there? 👋")
        assert chat.read() == {"m1": "Is anybody there? 👋"}
        eventually(lambda: chat.stored() == chat.read(), within_s=5)

        for name in VICTIMS:
            victim = psutil.Process(running.pid(name))
            victim.kill()
            eventually(lambda name=name, victim=victim: running.pid(name) not in (0, victim.pid))  # type: ignore[misc]
            eventually(lambda name=name: accepted(chat, name), within_s=20)  # type: ignore[misc]
            assert chat.read()["m1"] == "Is anybody there? 👋"
            eventually(lambda: chat.stored() == chat.read(), within_s=30)

        family = running.family()
        chat.save("last", "before the power goes")
        running.end(signal.SIGKILL)
        eventually(lambda: not alive(family), within_s=20)
        running.close()
        running, chat = start(folder)
        assert chat.read()["last"] == "before the power goes"
        eventually(lambda: chat.stored() == chat.read(), within_s=20)

        family = running.family()
        chat.save("bye", "before an orderly end")
        assert running.end() == 0
        assert not alive(family)
        if not FULL:
            return
        running.close()
        running, chat = start(folder)
        assert set(chat.read()) == {"m1", *VICTIMS, "last", "bye"}
        eventually(lambda: chat.stored() == chat.read(), within_s=20)
    finally:
        running.close()


def accepted(chat: Chat, name: str) -> bool:
    """Whether a save named after the victim was accepted; refusals and broken connections are worth another try."""
    try:
        chat.save(name, f"while {name} was away")
    except (httpx.TransportError, AssertionError):
        return False
    return True
