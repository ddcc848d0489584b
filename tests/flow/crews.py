"""A rig with all that workers have, driven step by step; faults are real ones, or a real part that breaks one call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from models.core.records import Message, Record
from models.pipeline import failpoints
from models.pipeline.crew import Crew
from models.pipeline.flush import Flushed
from models.pipeline.service import Pipeline
from models.postgres.store import Store, WriteOutcome
from models.settings import load
from tests.buffer.checks import recount
from tests.flow.rig import Rig


class BrokenStore:
    """A real store whose `write` goes through `hook(write, records)`."""

    def __init__(
        self, store: Store, hook: Callable[[Callable[..., WriteOutcome], Sequence[Record]], Any]
    ) -> None:
        self._store = store
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, records: Sequence[Record]) -> Any:
        return self._hook(self._store.write, records)


class CrewRig(Rig):
    """`flush_once` and the like are what a worker's task does."""

    def __init__(self, pipeline: Pipeline, database_url: str, rung: list[int]) -> None:
        super().__init__(pipeline)
        self.rung = rung
        self.database_url = database_url
        self.crew = self.another()

    def another(self, hook: Callable[..., Any] | None = None, **how: Any) -> Crew:
        """A second crew on the same servers; its store's writes go through ``hook``."""
        store: Any = self.pipeline.store
        if hook is not None:
            store = BrokenStore(store, hook)
        return Crew(self.buffer, store, self.rung.append, **how)

    def flush_once(self, conversation_id: str = "c", crew: Crew | None = None) -> Flushed:
        return (crew or self.crew).flusher.flush(self.place(conversation_id).keys.number)

    def expire_lease(self, conversation_id: str = "c") -> None:
        """What ten seconds do."""
        self.buffer.client.delete(self.place(conversation_id).keys.lease)

    def end_pause(self, conversation_id: str = "c") -> None:
        self.buffer.client.delete(self.place(conversation_id).keys.hold)

    def stored(self, conversation_id: str = "c") -> dict[str, Message]:
        """The messages Postgres holds."""
        return {m.id: m for m in self.pipeline.store.snapshot(self.place(conversation_id).uid).messages}

    def stored_texts(self, conversation_id: str = "c") -> dict[str, str | None]:
        return {m.id: m.content for m in self.stored(conversation_id).values()}

    def due(self, conversation_id: str = "c") -> list[str]:
        """What is due of a conversation, names."""
        place = self.place(conversation_id)
        refs = [ref.decode() for ref in self.buffer.client.zrange(place.keys.due, 0, -1)]
        return sorted(ref[33:] for ref in refs if ref.startswith(place.hex))

    def dead(self, conversation_id: str = "c") -> dict[str, dict[str, Any]]:
        """Dead letters of a conversation's partition: name -> why."""
        found = self.buffer.client.hgetall(self.place(conversation_id).keys.dead)
        return {ref.decode()[33:]: json.loads(why) for ref, why in found.items()}

    def trials(self, conversation_id: str = "c") -> dict[str, int]:
        found = self.buffer.client.hgetall(self.place(conversation_id).keys.trial)
        return {ref.decode()[33:]: int(n) for ref, n in found.items()}

    def assert_clean(self, *conversation_ids: str) -> None:
        """All is in Postgres, the buffer's books are right, nothing is left to do."""
        for conversation_id in conversation_ids or ("c",):
            place = self.place(conversation_id)
            recount(self.buffer, place)
            assert self.due(conversation_id) == []
            assert self.trials(conversation_id) == {}
            assert (
                self.buffer.client.exists(place.keys.lease, place.keys.hold, place.keys.journal(place.hex))
                == 0
            )
            assert self.buffer.listed("ann") == {}
            view = self.pipeline.read("ann", conversation_id)
            stored = self.pipeline.store.snapshot(place.uid)
            assert [m.record for m in view.messages] == [m for m in stored.messages if m.deleted_ms is None]
            assert [t.record for t in view.tool_results] == [
                t for t in stored.tool_results if t.deleted_ms is None
            ]
            assert view.conversation.record == stored.conversation

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement)

    def reject_poison(self) -> None:
        """From now on Postgres refuses messages that begin with "poison"."""
        self.sql(
            "ALTER TABLE messages ADD CONSTRAINT no_poison"
            " CHECK (content IS NULL OR content NOT LIKE 'poison%') NOT VALID"
        )

    def accept_poison(self) -> None:
        self.sql("ALTER TABLE messages DROP CONSTRAINT no_poison")


@contextmanager
def crew_rig(buffer_url: str, database_url: str, **settings: str) -> Iterator[CrewRig]:
    """A rig with `settings` (BLOTTER_… names). Fail points are disarmed at its end."""
    environ = {
        "REDIS_URL": buffer_url,
        "DATABASE_URL": database_url,
        "BLOTTER_PARTITIONS": "4",
        # Tests share the machine: a slow connection is not what they are about.
        "BLOTTER_STORE_CONNECT_MS": "5000",
        **settings,
    }
    rung: list[int] = []
    pipeline = Pipeline.connect(load(environ), role="web", ring=rung.append)
    pipeline.buffer.initialise()
    made = CrewRig(pipeline, database_url, rung)
    try:
        yield made
    finally:
        failpoints.disarm()
        pipeline.close()


def same_partition(rig: Rig, like: str = "c") -> Iterator[str]:
    """Ids of further conversations that lie in the partition of `like`."""
    number = rig.place(like).keys.number
    return (name for n in range(10_000) if rig.place(name := f"{like}{n}").keys.number == number)
