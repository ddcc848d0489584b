"""The store as the pipeline sees it: values in, values out, one engine, one breaker.

Thread-safe. Every method raises StoreUnavailable when Postgres is away (at once while the breaker is open), and
SchemaError when its schema is not this code's. Make one after forking.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.engine import Connection, Engine

from models.core.records import ArtifactVersion, Conversation, Record, Snapshot
from models.errors import BlotterError
from models.postgres import erase, purge, queries
from models.postgres.breaker import Breaker
from models.postgres.engine import Role, make_engine
from models.postgres.errors import StoreUnreachable
from models.postgres.queries import Base, InFlightPage, RowVersions
from models.postgres.rows import RecordKey
from models.postgres.transactions import reading, transaction
from models.postgres.upserts import keyed, upsert_keyed, versions
from models.settings import Settings


class WriteOutcome(NamedTuple):
    """What a committed write found.

    ``stored``: the version each record has in the store now, ours or a newer one; 0 for artifact versions, which are
    immutable. A key is missing only if purge took its row at that very moment: write again. ``written``: the keys that
    this call inserted or updated.
    """

    stored: Mapping[RecordKey, int]
    written: frozenset[RecordKey]


def _steady_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Store:
    def __init__(
        self, engine: Engine, *, breaker: Breaker | None = None, clock_ms: Callable[[], int] = _steady_ms
    ) -> None:
        """``clock_ms``: any steady clock, for the breaker."""
        self._engine = engine
        self._breaker = breaker or Breaker()
        self._clock_ms = clock_ms

    @classmethod
    def open(cls, settings: Settings, *, role: Role) -> Store:
        """The store that ``settings`` name; connects at the first call."""
        return cls(make_engine(settings.database_url, role=role, settings=settings))

    def snapshot(self, uid: UUID) -> Snapshot:
        """All of a conversation, tombstones included; of a deleted one its row only."""
        with self._reading() as connection:
            return queries.load_snapshot(connection, uid)

    def base(self, uid: UUID) -> Base:
        """`snapshot` and `purge_horizon` in one statement, for adoption."""
        with self._reading() as connection:
            return queries.load_base(connection, uid)

    def purge_horizon(self, uid: UUID) -> int:
        """A ``since`` below this may have missed tombstones that are gone."""
        with self._reading() as connection:
            return queries.purge_horizon(connection, uid)

    def last_version(self, uid: UUID) -> int:
        """The highest version stored of a conversation, 0 where there is none: has it changed, without reading it."""
        with self._reading() as connection:
            return queries.last_version(connection, uid)

    def row_versions(self, uid: UUID) -> RowVersions:
        """The versions of a conversation's rows, without any text."""
        with self._reading() as connection:
            return queries.row_versions(connection, uid)

    def list_conversations(
        self, owner: str, *, archived: bool, after: tuple[int, UUID] | None, limit: int
    ) -> list[Conversation]:
        """See `queries.list_conversations`."""
        with self._reading() as connection:
            return queries.list_conversations(connection, owner, archived=archived, after=after, limit=limit)

    def artifact_versions(
        self, uid: UUID, artifact_id: str, *, after: int | None, limit: int
    ) -> list[ArtifactVersion]:
        """See `queries.artifact_versions`."""
        with self._reading() as connection:
            return queries.artifact_versions(connection, uid, artifact_id, after=after, limit=limit)

    def in_flight(self, *, before: datetime, after: RecordKey | None, limit: int) -> InFlightPage:
        """See `queries.in_flight`."""
        with self._reading() as connection:
            return queries.in_flight(connection, before=before, after=after, limit=limit)

    def write(self, records: Sequence[Record]) -> WriteOutcome:
        """Upsert ``records`` in one transaction; when this returns they are committed.

        Raises RecordRejected when one of them will never be taken: nothing was written, bisect. StoreUnavailable:
        unknown, write again. ValueError when a key comes twice.
        """
        if not records:
            return WriteOutcome({}, frozenset())
        batch = keyed(records)
        with self._guarded(), transaction(self._engine) as connection:
            written = upsert_keyed(connection, batch)
            stored = versions(connection, batch.keys() - written) if len(written) < len(batch) else {}
        for key in written:
            stored[key] = 0 if key.kind == "v" else batch[key].version
        return WriteOutcome(stored, frozenset(written))

    def purge(self, before: datetime, limit: int) -> int:
        """Remove what was deleted before ``before``, at most about ``limit`` rows; how many it were. Again until 0."""
        with self._guarded(), transaction(self._engine) as connection:
            return purge.purge(connection, before, limit)

    def owned(self, owner: str) -> list[UUID]:
        """The uids of all of ``owner``'s conversations, deleted ones included."""
        with self._reading() as connection:
            return erase.owned(connection, owner)

    def count(self, uids: Sequence[UUID]) -> dict[str, int]:
        """Table -> rows of these conversations."""
        with self._reading() as connection:
            return erase.count(connection, uids)

    def erase(self, uids: Sequence[UUID]) -> int:
        """Remove every row of these conversations, in one transaction; how many."""
        with self._guarded(), transaction(self._engine) as connection:
            return erase.erase(connection, uids)

    def ping(self) -> None:
        """Return when Postgres answers a statement on our schema; raise StoreUnavailable, SchemaError when not."""
        with self._reading() as connection:
            connection.exec_driver_sql("SELECT FROM conversations LIMIT 0")

    def close(self) -> None:
        """Close all idle connections."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._guarded(), reading(self._engine) as connection:
            yield connection

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        if not self._breaker.allow(self._clock_ms()):
            raise StoreUnreachable("Postgres was unreachable a moment ago")
        try:
            yield
        except StoreUnreachable:
            self._breaker.failed(self._clock_ms())
            raise
        except BlotterError:
            # It answered.
            self._breaker.succeeded()
            raise
        self._breaker.succeeded()
