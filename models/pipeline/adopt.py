"""Adoption: how a conversation that only Postgres has becomes hot, and how blind saves find their base.

    adopt.1 the partition's epoch is read
    adopt.2 the conversation is loaded from Postgres, in one snapshot
    adopt.3 it is staged, where nobody else looks
    adopt.4 it is installed, if the epoch stands              every eviction raises it: a base loaded before one is refused

    replay.1 the base is there; before some entries of the journal are applied
    replay.2 they are applied and popped, in one script

The same installation merges, row by row by version, into a conversation adopted under another buffer epoch.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from models.buffer import codec
from models.buffer.buffer import Buffer, Place
from models.buffer.partitions import Partitions
from models.errors import BlotterError, Contention
from models.pipeline.failpoints import reach
from models.postgres.store import Store

log = logging.getLogger("blotter.adopt")

#: How often a save, read or adoption starts over because another process moved the conversation.
TRIES: Final = 5
#: Journal scripts run for one conversation before others get their turn.
_REPLAY_ROUNDS: Final = 500


def _staged() -> None:
    reach("adopt.3")


class Adopted(NamedTuple):
    """``answer``: ok, merged, hot, or empty: Postgres held nothing at ``epoch`` (nothing was installed)."""

    answer: str
    epoch: int


class Adopter:
    """Brings conversations from the store into the buffer."""

    def __init__(self, buffer: Buffer, store: Store, ring: Callable[[int], None]) -> None:
        self._buffer = buffer
        self._store = store
        self._ring = ring

    def adopt(
        self,
        place: Place,
        *,
        force: bool = False,
        keep_empty: bool = False,
        epoch: int | None = None,
        beyond: bool = False,
    ) -> Adopted:
        """Make the conversation hot. ``force``: merge although it is hot (Postgres was seen to hold a newer row).
        ``keep_empty``: install an empty base too (a journal waits for it, or the conversation is hot already).
        ``epoch``: the partition's, where the buffer just told it. ``beyond``: a full buffer takes it all the same.

        Raises StoreUnavailable, BufferUnavailable, BufferFull, Contention.
        """
        for _ in range(TRIES):
            if epoch is None:
                epoch = self._buffer.epoch(place)
            reach("adopt.1")
            snapshot, horizon = self._store.base(place.uid)
            reach("adopt.2")
            staged = codec.stage(place.owner, place.id, snapshot, horizon, self._buffer.stale)
            if not staged.rows and not force and not keep_empty:
                return Adopted("empty", epoch)
            answer = self._buffer.adopt(place, staged, epoch, force=force, beyond=beyond, between=_staged)
            reach("adopt.4")
            if answer in ("ok", "merged", "hot"):
                return Adopted(answer, epoch)
            if answer == "uninit":
                self._buffer.initialise()
            epoch = None
        raise Contention("the conversation was evicted again and again while it was being adopted")

    def replay(self, place: Place, *, beyond: bool = False) -> int:
        """Adopt the base of a blind conversation and apply its journal in order; returns the saves superseded.
        ``beyond``: a full buffer takes it all the same.

        Raises as adopt; what was applied stays applied, what was not stays in the journal.
        """
        lost: Counter[str] = Counter()
        try:
            self._replay(place, lost, beyond)
        finally:
            if lost:
                self._tell_superseded(place, lost)
        return lost.total()

    def _replay(self, place: Place, lost: Counter[str], beyond: bool) -> None:
        self.adopt(place, keep_empty=True, beyond=beyond)
        for _ in range(_REPLAY_ROUNDS):
            reach("replay.1")
            reply = self._buffer.save(place, (), mode="replay", beyond=beyond)
            reach("replay.2")
            if reply.s == "done":
                lost.update(reply.lost)
                if reply.ring:
                    # The script set the bell: unanswered, it would keep everybody from ringing for these rows.
                    self._ring(place.keys.number)
                if reply.left == 0:
                    return
            elif reply.s == "uninit":
                return
            else:
                self.adopt(place, keep_empty=True, beyond=beyond)

    def _tell_superseded(self, place: Place, lost: Counter[str]) -> None:
        """Saves that were acknowledged without their base and lost to it by the rules are never lost in silence."""
        said = ", ".join(f"{outcome} {count}" for outcome, count in sorted(lost.items()))
        log.warning("conversation %s: blind saves superseded at their replay: %s", place.hex, said)
        with contextlib.suppress(BlotterError):
            Partitions(self._buffer).count({"superseded": lost.total()})
