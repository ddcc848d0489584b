"""The HTTP API for flow tests: one a module, on servers of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.settings import load
from tests.flow.api import SECRET, Api, fresh
from tests.flow.rig import rig
from tests.servers import RunningPostgres, start_valkey
from web.app import create_app


@pytest.fixture(scope="module")
def api(postgres_server: RunningPostgres, template_database: str) -> Iterator[Api]:
    """One API a module, on a database and a buffer of its own; tests keep apart by conversation."""
    settings = load({"BLOTTER_JWT_SECRET": SECRET, "BLOTTER_MAX_SYNC_ITEMS": "60"})
    with (
        start_valkey() as valkey,
        postgres_server.new_database(template_database) as database_url,
        rig(valkey.url, database_url) as made,
    ):
        yield Api(made, create_app(settings, made.pipeline))


@pytest.fixture
def chat(api: Api) -> str:
    """A conversation with a user message m1 and an open reply m2."""
    conversation = fresh()
    first = api("POST", f"{conversation}/messages", {"id": "m1", "role": "user", "content": "hi"})
    second = {"id": "m2", "role": "assistant", "status": "streaming", "content": "", "revision": 1}
    assert (first.status, api("POST", f"{conversation}/messages", second).status) == (202, 202)
    return conversation
