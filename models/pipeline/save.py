"""The path of a save: script, owner's index, doorbell, answer. Postgres is asked only when the conversation is cold.

    save.1 before a try: nothing is written
           it is cold: load the base and adopt it (adopt.1 …), or learn that there is none, then again
           it may be older than Postgres (adopted under another buffer epoch): merge the base into it, then again
           Postgres away: again in blind mode
    save.2 save.lua has applied it                            one round trip; almost always all there is
    save.3 the conversation stands on its owner's index       where its own row is dirty; before the answer, duplicates too
    save.4 the doorbell is rung, if the script said so        a hint; the due index is the truth

Laws: nothing is answered before step save.3; a save that fails has said nothing, one that is unknown says so (503).
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from models.buffer.buffer import Buffer, Place, SaveReply
from models.core import threads
from models.core.commands import ACKNOWLEDGED, Command, ItemOutcome, Put
from models.core.strands import aside
from models.errors import BlotterError, Contention, Gone, StoreUnavailable
from models.pipeline.adopt import TRIES, Adopter
from models.pipeline.failpoints import reach
from models.pipeline.views import SaveResult

#: One script call takes at most this many items and about this many bytes, so that no save holds the server for long.
CALL_ITEMS: Final = 50
CALL_BYTES: Final = 256 * 1024
#: Longest pause before a save that met another process tries again, s (doubled each time, full jitter).
_PAUSE_S: Final = 0.01


class Moved(BlotterError):
    """Another writer added messages since a sync's order was planned: plan again."""


class Saver:
    """Saves into the buffer. Thread-safe; `save` may be called by a strand, too (models/core/strands.py)."""

    def __init__(
        self, buffer: Buffer, adopter: Adopter, ring: Callable[[int], None], pressure: Callable[[], None]
    ) -> None:
        self._buffer = buffer
        self._adopter = adopter
        self._ring = ring
        self._pressure = pressure
        self._pause = threading.Event()

    def save(
        self,
        place: Place,
        commands: Sequence[Command],
        *,
        fresh: bool = False,
        pull: bool = False,
        expect_mp: int = -1,
    ) -> SaveResult:
        """Apply ``commands`` (at most CALL_ITEMS) to one conversation; their outcomes tell what came of each.

        Raises Gone (the conversation is deleted), BufferFull (nothing written), BufferUnavailable (unknown),
        StoreUnavailable (an append to a conversation whose base is out of reach), Contention, Moved.
        """
        if any(command for command in commands if type(command).__name__ != "Delete"):
            self._pressure()
        mode: Literal["hot", "blind"] = "hot"
        base = -1
        for attempt in range(TRIES * 2):
            self._let_others(attempt)
            reach("save.1")
            reply = self._buffer.save(
                place,
                commands,
                mode=mode,
                fresh=fresh,
                base=base,
                pull=pull,
                expect_mp=expect_mp,
            )
            if reply.s == "done":
                reach("save.2")
                return self._finish(place, reply, mode)
            if reply.s == "gone":
                raise Gone("the conversation was deleted")
            if reply.s == "moved":
                raise Moved("messages were added meanwhile")
            if reply.s == "uninit":
                aside(self._buffer.initialise)
            elif reply.s in ("blind", "hot"):
                mode = reply.s  # type: ignore[assignment]
            elif reply.s == "cold":
                try:
                    adopted = aside(self._adopter.adopt, place, epoch=reply.p)
                    base = adopted.epoch if adopted.answer == "empty" else -1
                except StoreUnavailable:
                    mode = "blind"
            else:
                try:
                    aside(self._adopter.adopt, place, keep_empty=True)
                except StoreUnavailable:
                    mode = "blind"
        raise Contention("the conversation was moved again and again while it was being saved")

    def _let_others(self, attempt: int) -> None:
        if attempt > 1:
            aside(self._pause.wait, random.uniform(0, _PAUSE_S * 2**attempt))  # noqa: S311 (jitter, no secret)

    def _finish(self, place: Place, reply: SaveReply, mode: str) -> SaveResult:
        if reply.list is not None:
            self._buffer.list_for_owner(place, reply.list)
        reach("save.3")
        if reply.ring:
            self._ring(place.keys.number)
        reach("save.4")
        if mode == "blind" and len(reply.items) == 1 and reply.items[0].outcome == "unavailable":
            raise StoreUnavailable("the item is not in reach while Postgres is away")
        return SaveResult(
            state="buffered",
            base="unknown" if mode == "blind" else "known",
            buffer_epoch=reply.e,
            version=reply.v,
            items=reply.items,
        )

    # ------------------------------------------------------------------ sync
    def sync(
        self, place: Place, commands: Sequence[Command], *, order: Sequence[str], pull: bool = False
    ) -> SaveResult:
        """Apply any number of commands, several a call; ``order``: the message ids as the client has them.

        Raises as save while nothing was applied; once something was, the rest answer ``unavailable``.
        """
        outcomes: list[ItemOutcome] = []
        first: SaveResult | None = None
        last: SaveResult | None = None
        known_base = True
        for batch in batches(commands):
            try:
                last = self._sync_batch(place, batch, order, pull)
            except Gone:
                raise
            except BlotterError:
                if last is None:
                    raise
                rest = commands[len(outcomes) :]
                outcomes += [
                    ItemOutcome(kind=command.k, id=command.id, outcome="unavailable") for command in rest
                ]
                break
            first = first or last
            known_base = known_base and last.base == "known"
            outcomes += last.items
        if last is None:
            last = self.save(place, (), pull=pull)
        return SaveResult(
            state=last.state,
            base="known" if known_base else "unknown",
            # A buffer lost between two calls took the first with it: who is told the epoch of the first sends it again.
            buffer_epoch=(first or last).buffer_epoch,
            version=last.version,
            items=tuple(outcomes),
        )

    def _sync_batch(
        self, place: Place, batch: Sequence[Command], order: Sequence[str], pull: bool
    ) -> SaveResult:
        for attempt in range(TRIES * 2):
            self._let_others(attempt)
            try:
                planned, expect_mp = self._plan(place, batch, order)
                return self.save(place, planned, pull=pull, expect_mp=expect_mp)
            except Moved:
                continue
        raise Contention("messages were added again and again while a sync was being placed")

    def _plan(
        self, place: Place, batch: Sequence[Command], order: Sequence[str]
    ) -> tuple[Sequence[Command], int]:
        """``batch`` with positions for new messages that stand before known ones, and the state they hold for: of two new
        messages another writer may add the second first, and the first would be read after it.
        """
        if len(order) < 2 or not any(isinstance(command, Put) and command.k == "m" for command in batch):
            return batch, -1
        reply = self._buffer.read(place, "rows")
        if reply.head.s == "uninit":
            self._buffer.initialise()
            reply = self._buffer.read(place, "rows")
        if reply.head.s in ("cold", "suspect"):
            try:
                adopted = self._adopter.adopt(place, keep_empty=reply.head.s == "suspect")
                if adopted.answer == "empty":
                    return batch, 0
            except StoreUnavailable:
                return _with_following(batch, order), -1
            reply = self._buffer.read(place, "rows")
        if reply.head.partial:
            return _with_following(batch, order), -1
        if reply.head.s != "ok":
            raise Moved("the conversation was moved while a sync was being placed")
        known = {item.id: item.row.p or "" for item in reply.items if item.kind == "m"}
        placed = threads.place_before_known(order, known)
        if not placed and len(set(order).difference(known)) < 2:
            return batch, -1
        planned = [
            msgspec.structs.replace(command, pos=placed[command.id])
            if isinstance(command, Put) and command.k == "m" and command.id in placed
            else command
            for command in batch
        ]
        return planned, reply.head.h.mp


def _with_following(batch: Sequence[Command], order: Sequence[str]) -> Sequence[Command]:
    """``batch``, each message with the one that follows it: the script places it when it knows that one."""
    following = dict(itertools.pairwise(order))
    return [
        msgspec.structs.replace(command, before=following.get(command.id))
        if isinstance(command, Put) and command.k == "m"
        else command
        for command in batch
    ]


def batches(commands: Sequence[Command]) -> list[Sequence[Command]]:
    """``commands`` in order, cut so that each piece keeps within CALL_ITEMS and CALL_BYTES (one item may exceed)."""
    out: list[Sequence[Command]] = []
    start = size = 0
    for index, command in enumerate(commands):
        weight = command.weight() if isinstance(command, Put) else 256
        if index > start and (index - start >= CALL_ITEMS or size + weight > CALL_BYTES):
            out.append(commands[start:index])
            start, size = index, 0
        size += weight
    if start < len(commands):
        out.append(commands[start:])
    return out


def all_acknowledged(items: Sequence[ItemOutcome]) -> bool:
    """True where every outcome is one a caller may rely on."""
    return all(item.outcome in ACKNOWLEDGED for item in items)
