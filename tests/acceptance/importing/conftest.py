"""A web for each module, and the conversations to import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.pipeline.crew import Crew
from models.settings import load
from tests.acceptance import chats
from tests.acceptance.importing.stage import Stage
from tests.acceptance.webserver import environment, web_process
from tests.servers import RunningPostgres, start_valkey
from web.cli.importing import files
from web.cli.importing.files import Chat


@pytest.fixture(scope="module")
def stage(postgres_server: RunningPostgres, template_database: str) -> Iterator[Stage]:
    with start_valkey() as buffer, postgres_server.new_database(template_database) as database_url:
        quick = {
            "BLOTTER_STREAM_FLUSH_SECONDS": "0.05",
            "BLOTTER_AUTOSAVE_SECONDS": "0.2",
            "BLOTTER_IDLE_SECONDS": "0.01",
            "BLOTTER_MIN_IDLE_SECONDS": "0",
            # A call that nobody answered keeps its conversation in flight, and so hot, for this long.
            "BLOTTER_STALE_TOOL_SECONDS": "5",
        }
        environ = environment(database_url, buffer.url, **quick)
        crew = Crew.connect(load(environ), role="worker", ring=lambda partition: None)
        crew.buffer.initialise()
        try:
            with web_process(environ) as url:
                yield Stage(url, environ, crew)
        finally:
            crew.close()


@pytest.fixture(scope="module")
def chat_file(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Real conversations, or a stand-in; which of them is said on the terminal."""
    path = chats.real_chats()
    said = f"{chats.COUNT} conversations of {chats.REAL}"
    if path is None:
        path = chats.write_stand_in(tmp_path_factory.mktemp("chats") / "made-up.json.gz")
        said = f"a stand-in: {chats.COUNT} made-up conversations (BLOTTER_TEST_DATA names no folder with {chats.REAL})"
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\nthe tests of `blotter import` import {said}")
    return path


@pytest.fixture(scope="module")
def imported(chat_file: Path) -> list[Chat]:
    return list(files.read([chat_file]))[: chats.COUNT]
