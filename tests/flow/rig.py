"""A whole pipeline on private servers, and a flush that runs when a test says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from models.buffer.buffer import Buffer, Place
from models.core import commands as c
from models.pipeline.service import Pipeline
from models.pipeline.views import SaveResult
from models.postgres.rows import key_of
from models.settings import load


class Rig:
    """`pipeline` and what tests do to it behind its back."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.buffer: Buffer = pipeline.buffer
        self.rung: list[int] = []

    def place(self, conversation_id: str, owner: str = "ann") -> Place:
        return self.buffer.place(owner, conversation_id)

    def save(self, conversation_id: str, *commands: c.Command, owner: str = "ann", **how: Any) -> SaveResult:
        return self.pipeline.save(owner, conversation_id, commands, **how)

    def say(self, conversation_id: str, message_id: str, text: str, **fields: Any) -> SaveResult:
        """A complete user message."""
        put = c.put("m", message_id, {"role": "user", "content": text, **fields})
        return self.save(conversation_id, put)

    def flush(self, conversation_id: str, owner: str = "ann") -> int:
        """Commit and acknowledge all that is dirty of a conversation, due or not; how many rows."""
        place = self.place(conversation_id, owner)
        done = 0
        while True:
            refs = [
                ref.decode()
                for ref in self.buffer.client.zrange(place.keys.due, 0, -1)
                if ref.decode().startswith(place.hex)
            ]
            rows = [row for row in self.buffer.rows(place.keys, refs, 1 << 30) if row.record is not None]
            if not rows:
                return done
            records = [row.record for row in rows if row.record is not None]
            stored = self.pipeline.store.write(records).stored
            committed = [
                (row.ref, row.version) for row in rows if row.record and key_of(row.record) in stored
            ]
            self.buffer.acknowledge(place.keys, committed)
            done += len(committed)

    def evict(self, conversation_id: str, owner: str = "ann") -> None:
        """Make it cold: flushed, then taken out of the buffer."""
        self.flush(conversation_id, owner)
        place = self.place(conversation_id, owner)
        assert self.buffer.evict(place.keys, place.hex, 0) == 1

    def texts(self, conversation_id: str, **how: Any) -> list[tuple[str, str | None]]:
        """(id, content) of the messages a reader sees."""
        view = self.pipeline.read("ann", conversation_id, **how)
        return [(item.record.id, item.record.content) for item in view.messages]


@contextmanager
def rig(buffer_url: str, database_url: str, **settings: str) -> Iterator[Rig]:
    """A rig with `settings` (BLOTTER_… names)."""
    rung: list[int] = []
    loaded = load(
        {"REDIS_URL": buffer_url, "DATABASE_URL": database_url, "BLOTTER_PARTITIONS": "4", **settings}
    )
    pipeline = Pipeline.connect(loaded, role="web", ring=rung.append)
    made = Rig(pipeline)
    made.rung = rung
    try:
        yield made
    finally:
        pipeline.close()
