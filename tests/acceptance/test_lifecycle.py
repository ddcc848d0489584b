"""A running Blotter is changed under load, by its real programs: restarts, a migration, new keys. No save fails, none is lost.

"Fails" is what a client sees that does as it is told (clients/python): a request that meets a server at its end is sent
again, as on any network.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
from blotter_client import Blotter, RetryPolicy

from models.postgres import migrate
from tests.acceptance.up import Up
from tests.acceptance.webserver import environment, token, web_process
from tests.servers import eventually, private_directory
from web.cli.folder import free_port

WRITERS = 4


class Running:
    """A `blotter up` with its real programs, and the command line beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # A port of our own: two that look for a free one in the same second may find the same.
        self.up = Up(folder, programs=None, arguments=("--port", str(free_port())))
        self.environ = self.up.wait_ready(within_s=90)

    def blotter(self, *arguments: str, exits: int = 0) -> str:
        argv = [str(Path(sys.executable).with_name("blotter")), *arguments, "--data", str(self.folder)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=150)
        assert done.returncode == exits, done.stdout + done.stderr
        return done.stdout + done.stderr

    def token(self, owner: str = "ann") -> str:
        argv = [str(Path(sys.executable).with_name("blotter")), "token", owner, "--data", str(self.folder)]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    def stored(self) -> dict[str, str]:
        with psycopg.connect(self.environ["DATABASE_URL"]) as connection:
            return dict(connection.execute("SELECT id, content FROM messages").fetchall())

    def parts(self) -> dict[str, int]:
        return {name: self.up.pid(name) for name in ("web", "events", "worker", "beat", "assistant")}


class Load:
    """What the writers were told."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self.faults: list[str] = []
        self.stopping = threading.Event()

    def write(self, url: str, token: str, number: int) -> None:
        """Replies that grow, one after the other, some of them awaited until they are stored."""
        with Blotter(url, token, retry=RetryPolicy(patience_s=60)) as blotter:
            chat = blotter.conversation(f"c{number}")
            for count in itertools.count():
                if self.stopping.is_set():
                    return
                identifier, text = f"m{number}-{count}", ""
                try:
                    for piece in ("Wer ", "reitet ", "so ", "spät?"):
                        text += piece
                        chat.save_assistant_message(identifier, content=text, status="streaming")
                    chat.save_assistant_message(
                        identifier, content=text, status="complete", wait=5 if count % 8 == 0 else None
                    )
                    self.acknowledged[identifier] = text
                except Exception as error:  # noqa: BLE001 (reported by the test)
                    self.faults.append(f"{identifier}: {error!r}")


@contextmanager
def load(running: Running) -> Iterator[Load]:
    """Writers at work while the block runs; then everything acknowledged is in Postgres, and nothing failed."""
    made = Load()
    before = len(made.acknowledged)
    token = running.token()
    threads = [
        threading.Thread(target=made.write, args=(running.environ["BASE_URL"], token, number))
        for number in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: len(made.acknowledged) > before + WRITERS, within_s=20)
    try:
        yield made
        at_work = len(made.acknowledged)
        eventually(lambda: len(made.acknowledged) > at_work + WRITERS, within_s=30)
    finally:
        made.stopping.set()
        for thread in threads:
            thread.join(90)
    assert not made.faults, made.faults[:5]
    running.blotter("drain", "--timeout", "60")
    stored = running.stored()
    missing = {name for name, text in made.acknowledged.items() if stored.get(name) != text}
    assert not missing


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with private_directory() as folder:
        made = Running(folder / "data")
        try:
            yield made
        finally:
            made.up.close()


@pytest.mark.timeout(240)
def test_every_program_restarts_under_load_without_a_failed_save(running: Running) -> None:
    before = running.parts()
    with load(running):
        said = running.blotter("restart")
        assert said.count("runs anew") == 5
    after = running.parts()
    assert all(after[name] != before[name] for name in ("worker", "beat", "assistant")), (before, after)
    assert {name: after[name] for name in ("web", "events")} == {
        name: before[name] for name in ("web", "events")
    }, "granian's main process stays, and with it the port"
    eventually(lambda: running.blotter("status", exits=0), within_s=30, every_s=1)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_migration_under_load_then_workers_then_web(running: Running) -> None:
    """The order of an upgrade. Old code meets the new schema, with a column that it does not know."""
    url = running.environ["DATABASE_URL"]

    def migrated(config: Any, *, statements: tuple[str, ...]) -> None:
        for statement in statements:
            config.attributes["connection"].exec_driver_sql(statement)

    forward = (
        "ALTER TABLE messages ADD COLUMN note text",
        "ALTER TABLE conversations ADD COLUMN n int DEFAULT 0",
    )
    back = ("ALTER TABLE messages DROP COLUMN note", "ALTER TABLE conversations DROP COLUMN n")
    with load(running):
        # As `blotter db upgrade` runs a migration: under its lock, with its time limits, tried again.
        migrate._migrate(url, partial(migrated, statements=forward))
        running.blotter("db", "check")
        running.blotter("restart", "worker", "web")
    migrate._migrate(url, partial(migrated, statements=back))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_two_keys_hold_while_they_are_changed(running: Running) -> None:
    keys = running.folder / "secrets" / "jwt"
    old, new = keys.read_text().strip(), "a-new-key-that-is-long-enough-for-hs256"

    def status(token: str) -> int:
        # A new connection each time, so that no process is asked for the others.
        url = f"{running.environ['BASE_URL']}/api/conversations"
        return httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=20).status_code

    before = running.token()
    with load(running):
        keys.write_text(f"{new}\n{old}\n")
        running.blotter("restart", "web", "events")
        after = running.token()
        assert {status(token) for token in (before, after) for _ in range(8)} == {200}
        assert running.blotter("restart", "--json", "web").count('"web"') == 1
    keys.write_text(f"{new}\n")
    running.blotter("restart", "web", "events")
    assert {status(after) for _ in range(8)} == {200}
    assert {status(before) for _ in range(8)} == {401}


def test_what_does_not_run_is_no_success(running: Running, tmp_path: Path) -> None:
    argv = [str(Path(sys.executable).with_name("blotter")), "restart"]
    nowhere = subprocess.run([*argv, "--data", str(tmp_path)], capture_output=True, text=True, check=False)
    assert (nowhere.returncode, "no Blotter is running" in nowhere.stderr) == (2, True)
    assert "is not one of" in running.blotter("restart", "postgres", exits=2)
    assert "did not come back within 0 s" in running.blotter("restart", "web", "--timeout", "0", exits=1)


@pytest.mark.timeout(120)
def test_sigterm_lets_web_answer_what_it_has_and_nothing_acknowledged_is_lost(
    buffer_url: str, database_url: str
) -> None:
    """Requests that wait for Postgres, when nobody flushes: they are held for two seconds, in which web is told to end."""
    answers: list[httpx.Response] = []

    def save(url: str, number: int) -> None:
        answers.append(
            httpx.put(
                f"{url}/api/conversations/c{number}/messages",
                json={"id": "m", "role": "user", "content": "held"},
                headers={"Authorization": f"Bearer {token('ann')}", "Prefer": "wait=2"},
                timeout=30,
            )
        )

    with redis.Redis.from_url(buffer_url) as client:
        with web_process(environment(database_url, buffer_url), threads=8) as url:
            threads = [threading.Thread(target=save, args=(url, number)) for number in range(2)]
            for thread in threads:
                thread.start()
            eventually(lambda: len(list(client.scan_iter("blotter:*:c:*"))) == 2, within_s=20)
            assert not answers, "they are held"
        # Here the process has ended, in order.
        for thread in threads:
            thread.join(10)
        assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(202, "buffered")] * 2
        assert sum(client.zcard(key) for key in client.scan_iter("blotter:*:due")) >= 2
