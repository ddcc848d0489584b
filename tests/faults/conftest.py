"""Web and worker as real processes, once for all tests of this folder that ask for them (see processes.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Chat, Programs, programs
from tests.servers import RunningPostgres, start_valkey


@pytest.fixture(scope="package")
def running(
    postgres_server: RunningPostgres, template_database: str, tmp_path_factory: Any
) -> Iterator[Programs]:
    folder: Path = tmp_path_factory.mktemp("programs")
    with (
        start_valkey() as buffer,
        # Not the one of other tests: these workers answer every bell on it.
        start_valkey(role="broker") as broker,
        postgres_server.new_database(template_database) as database_url,
        programs(postgres_server, database_url, buffer, broker, folder) as made,
    ):
        yield made


@pytest.fixture
def blotter(running: Programs) -> Programs:
    """Alive, its wire whole."""
    running.proxy.accept()
    running.ready()
    return running


@pytest.fixture
def chat(blotter: Programs, request: pytest.FixtureRequest) -> Chat:
    """A conversation of this test. Its first message, m1, is in Postgres: "old"."""
    made = Chat(blotter, "".join(char if char.isalnum() else "-" for char in request.node.name))
    made.save({"id": "m1", "role": "user", "content": "old"})
    made.store()
    return made
