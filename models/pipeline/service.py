"""The pipeline's front door: what web (and the command line) may ask of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from models import tracing
from models.buffer.buffer import Buffer, Place
from models.buffer.partitions import Partitions
from models.core.commands import Command, ItemKind
from models.core.records import ArtifactVersion
from models.errors import BlotterError, BufferFull, StoreUnavailable
from models.pipeline import policy
from models.pipeline.adopt import Adopter
from models.pipeline.figures import figures
from models.pipeline.listing import Lister
from models.pipeline.pressure import Pressure
from models.pipeline.read import Reader
from models.pipeline.save import Saver, all_acknowledged
from models.pipeline.spans import Spans
from models.pipeline.views import ConversationPage, ConversationView, Item, ItemPage, SaveResult
from models.postgres.engine import Role
from models.postgres.errors import SchemaError
from models.postgres.store import Store
from models.settings import Settings


class Pipeline:
    """Saves, reads and lists, for one process. Thread-safe; make it after fork."""

    def __init__(self, settings: Settings, buffer: Buffer, store: Store, ring: Callable[[int], None]) -> None:
        self.settings = settings
        self.buffer = buffer
        self.store = store
        self.partitions = Partitions(buffer)
        self.adopter = Adopter(buffer, store, ring)
        self.pressure = Pressure(
            buffer, settings, examine=lambda: policy.examine(buffer.client, settings).faults
        )
        self._saver = Saver(buffer, self.adopter, ring, self.pressure.check)
        self._spans = Spans(buffer)
        self._reader = Reader(buffer, store, self.adopter, ring)
        self._lister = Lister(buffer, store)
        self._tick = threading.Event()

    @classmethod
    def connect(cls, settings: Settings, *, role: Role, ring: Callable[[int], None]) -> Pipeline:
        """A pipeline on the servers that ``settings`` name. ``ring(partition)`` sends the doorbell; it never raises."""
        return cls(settings, Buffer.connect(settings), Store.open(settings, role=role), ring)

    @property
    def takes_strands(self) -> bool:
        """Whether `save` may be called by a strand (models/core/strands.py). Who traces notes saves in other ways."""
        return self.buffer.has_lane and not tracing.on()

    def close(self) -> None:
        self.buffer.close()
        self.store.close()

    # ------------------------------------------------------------------ save
    def save(
        self,
        owner: str,
        conversation_id: str,
        commands: Sequence[Command],
        *,
        fresh: bool = False,
        pull: bool = False,
    ) -> SaveResult:
        """Apply up to 50 commands; one outcome each. ``fresh``: the id was minted just now. ``pull``: make it due now.

        Raises Gone (conversation deleted), BufferFull, BufferUnavailable, StoreUnavailable, Contention.
        """
        place = self._place(owner, conversation_id)
        result = self._saver.save(place, commands, fresh=fresh, pull=pull)
        self._spans.note(place, result.items)
        return result

    def sync(
        self,
        owner: str,
        conversation_id: str,
        commands: Sequence[Command],
        *,
        order: Sequence[str],
        pull: bool = False,
    ) -> SaveResult:
        """Apply any number of commands; never deletes. ``order``: the message ids in the order the client has them.

        Raises as save while nothing was applied; once something was, the rest answer ``unavailable``.
        """
        place = self._place(owner, conversation_id)
        result = self._saver.sync(place, commands, order=order, pull=pull)
        self._spans.note(place, result.items)
        return result

    def wait_stored(
        self, owner: str, conversation_id: str, result: SaveResult, *, timeout_ms: int
    ) -> SaveResult:
        """``result``, its state "stored" if all it acknowledged was committed within ``timeout_ms``."""
        if result.base == "unknown" or not all_acknowledged(result.items):
            return result
        place = self._place(owner, conversation_id)
        names = {f"{item.kind}/{item.id}": item.version for item in result.items}
        deadline = time.monotonic() + timeout_ms / 1000
        pause_s = 0.01
        while True:
            epoch, stored = self.buffer.stored_versions(place, list(names))
            # In another epoch the save may have been lost, and what is stored of its row be a later one's.
            if epoch == result.buffer_epoch and all(
                (at := stored[name]) is None or at >= version for name, version in names.items()
            ):
                return SaveResult(
                    state="stored", base=result.base, buffer_epoch=result.buffer_epoch, version=result.version,
                    items=result.items,
                )  # fmt: skip
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return result
            self._tick.wait(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, 0.1)

    # ------------------------------------------------------------------ read
    def read(
        self,
        owner: str,
        conversation_id: str,
        *,
        since: int | None = None,
        limit: int = 200,
        before: str | None = None,
        branches: bool = False,
    ) -> ConversationView:
        """A conversation as one snapshot: the last ``limit`` messages before position ``before``, on the path to its
        head unless ``branches``; or, with ``since``, all that changed after that version, tombstones included.

        Raises NotFound, Gone (deleted; or since lies below the purge horizon), StoreUnavailable, BufferUnavailable.
        """
        place = self._place(owner, conversation_id)
        return self._reader.read(place, since=since, limit=limit, before=before, branches=branches)

    def item(self, owner: str, conversation_id: str, kind: ItemKind, item_id: str) -> tuple[Item[Any], str]:
        """One item and the buffer epoch. Raises NotFound, Gone, StoreUnavailable, BufferUnavailable."""
        return self._reader.item(self._place(owner, conversation_id), kind, item_id)

    def items(
        self, owner: str, conversation_id: str, kind: ItemKind, *, after: str | None, limit: int
    ) -> ItemPage[Any]:
        """A page of one kind, in order of position. Raises as item."""
        return self._reader.items(self._place(owner, conversation_id), kind, after=after, limit=limit)

    def artifact_versions(
        self, owner: str, conversation_id: str, artifact_id: str, *, after: int | None, limit: int
    ) -> tuple[ArtifactVersion, ...]:
        """The contents an artifact had, by number. Raises as item."""
        place = self._place(owner, conversation_id)
        return self._reader.artifact_versions(place, artifact_id, after=after, limit=limit)

    def conversations(self, owner: str, *, archived: bool, after: str | None, limit: int) -> ConversationPage:
        """A page of the owner's conversations, latest activity first. Raises ValueError for a cursor that is none."""
        return self._lister.page(owner, archived=archived, after=after, limit=limit)

    # ------------------------------------------------------------------ state
    def ready(self) -> dict[str, str]:
        """How buffer and store are: "ok", "unavailable", or a sentence."""
        state = {"buffer": "ok", "store": "ok"}
        try:
            self.buffer.initialise()
            self.pressure.check()
        except BufferFull:
            state["buffer"] = "full"
        except BlotterError as error:
            state["buffer"] = str(error)
        try:
            self.store.ping()
        except SchemaError as error:
            state["store"] = str(error)
        except StoreUnavailable:
            state["store"] = "unavailable"
        except BlotterError as error:
            state["store"] = str(error)
        return state

    def figures(self) -> dict[str, Any]:
        """The pipeline's figures, for /api/status and /metrics."""
        return figures(self.buffer)

    def _place(self, owner: str, conversation_id: str) -> Place:
        return self.buffer.place(owner, conversation_id)
