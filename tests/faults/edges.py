"""The edges of a world: the real client of the buffer and the real store, behind a gate.

Before each call the gate may let others run; in place of the call, or after it, it may fail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import redis
from redis.client import Pipeline as RedisPipeline

from models.errors import StoreUnavailable
from models.postgres.store import Store

if TYPE_CHECKING:
    from tests.faults.world import World

#: Calls that the store is asked through.
_ASKED: Final = (
    "base",
    "snapshot",
    "list_conversations",
    "artifact_versions",
    "in_flight",
    "purge",
    "last_version",
    "row_versions",
)


class GatedRedis(redis.Redis):
    world: World

    def execute_command(self, *args: Any, **options: Any) -> Any:
        plain: Any = super().execute_command
        return self.world.gate(args, lambda: plain(*args, **options))

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        pipe = _GatedPipe(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.world = self.world
        return pipe


class _GatedPipe(RedisPipeline):
    world: World

    def execute(self, raise_on_error: bool = True) -> Any:
        return self.world.gate(("PIPELINE",), lambda: super(_GatedPipe, self).execute(raise_on_error))


class GatedStore:
    """The real store behind what the world lets through."""

    def __init__(self, world: World, store: Store) -> None:
        self._world = world
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in _ASKED:
            return method

        def ask(*args: Any, **options: Any) -> Any:
            self._world.pause()
            if self._world.store_away:
                raise StoreUnavailable("simulated: away")
            return method(*args, **options)

        return ask

    def write(self, records: Any) -> Any:
        world = self._world
        world.pause()
        fault = world.commit_faults.pop() if world.commit_faults else ""
        if world.store_away or fault == "refused":
            raise StoreUnavailable("simulated: away")
        outcome = self._store.write(records)
        if fault == "lost":
            raise StoreUnavailable("simulated: the answer of COMMIT is lost")
        return outcome
