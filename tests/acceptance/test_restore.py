"""Postgres is set back to a backup while the buffer lives on: what Blotter does by itself, what `verify --repair` puts
right, and what is gone (deploy/RUNBOOK.md, Postgres restored).

The backup is a copy of the database, the restore puts it in its place: what a restore to a point in time is to a client.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import psycopg
import pytest
from psycopg import sql

from models.core import commands as c
from models.pipeline.figures import figures
from tests.acceptance.console import Console
from tests.flow.crews import CrewRig
from tests.servers import RunningPostgres


class Backups:
    """Copies of the rig's database. Whoever is connected to it is thrown out, as when a server is stopped."""

    def __init__(self, server: RunningPostgres, url: str) -> None:
        self._admin = server.server.url_of("postgres")
        self._name = url.rpartition("/")[2]

    def take(self) -> None:
        self._do("CREATE DATABASE {} TEMPLATE {}", f"{self._name}_backup", self._name)

    def restore(self) -> None:
        self._do("DROP DATABASE {} WITH (FORCE)", self._name)
        self._do("ALTER DATABASE {} RENAME TO {}", f"{self._name}_backup", self._name)

    def _do(self, statement: str, *names: str) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self._name]
            )
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))  # type: ignore[arg-type]


@pytest.fixture
def backups(postgres_server: RunningPostgres, database_url: str) -> Backups:
    return Backups(postgres_server, database_url)


@contextmanager
def set_back(chat: CrewRig, backups: Backups) -> Iterator[None]:
    """What is done in the block is younger than the backup that is restored after it."""
    for name in ("hot", "deleted", "cold"):
        chat.say(name, "m1", "before")
        chat.save(name, c.put("t", "t1", {"message_id": "m1", "tool_name": "x", "output": {"a": 1}}))
        chat.save(name, c.put("a", "a1", {"message_id": "m1", "content": "one"}))
        stored(chat, name)
    backups.take()
    yield
    backups.restore()


def stored(chat: CrewRig, name: str) -> None:
    """As workers do it."""
    chat.flush_once(name)
    assert chat.due(name) == []


def after(chat: CrewRig) -> None:
    """Saves after the backup: all stored, but one; one conversation has left the buffer."""
    chat.say("hot", "m1", "after")
    chat.say("hot", "m2", "new")
    chat.save("hot", c.put("a", "a1", {"content": "two"}))
    chat.say("new", "m1", "all of it new")
    chat.save("deleted", c.Delete("m", "m1"))
    for name in ("hot", "new", "deleted"):
        stored(chat, name)
    chat.say("cold", "m2", "stored, and left the buffer")
    stored(chat, "cold")
    place = chat.place("cold")
    assert chat.buffer.evict(place.keys, place.hex, 0) == 1
    chat.say("hot", "m3", "not stored yet")


def test_what_is_hot_is_read_on_and_repaired_from_the_buffer(
    chat: CrewRig, blotter: Console, backups: Backups
) -> None:
    with set_back(chat, backups):
        after(chat)
    texts = [("m1", "after"), ("m2", "new"), ("m3", "not stored yet")]
    assert chat.texts("hot") == texts, "readers notice nothing"
    assert chat.texts("cold") == [("m1", "before")], "what had left the buffer is as old as the backup"

    found = blotter.json("verify", exits=1)
    assert {fault["kind"] for fault in found["faults"]} == {"row-lost"}
    assert {fault["conversation"] for fault in found["faults"]} == {"hot", "new", "deleted"}
    assert blotter.json("verify", "--repair")["left"] == []
    for name in ("hot", "new", "deleted"):
        stored(chat, name)
    assert blotter.json("verify")["faults"] == []
    chat.assert_clean("hot", "new", "cold")
    assert list(chat.stored_texts("hot").items()) == texts
    assert chat.stored_texts("new") == {"m1": "all of it new"}
    assert chat.stored("deleted")["m1"].deleted_ms is not None, "what was deleted stays deleted"


def test_before_the_repair_saves_and_flushes_go_on_and_hide_nothing(
    chat: CrewRig, blotter: Console, backups: Backups
) -> None:
    """A worker that is quicker than the operator commits what is dirty, and leaves the rest to be found."""
    with set_back(chat, backups):
        after(chat)
    chat.say("hot", "m2", "newer")
    chat.say("cold", "m3", "on the older base")
    for name in ("hot", "cold"):
        stored(chat, name)
    assert chat.stored_texts("hot")["m1"] == "before"
    assert blotter.json("verify", "--repair")["left"] == []
    for name in ("hot", "new", "deleted"):
        stored(chat, name)
    chat.assert_clean("hot", "new", "cold")
    assert chat.stored_texts("hot") == {"m1": "after", "m2": "newer", "m3": "not stored yet"}
    assert chat.texts("cold") == [("m1", "before"), ("m3", "on the older base")]


def test_what_leaves_the_buffer_before_the_repair_is_gone(
    chat: CrewRig, blotter: Console, backups: Backups
) -> None:
    """Why the runbook stops workers and beat first: they evict what they take for stored."""
    with set_back(chat, backups):
        after(chat)
    place = chat.place("new")
    assert chat.buffer.evict(place.keys, place.hex, 0) == 1
    assert blotter.json("verify", "--repair")["left"] == []
    assert chat.stored_texts("new") == {}


def idle(chat: CrewRig, *names: str) -> None:
    """What fifteen minutes without a save do."""
    for name in names:
        place = chat.place(name)
        header = msgspec.msgpack.decode(chat.buffer.client.hget(place.keys.rows(place.hex), "h"))
        header["t"] = 1
        chat.buffer.client.hset(place.keys.rows(place.hex), "h", msgspec.msgpack.encode(header))
        chat.buffer.client.zadd(place.keys.idle, {place.hex: 1})


def standing(chat: CrewRig) -> tuple[bool, list[str]]:
    """Whether it is noted that Postgres was set back, and which conversations are hot."""
    found = figures(chat.buffer)
    hot = [
        name
        for name in ("hot", "new", "deleted")
        if chat.crew.partitions.place_of(chat.place(name).keys, chat.place(name).hex)
    ]
    return found["storeSetBack"], hot


def test_it_is_noticed_by_itself_and_nothing_leaves_the_buffer_until_the_repair(
    chat: CrewRig, blotter: Console, backups: Backups
) -> None:
    with set_back(chat, backups):
        after(chat)
        chat.crew.sweeper.sweep()
        assert standing(chat) == (False, ["hot", "new", "deleted"])
    idle(chat, "hot", "new", "deleted")
    assert chat.crew.sweeper.sweep().evicted == 0, "already at the first doubt"
    assert standing(chat)[0] is False
    assert chat.crew.sweeper.sweep().evicted == 0
    assert standing(chat) == (True, ["hot", "new", "deleted"])
    # Another process, or one that has just started, asks nobody: it is noted.
    assert chat.another().sweeper.sweep().evicted == 0
    status = blotter.json("status", exits=2)
    assert "blotter verify --repair" in next(
        r["step"] for r in status["reasons"] if "lacks what it" in r["reason"]
    )

    blotter("verify", exits=1)
    assert standing(chat)[0], "looking alone repairs nothing"
    assert blotter.json("verify", "--repair")["left"] == []
    for name in ("hot", "new", "deleted"):
        stored(chat, name)
    idle(chat, "hot", "new", "deleted")
    chat.crew.sweeper.sweep()
    assert standing(chat) == (False, [])
    assert chat.texts("new") == [("m1", "all of it new")]


def test_while_postgres_is_away_nothing_leaves_that_the_buffer_has_room_for(
    chat: CrewRig, backups: Backups
) -> None:
    chat.say("hot", "m1", "before")
    stored(chat, "hot")
    idle(chat, "hot")
    with psycopg.connect(chat.database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE conversations RENAME TO gone")
        assert chat.crew.sweeper.sweep().evicted == 0
        ceiling = chat.buffer.client.config_get("maxmemory")["maxmemory"]
        chat.buffer.client.config_set(
            "maxmemory", chat.buffer.client.info("memory")["used_memory"] + 1_000_000
        )
        try:
            assert chat.crew.sweeper.sweep().evicted == 1
        finally:
            chat.buffer.client.config_set("maxmemory", ceiling)
            connection.execute("ALTER TABLE gone RENAME TO conversations")
    assert chat.texts("hot") == [("m1", "before")]


def test_what_was_dropped_from_the_buffer_or_erased_is_no_set_back(chat: CrewRig, blotter: Console) -> None:
    """A dead letter that was purged leaves the conversation's version behind; an erase takes rows from Postgres first."""
    chat.say("hot", "m1", "before")
    stored(chat, "hot")
    chat.reject_poison()
    chat.say("hot", "m2", "poison")
    chat.flush_once("hot")
    assert len(blotter.json("dead", "purge", "--all", "--yes")["done"]) == 1
    for _ in range(3):
        chat.crew.sweeper.sweep()
    assert standing(chat)[0] is False
    place = chat.place("hot")
    chat.pipeline.store.erase([place.uid])
    chat.crew.sweeper.sweep()
    blotter("erase", "ann", "--yes")
    chat.crew.sweeper.sweep()
    assert standing(chat)[0] is False


def test_versions_of_artifacts_younger_than_the_backup_are_gone_but_for_the_last(
    chat: CrewRig, blotter: Console, backups: Backups
) -> None:
    with set_back(chat, backups):
        for content in ("two", "three"):
            chat.save("hot", c.put("a", "a1", {"content": content}))
            stored(chat, "hot")
    assert blotter.json("verify", "--repair")["left"] == []
    stored(chat, "hot")
    chat.assert_clean("hot")
    versions = chat.pipeline.artifact_versions("ann", "hot", "a1", after=None, limit=10)
    assert [(each.number, each.content) for each in versions] == [(1, "one")]
    item, _ = chat.pipeline.item("ann", "hot", "a", "a1")
    assert item.record.content == "three"
