"""Live events of `blotter up`: told in DIR/env, kept running, and told when a dead worker's successor has stored things."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.acceptance.up import Up
from tests.flow.events import Fold, Refused, follow, shown
from tests.servers import eventually, private_directory


@pytest.fixture
def folder() -> Iterator[Path]:
    with private_directory() as directory:
        yield directory / "data"


@pytest.mark.timeout(180)
def test_a_page_follows_a_reply_while_events_and_worker_are_killed(folder: Path) -> None:
    running = Up(folder, programs=None, arguments=("--workers", "1"))
    try:
        environ = running.wait_ready(within_s=60)
        blotter = str(Path(sys.executable).with_name("blotter"))
        argv = [blotter, "token", "ann", "--data", str(folder)]
        token = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        headers = {"Authorization": f"Bearer {token}"}
        path = f"{environ['BASE_URL']}/api/conversations/c"

        def save(method: str, tail: str, **body: object) -> None:
            answer = httpx.request(method, f"{path}/{tail}", json=body, headers=headers, timeout=20)
            assert answer.status_code == 202, answer.text

        def kill(name: str) -> None:
            victim = psutil.Process(running.pid(name))
            victim.kill()
            eventually(lambda: running.pid(name) not in (0, victim.pid), within_s=20)

        elsewhere = httpx.get(f"{path}/events", params={"offset": "-1"}, headers=headers)
        assert elsewhere.status_code == 404
        assert environ["EVENTS_URL"] in elsewhere.json()["detail"]

        save("POST", "messages", id="m1", role="user", content="hi")
        save("POST", "messages", id="r", role="assistant", content="", status="streaming")
        fold = Fold()

        async def read_until_stored(status: str) -> None:
            while True:
                try:
                    async with asyncio.timeout(60):
                        await follow(
                            environ["EVENTS_URL"],
                            "c",
                            fold,
                            until=lambda fold, _: (
                                fold.items["message", "r"]["status"] == status
                                and all(item["stored"] for item in fold.items.values())
                            ),
                            headers=headers,
                        )
                    return
                except (OSError, asyncio.IncompleteReadError, ValueError):
                    await asyncio.sleep(0.05)
                except Refused:
                    await asyncio.sleep(0.05)

        asyncio.run(read_until_stored("streaming"))
        kill("events")
        save("PATCH", "messages/r", append={"offset": 0, "text": "it goes on"})
        kill("worker")
        save("PATCH", "messages/r", append={"offset": 10, "text": ", whoever dies"}, status="complete")
        asyncio.run(read_until_stored("complete"))
        assert fold.items["message", "r"]["content"] == "it goes on, whoever dies"
        assert fold.view() == shown(httpx.get(path, headers=headers).json())
    finally:
        running.close()
