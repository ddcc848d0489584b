"""The whole of Blotter as it is started: where it listens, and what its logs tell after a bad day.

Log level DEBUG, every program; saves of all kinds, refusals, faults and deaths. Then no log holds a word of a chat, an
owner's or a conversation's name, a token or a key.
"""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import psycopg
import pytest

from tests.acceptance.up import Up
from tests.acceptance.webserver import SECRET, token
from tests.servers import eventually, private_directory

WORD = "Zaubertrank"


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Up, dict[str, str]]]:
    with private_directory() as folder:
        environ = {"BLOTTER_LOG_LEVEL": "DEBUG", "BLOTTER_JWT_SECRET": SECRET}
        up = Up(folder / "data", None, environ)
        try:
            yield up, up.wait_ready(90)
        finally:
            up.close()


@pytest.mark.timeout(120)
def test_nothing_listens_beyond_loopback(running: tuple[Up, dict[str, str]]) -> None:
    up, _ = running
    listening = set()
    for process in [psutil.Process(up.process.pid), *up.family()]:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                listening.add((connection.laddr.ip, connection.laddr.port))
    assert len(listening) >= 4, f"looked in the wrong place: {listening}"
    assert {ip for ip, _ in listening} <= {"127.0.0.1", "::1"}, listening


@pytest.mark.timeout(180)
def test_no_log_holds_a_word_a_name_or_a_key(running: tuple[Up, dict[str, str]]) -> None:
    up, environ = running
    owner = f"owner-{WORD}"
    bearer = token(owner)
    chat = f"{environ['BASE_URL']}/api/conversations/chat-{WORD}"
    with httpx.Client(headers={"Authorization": f"Bearer {bearer}"}, timeout=20) as http:

        def saved(message: dict[str, object]) -> None:
            assert http.put(f"{chat}/messages?prefer={WORD}", json=message).status_code == 422
            assert http.put(f"{chat}/messages", json=message).status_code < 300

        saved({"id": f"m-{WORD}", "role": "user", "content": WORD, "metadata": {WORD: WORD}})
        with psycopg.connect(environ["DATABASE_URL"], autocommit=True) as connection:
            connection.execute(
                "ALTER TABLE messages ADD CONSTRAINT no_poison CHECK (content IS NULL OR content NOT LIKE 'poison%') NOT VALID"
            )
        saved({"id": "m2", "role": "user", "content": f"poison {WORD}"})
        saved({"id": "m3", "role": "assistant", "status": "streaming", "content": WORD, "revision": 2})
        refusals = [
            http.put(f"{chat}/messages", json={"id": "m3", "content": WORD, "revision": 1}),
            http.put(f"{chat}/messages", json={"id": "m4", WORD: WORD}),
            http.put(f"{chat}/messages", json={"id": "m4", "content": f"{WORD}\0"}),
            http.put(
                f"{chat}/messages",
                content=f'{{"id": "{WORD}'.encode(),
                headers={"Content-Type": "application/json"},
            ),
            http.patch(f"{chat}/messages/m3", json={"append": {"offset": 999, "text": WORD}}),
            http.get(f"{chat}/{WORD}"),
            http.get(chat, headers={"Authorization": f"Bearer {bearer}x"}),
            http.get(chat, headers={"Blotter-Owner": f"other-{WORD}"}),
            http.get(f"{environ['EVENTS_URL']}/api/conversations/chat-{WORD}/events?offset={WORD}"),
        ]
        assert all(400 <= answer.status_code < 500 for answer in refusals), refusals
        assert (
            http.get(f"{environ['EVENTS_URL']}/api/conversations/chat-{WORD}/events?offset=-1").status_code
            == 200
        )
        logs = up.folder / "logs"
        eventually(lambda: "dead" in (logs / "worker.log").read_text(errors="replace"), within_s=30)
        # Deaths in the middle of it all.
        for part in ("worker", "web"):
            pid = up.pid(part)
            psutil.Process(pid).send_signal(signal.SIGKILL)
            eventually(functools.partial(_followed, up, part, pid), within_s=30)
        eventually(lambda: _saves(http, chat), within_s=30)
    passwords = {
        urlsplit(environ[name]).password or WORD
        for name in ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL")
    }
    found = {}
    for log in sorted(Path(up.folder).rglob("*.log*")):
        text = log.read_text(errors="replace")
        for secret in (WORD, SECRET, bearer, bearer.rpartition(".")[2], *passwords):
            if secret in text:
                at = text.index(secret)
                found[log.name, secret[:12]] = text[max(0, at - 300) : at + 100]
    assert not found, found
    assert (logs / "web.log").stat().st_size > 1000
    # One JSON document a line, whoever wrote it: what a machine is to read has one form.
    for program in ("web", "worker", "beat", "events", "assistant"):
        for line in (logs / f"{program}.log").read_text().splitlines():
            assert {"event", "level", "timestamp"} <= json.loads(line).keys(), (program, line)


def _followed(up: Up, part: str, pid: int) -> bool:
    return up.pid(part) not in (0, pid)


def _saves(http: httpx.Client, chat: str) -> bool:
    try:
        return http.put(f"{chat}/messages", json={"id": "m5", "content": WORD}).status_code < 300
    except httpx.TransportError:
        return False
