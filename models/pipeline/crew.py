"""The crew: all that works on one buffer and one store, put together for a worker process or a command."""

from __future__ import annotations

from collections.abc import Callable

from models.buffer.buffer import Buffer
from models.buffer.partitions import Partitions
from models.pipeline import policy
from models.pipeline.adopt import Adopter
from models.pipeline.deadletters import DeadLetters
from models.pipeline.drain import Drained, drain, standing
from models.pipeline.evict import Evictor
from models.pipeline.flush import Flusher
from models.pipeline.patrol import Patrol
from models.pipeline.purge import Purger
from models.pipeline.setback import SetBack
from models.pipeline.settle import Settler
from models.pipeline.strays import Strays
from models.pipeline.sweep import Sweeper
from models.pipeline.verify import Verifier
from models.postgres.engine import Role
from models.postgres.store import Store
from models.settings import Settings


class Crew:
    """Thread-safe; make it after fork."""

    def __init__(
        self,
        buffer: Buffer,
        store: Store,
        ring: Callable[[int], None],
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """``ring(partition)`` sends the doorbell, never raises. ``stopping``: flushes end after the batch at hand."""
        self.buffer = buffer
        self.store = store
        self.ring = ring
        self.partitions = Partitions(buffer)
        self.adopter = Adopter(buffer, store, ring)
        self.flusher = Flusher(buffer, self.partitions, store, self.adopter, ring, stopping=stopping)
        self.settler = Settler(buffer, self.partitions, self.adopter, ring)
        self.set_back = SetBack(self.partitions, store)
        self.evictor = Evictor(buffer, self.partitions, self.set_back)
        self.strays = Strays(buffer, self.partitions, store, self.adopter)
        self.purger = Purger(self.partitions, store, buffer.settings)
        self.sweeper = Sweeper(
            buffer,
            self.partitions,
            self.settler,
            self.evictor,
            self.strays,
            self.purger,
            self.set_back,
            ring,
        )
        self.dead_letters = DeadLetters(buffer, self.partitions, ring)
        self.verifier = Verifier(buffer, self.partitions, store, self.adopter)
        self.patrol = Patrol(
            self.partitions,
            self.flusher,
            self.sweeper,
            len(buffer.partitions),
            round(buffer.settings.sweep_seconds * 1000),
        )

    @classmethod
    def connect(
        cls,
        settings: Settings,
        *,
        role: Role,
        ring: Callable[[int], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> Crew:
        """A crew on the servers that ``settings`` name; connects at the first call."""
        return cls(Buffer.connect(settings), Store.open(settings, role=role), ring, stopping=stopping)

    def drain(
        self, *, within_s: float, progress: Callable[[Drained], None] = lambda drained: None
    ) -> Drained:
        """See models/pipeline/drain.py."""
        return drain(self.buffer, self.partitions, self.flusher, within_s=within_s, progress=progress)

    def standing(self) -> Drained:
        """What a drain would have to do."""
        return standing(self.partitions)

    def close(self) -> None:
        self.buffer.close()
        self.store.close()


def check_buffer(settings: Settings) -> str:
    """Before a program starts: the buffer's policy and layout. Returns the buffer epoch.

    Raises BufferPolicyError with what to change, BufferUnavailable.
    """
    buffer = Buffer.connect(settings, connections=1)
    try:
        policy.require(buffer.client, settings)
        return buffer.initialise()
    finally:
        buffer.close()
