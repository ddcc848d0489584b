"""Fixtures of the store's tests: engines, stores and a plain connection on a private, migrated database."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from models.postgres.engine import make_engine
from models.postgres.store import Store
from models.settings import Settings, load
from tests.servers import RunningPostgres


@pytest.fixture(scope="module")
def module_database_url(postgres_server: RunningPostgres, template_database: str) -> Iterator[str]:
    """A migrated database for all tests of a module that keep out of each other's way; cloning one takes its time."""
    with postgres_server.new_database(template_database) as url:
        yield url


@pytest.fixture
def settings(database_url: str) -> Settings:
    return load({"DATABASE_URL": database_url})


@pytest.fixture
def new_engine(database_url: str, settings: Settings) -> Iterator[Callable[[], Engine]]:
    """Makes engines for a worker on the test's database; they are disposed of at the end."""
    with ExitStack() as stack:

        def make() -> Engine:
            engine = make_engine(database_url, role="worker", settings=settings)
            stack.callback(engine.dispose)
            return engine

        yield make


@pytest.fixture
def engine(new_engine: Callable[[], Engine]) -> Engine:
    return new_engine()


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)


@pytest.fixture
def sql(database_url: str) -> Iterator[psycopg.Connection]:
    """A bystander's connection, autocommit, no timeouts."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def statements(engine: Engine) -> list[str]:
    """The statements sent through `engine`, as they are sent."""
    sent: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(connection, cursor, statement, parameters, context, executemany) -> None:
        sent.append(statement)

    return sent


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def swallowing_port() -> Iterator[int]:
    """A port that swallows SYN packets: it listens with a backlog of nothing, which is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(16):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections, as a frozen server's does, and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield int(listener.getsockname()[1])


@pytest.fixture
def settings_for(database_url: str) -> Callable[..., Settings]:
    """Settings of the test's database, with variables of the environment given as keywords."""
    return lambda **environ: load({"DATABASE_URL": database_url, **environ})
