"""The buffer's policy and pressure: a server that would not keep what it acknowledges is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from models.buffer.buffer import Buffer
from models.core import commands as c
from models.errors import BufferFull, BufferPolicyError, BufferUnavailable
from models.pipeline import policy
from models.pipeline.crew import check_buffer
from models.pipeline.pressure import Pressure
from models.settings import Settings, load
from tests.flow.crews import crew_rig
from tests.servers import Running, start_valkey
from web.cli import start
from web.cli.folder import free_port


@pytest.fixture(scope="module")
def valkey() -> Iterator[Running]:
    with start_valkey() as server:
        yield server


@pytest.fixture
def client(valkey: Running) -> Iterator[Any]:
    with redis.Redis.from_url(valkey.url) as made:
        before = made.config_get("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
        before |= made.config_get("no-appendfsync-on-rewrite")
        made.flushall()
        yield made
        for name, value in before.items():
            made.config_set(name, value)


def settings(valkey: Running, **more: str) -> Settings:
    broker = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    return load({"REDIS_URL": valkey.url, **broker, **more})


def test_the_buffer_as_it_is_run_here_is_accepted(valkey: Running, client: Any) -> None:
    found = policy.examine(client, settings(valkey))
    assert found.faults == found.warnings == ()
    assert len(check_buffer(settings(valkey))) == 16


@pytest.mark.parametrize(
    ("directive", "value", "named"),
    [
        ("appendonly", "no", "appendonly is off"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru"),
        ("appendfsync", "everysec", "BLOTTER_FSYNC=everysec"),
        ("appendfsync", "no", "appendfsync is no"),
        ("no-appendfsync-on-rewrite", "yes", "no-appendfsync-on-rewrite is yes"),
    ],
)
def test_each_fault_is_refused_by_name(
    valkey: Running, client: Any, directive: str, value: str, named: str
) -> None:
    client.config_set(directive, value)
    with pytest.raises(BufferPolicyError, match=named):
        check_buffer(settings(valkey))
    assert check_buffer(settings(valkey, BLOTTER_UNSAFE_BUFFER="1"))


def test_everysec_may_be_allowed_and_always_is_never_too_much(valkey: Running, client: Any) -> None:
    allowed = settings(valkey, BLOTTER_FSYNC="everysec")
    assert policy.examine(client, allowed).faults == ()
    client.config_set("appendfsync", "everysec")
    assert policy.examine(client, allowed).faults == ()


def test_a_missing_maxmemory_is_a_warning(valkey: Running, client: Any) -> None:
    client.config_set("maxmemory", 0)
    found = policy.examine(client, settings(valkey))
    assert (found.faults, len(found.warnings)) == ((), 1)


def test_the_broker_must_be_another_server_under_any_name(valkey: Running, client: Any) -> None:
    same = valkey.url.replace("127.0.0.1", "localhost").removesuffix("/0") + "/3"
    with pytest.raises(BufferPolicyError, match="the broker is the same server"):
        check_buffer(settings(valkey, CELERY_BROKER_URL=same))


def test_web_is_not_started_on_a_buffer_that_keeps_nothing_and_readers_are(
    valkey: Running, client: Any
) -> None:
    client.flushall()
    environ = {
        "REDIS_URL": valkey.url,
        "CELERY_BROKER_URL": valkey.url,
        "BLOTTER_JWT_SECRET": "a-secret-of-at-least-32-bytes-for-tests",
    }
    web, events = (
        ["granian", "--port", str(free_port()), name]
        for name in ("web.edge:create_app", "web.events.app:create_app")
    )
    with pytest.raises(
        BufferPolicyError, match="the broker is the same server: give CELERY_BROKER_URL one of its own"
    ):
        start.check(web, environ)
    start.check(events, environ)
    start.check(web, {**environ, "BLOTTER_UNSAFE_BUFFER": "1"})
    start.check(web, {**environ, "REDIS_URL": "redis://127.0.0.1:1/0"})


def test_where_config_is_forbidden_that_is_said_and_the_rest_is_checked(valkey: Running, client: Any) -> None:
    client.execute_command("ACL", "SETUSER", "managed", "on", ">p", "~*", "&*", "+@all", "-config")
    url = valkey.url.replace("redis://", "redis://managed:p@")
    try:
        with redis.Redis.from_url(url) as managed:
            found = policy.examine(managed, settings(valkey))
            assert found.faults == ()
            assert any("CONFIG GET is refused" in line for line in found.unknown)
            client.config_set("maxmemory-policy", "allkeys-lru")
            assert policy.examine(managed, settings(valkey)).faults != ()
    finally:
        client.execute_command("ACL", "DELUSER", "managed")


def test_another_number_of_partitions_refuses_to_start(valkey: Running, client: Any) -> None:
    check_buffer(settings(valkey, BLOTTER_PARTITIONS="8"))
    with pytest.raises(BufferPolicyError, match="laid out with 8 partitions"):
        check_buffer(settings(valkey, BLOTTER_PARTITIONS="16"))


def test_a_buffer_that_is_away_is_not_called_faulty() -> None:
    away = load({"REDIS_URL": "redis://127.0.0.1:1/0"})
    with pytest.raises(BufferUnavailable):
        check_buffer(away)


# ---------------------------------------------------------------- pressure
def test_what_is_found_while_saves_come_is_logged_once(
    valkey: Running, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pressure = Pressure(client, settings(valkey), examine=lambda: ("the broker is the same server",))
    for _ in range(3):
        with pytest.raises(BufferPolicyError):
            pressure.check()
    assert [record.getMessage() for record in caplog.records if record.name == "blotter.policy"] == [
        "the buffer does not keep what it acknowledges: the broker is the same server"
    ]


class Counting:
    """A client that counts its INFOs."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.infos = 0

    def info(self, *sections: str) -> Any:
        self.infos += 1
        return self._client.info(*sections)


def test_the_figure_is_asked_for_once_a_second_at_most(valkey: Running, client: Any) -> None:
    now = 0
    counting: Any = Counting(client)
    guard = Pressure(counting, settings(valkey), clock_ms=lambda: now)
    for _ in range(1000):
        guard.check()
    assert counting.infos == 1
    now = 1_000
    guard.check()
    assert counting.infos == 2


def test_above_its_share_saves_are_refused_and_below_they_go_on(valkey: Running, client: Any) -> None:
    now = 0
    guard = Pressure(client, settings(valkey), clock_ms=lambda: now)
    guard.check()
    client.config_set("maxmemory", int(guard.memory.used / 0.9))
    guard.check()
    now = 1_000
    with pytest.raises(BufferFull):
        guard.check()
    client.config_set("maxmemory", "1gb")
    now = 2_000
    guard.check()


def test_saves_are_refused_while_the_append_only_file_is_off(valkey: Running, client: Any) -> None:
    now = 0
    guard = Pressure(client, settings(valkey), clock_ms=lambda: now)
    unsafe = Pressure(client, settings(valkey, BLOTTER_UNSAFE_BUFFER="1"), clock_ms=lambda: now)
    guard.check()
    client.config_set("appendonly", "no")
    now = 1_000
    with pytest.raises(BufferPolicyError, match="appendonly"):
        guard.check()
    unsafe.check()
    client.config_set("appendonly", "yes")
    now = 2_000
    guard.check()


def test_a_buffer_that_is_away_says_nothing_about_pressure(client: Any) -> None:
    away = Buffer.connect(load({"REDIS_URL": "redis://127.0.0.1:1/0"}))
    Pressure(away.client, away.settings).check()
    away.close()


def test_a_full_buffer_still_flushes_frees_and_comes_back(
    valkey: Running, client: Any, database_url: str
) -> None:
    """Saves refused by the server itself; flush, trial, acknowledge, evict and the counters need no room."""
    more = {"BLOTTER_MIN_IDLE_SECONDS": "0", "BLOTTER_IDLE_SECONDS": "0.001"}
    with crew_rig(valkey.url, database_url, **more) as chat:
        for number in range(20):
            chat.say(f"c{number}", "m1", "x" * 10_000)
        client.config_set("maxmemory", 1)
        with pytest.raises(BufferFull):
            chat.say("c0", "m2", "y")
        swept = chat.crew.sweeper.sweep(for_beat=True)
        assert swept.evicted == 0
        for number in range(20):
            chat.flush_once(f"c{number}")
        assert sum(count.due for count in chat.crew.partitions.counts()) == 0
        assert chat.crew.sweeper.sweep().evicted == 20
        client.config_set("maxmemory", "1gb")
        chat.pipeline.pressure.refresh()
        chat.save("c0", c.put("m", "m2", {"role": "user", "content": "y"}))
        assert [name for name, _ in chat.texts("c0")] == ["m1", "m2"]
