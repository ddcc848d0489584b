"""The HTTP API for flow tests: one a module, on servers of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.connection import AbstractConnection

from models.core import strands
from models.postgres.connecting import WatchedConnection
from models.settings import load
from tests.flow.api import SECRET, Api, fresh
from tests.flow.rig import rig
from tests.servers import RunningPostgres, start_valkey
from web.app import create_app


@pytest.fixture(autouse=True)
def nothing_blocks_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks Postgres, or a server by a connection of the pool's, is no strand: it would stop all others."""

    def guarded(owner: type, name: str) -> None:
        whole = getattr(owner, name)

        def checked(*args: Any, **kwargs: Any) -> Any:
            assert strands.current() is None, f"{owner.__name__}.{name} on the event loop"
            return whole(*args, **kwargs)

        monkeypatch.setattr(owner, name, checked)

    guarded(WatchedConnection, "wait")
    guarded(redis.BlockingConnectionPool, "get_connection")
    guarded(AbstractConnection, "connect")


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
