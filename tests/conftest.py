"""Fixtures that give each test real servers of its own: a database cloned from a migrated template, an empty buffer.

Servers start at first use, once a session, in under two seconds, and die with this process. A test that kills, stops
or freezes a server takes one for itself: `with start_valkey() as valkey` (tests/servers.py).

    database_url    postgresql:// of a migrated database, this test's alone
    empty_database_url  one before the first migration
    buffer_url      redis:// of an empty Valkey with the buffer's real settings
    redis_client    a client of that one, bytes in and out, no retries
    broker_url      redis:// of an empty second Valkey, for Celery
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import hypothesis
import pytest

from tests.servers import Running, RunningPostgres, start_postgres, start_valkey

# The one on which a warning fails the suite. Others only have to pass: new Pythons deprecate what old ones need.
PINNED_PYTHON = (3, 11)

# What a developer's shell may hold and a test must not see. The tests' own names stay.
FOREIGN = (
    "BLOTTER_",
    "CELERY_",
    "FLASK_",
    "GRANIAN_",
    "OPENAI_",
    "PG",
    "REDIS_",
    "DATABASE_URL",
    "WEB_",
    "HOST",
    "PORT",
)
OURS = ("BLOTTER_TEST_",)

for name in list(os.environ):
    if name.startswith(FOREIGN) and not name.startswith(OURS):
        del os.environ[name]


# Shared machines pause: how long an example takes tells nothing about the code.
hypothesis.settings.register_profile(
    "blotter", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("blotter")


def pytest_configure(config: pytest.Config) -> None:
    if sys.version_info[:2] == PINNED_PYTHON:
        # First, so that the exceptions in pyproject.toml, which come later, still count.
        config.getini("filterwarnings").insert(0, "error")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: two a processor, for a test mostly waits; with more, what is told to happen in time does not."""
    return min(12, 2 * (os.cpu_count() or 1))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[RunningPostgres]:
    """Careless of power cuts, for speed; a killed server still keeps what it committed."""
    with start_postgres(fsync="off", full_page_writes="off", shared_buffers="64MB") as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres_server: RunningPostgres) -> str:
    """The name of the migrated database that tests clone. Nobody stays connected to it."""
    from models.postgres.migrate import upgrade

    postgres_server.server.create_database("template_blotter")
    url = postgres_server.server.url_of("template_blotter")
    upgrade(url)
    if partitions := os.environ.get("BLOTTER_TEST_PARTITIONED"):
        from tests.postgres.partitioned import partition

        partition(url, int(partitions))
    return "template_blotter"


@pytest.fixture
def database_url(postgres_server: RunningPostgres, template_database: str) -> Iterator[str]:
    with postgres_server.new_database(template_database) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: RunningPostgres) -> Iterator[str]:
    """A database before the first migration."""
    with postgres_server.new_database() as url:
        yield url


@pytest.fixture(scope="session")
def buffer_server() -> Iterator[Running]:
    with start_valkey() as server:
        yield server


@pytest.fixture(scope="session")
def broker_server() -> Iterator[Running]:
    with start_valkey(role="broker") as server:
        yield server


def _emptied(url: str) -> str:
    import redis

    with redis.Redis.from_url(url) as client:
        client.flushall()
        client.script_flush()
    return url


@pytest.fixture
def buffer_url(buffer_server: Running) -> str:
    return _emptied(buffer_server.url)


@pytest.fixture
def broker_url(broker_server: Running) -> str:
    return _emptied(broker_server.url)


@pytest.fixture
def redis_client(buffer_url: str) -> Iterator[object]:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    with redis.Redis.from_url(buffer_url, retry=Retry(NoBackoff(), 0), socket_timeout=10) as client:
        yield client
