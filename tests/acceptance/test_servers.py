"""The private servers of the tests keep what they promise: kill, freeze, start again, nothing lost."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import eventually, start_postgres, start_valkey
from web.cli.postgres_server import _shared_memory

NO_RETRY = Retry(NoBackoff(), 0)


def test_a_killed_valkey_comes_back_on_its_port_with_every_acknowledged_write() -> None:
    with start_valkey() as valkey, redis.Redis.from_url(valkey.url) as client:
        for number in range(200):
            client.set(f"k{number}", number)
        port, pid = valkey.port, valkey.pid
        valkey.kill()
        valkey.start()
        assert (valkey.port, valkey.pid != pid) == (port, True)
        assert client.dbsize() == 200


def test_a_frozen_valkey_answers_nothing_until_it_is_resumed() -> None:
    with (
        start_valkey() as valkey,
        redis.Redis.from_url(valkey.url, socket_timeout=0.2, retry=NO_RETRY) as client,
    ):
        client.set("a", 1)
        valkey.pause()
        with pytest.raises(redis.exceptions.TimeoutError):
            client.get("a")
        valkey.resume()
        assert client.get("a") == b"1"


def test_the_buffer_has_the_settings_that_acknowledgements_rest_on() -> None:
    with start_valkey() as valkey, redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        found = client.config_get(
            "appendonly", "appendfsync", "maxmemory-policy", "maxmemory", "save", "bind"
        )
    assert found == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "maxmemory": str(1024**3),
        "save": "",
        "bind": "127.0.0.1",
    }


def test_a_valkey_with_a_password_refuses_those_without() -> None:
    with start_valkey(password="p") as valkey:
        with (
            redis.Redis(port=valkey.port, retry=NO_RETRY) as stranger,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            stranger.ping()
        with redis.Redis.from_url(valkey.url) as client:
            assert client.ping()


def test_a_killed_postgres_keeps_its_rows_and_a_frozen_one_goes_on() -> None:
    with start_postgres() as postgres:
        with psycopg.connect(postgres.url) as connection:
            connection.execute("CREATE TABLE t (a int)")
            connection.execute("INSERT INTO t VALUES (1)")
        postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(postgres.url, connect_timeout=2)
        postgres.start()
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]
            postgres.pause()
            postgres.resume()
            assert connection.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)


def test_postgres_listens_on_loopback_only_and_wants_the_password(tmp_path: Path) -> None:
    with start_postgres(fsync="off") as postgres:
        wrong = postgres.url.replace(":test@", ":wrong@")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
            assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)


def test_each_new_database_is_empty_and_gone_afterwards() -> None:
    with start_postgres(fsync="off") as postgres:
        with postgres.new_database() as url, psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE t (a int)")
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            psycopg.connect(url)
        with postgres.new_database() as url, psycopg.connect(url) as connection:
            assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_postgres_does_without_shared_memory_of_the_system() -> None:
    """As where /dev/shm is small: parallel queries share memory through files of the cluster."""
    with (
        start_postgres(fsync="off", dynamic_shared_memory_type="mmap", debug_parallel_query="on") as postgres,
        psycopg.connect(postgres.url) as connection,
    ):
        assert connection.execute("SELECT sum(n) FROM generate_series(1, 1000) n").fetchone() == (500_500,)


@pytest.mark.parametrize(("size_mb", "kind"), [(64, "mmap"), (24_000, "posix")])
def test_a_small_shared_memory_of_the_system_is_not_used(
    size_mb: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(f_frsize=4096, f_blocks=size_mb * 256)
    monkeypatch.setattr(os, "statvfs", lambda path: found)
    assert _shared_memory() == kind


def test_waiting_fails_with_the_last_reason() -> None:
    colour = "blue"

    def never() -> None:
        assert str(colour) == "green", "the sky is blue"

    with pytest.raises(AssertionError, match="the sky is blue"):
        eventually(never, within_s=0.1)
