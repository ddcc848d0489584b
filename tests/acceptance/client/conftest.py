"""A web for each module, a client and a conversation for each test."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from blotter_client import (
    Blotter,
    Conversation,
)

from tests.acceptance.client.stage import STALE_S, Stage
from tests.acceptance.webserver import environment, web_process
from tests.servers import RunningPostgres, start_valkey


@pytest.fixture(scope="module")
def stage(postgres_server: RunningPostgres, template_database: str) -> Iterator[Stage]:
    with start_valkey() as buffer, postgres_server.new_database(template_database) as database_url:
        environ = environment(database_url, buffer.url, BLOTTER_STALE_SECONDS=str(STALE_S))
        with web_process(environ) as url:
            yield Stage(url, buffer, environ)


@pytest.fixture
def blotter(stage: Stage) -> Iterator[Blotter]:
    with stage.client() as made:
        yield made


@pytest.fixture
def chat(blotter: Blotter) -> Conversation:
    return blotter.conversation(f"c-{uuid4()}")
