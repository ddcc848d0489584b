"""Which saves a commit holds: beside each row that waits for Postgres lie the traces of the saves that made it.

Only where traces are on (models/tracing.py), only of saves that are sampled, and only a help: what is lost here is a
link in a picture. So nothing here raises, everything has a bound and a lifetime, and no rule rests on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from redis.exceptions import RedisError

from models import tracing
from models.buffer.buffer import Buffer, Place, RipeRow
from models.buffer.keys import PartitionKeys
from models.core import strands
from models.core.commands import ItemOutcome

#: Saves remembered of one row, the latest; and for how long.
MOST: Final = 32
LIFE_MS: Final = 3_600_000


class Spans:
    """Thread-safe."""

    def __init__(self, buffer: Buffer) -> None:
        self._client: Any = buffer.client

    def note(self, place: Place, items: Sequence[ItemOutcome]) -> None:
        """The save around us made these items."""
        if not tracing.on():
            return
        parent = tracing.carried().get("traceparent")
        accepted = [item for item in items if item.outcome == "accepted"]
        if parent is None or not accepted:
            return
        pipe = self._client.pipeline(transaction=False)
        for item in accepted:
            key = place.keys.spans(place.hex, f"{item.kind}/{item.id}")
            pipe.rpush(key, parent).ltrim(key, -MOST, -1).pexpire(key, LIFE_MS)
        with suppress(RedisError):
            strands.aside(pipe.execute)

    @contextmanager
    def commit(self, keys: PartitionKeys, rows: Sequence[RipeRow]) -> Iterator[None]:
        """A span around the commit of ``rows``, linked to the saves they hold. These are forgotten with its success."""
        if not tracing.on():
            yield
            return
        names = [keys.spans(row.ref[:32], row.ref[33:]) for row in rows]
        found: list[list[bytes]] = [[] for _ in names]
        with suppress(RedisError):
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.lrange(name, 0, -1)
            found = pipe.execute()
        links = list(dict.fromkeys(parent.decode() for parents in found for parent in parents))
        with tracing.span(
            "blotter.commit", kind="client", links=links, partition=keys.number, rows=len(rows)
        ):
            yield
        with suppress(RedisError):
            pipe = self._client.pipeline(transaction=False)
            for name, parents in zip(names, found, strict=True):
                if parents:
                    pipe.ltrim(name, len(parents), -1)
            pipe.execute()
