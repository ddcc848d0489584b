"""Repartition: another number of partitions, for a buffer that goes on being used.

Where a conversation lives follows from their number, so it changes only while none is in the buffer, and no process may go
on with the old one. Each partition carries the number; every script that saves, reads or adopts compares it with its
caller's. So a process that was not told is refused by name (503), and two numbers are never in force at once:

    empty    everything is flushed, what is silent for too long is settled, every conversation is evicted; again until none is left
    close    each partition, in one script that looks whether it is empty; if one is not, all are opened again
    open     each, with the new number and a new buffer epoch, the first one last: broken off before, the command goes on
             where it was when it is run again
    the rest: partitions there were none of are laid out by the first program that starts with the new number

From the first close on saves are refused, and programs of the old number stay so. What keeps a buffer from
being emptied is told: rows that Postgres does not get, dead letters, replies in flight, and what Postgres had and lost
(models/pipeline/setback.py), which only the buffer still has.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from models.buffer.keys import SET_BACK, PartitionKeys
from models.buffer.scripts import call
from models.errors import StoreUnavailable
from models.pipeline.crew import Crew
from models.postgres.errors import SchemaError

_PAUSE_S: Final = 0.05
#: Conversations evicted between two looks at Postgres.
_CHUNK: Final = 100


class Repartitioned(NamedTuple):
    """``done``: the buffer has the new number. Else what is still in it: conversations, and of their rows those that are
    not in Postgres, in flight, dead letters. ``set_back``: Postgres lacks what it had committed, so nothing may leave.
    """

    done: bool
    conversations: int = 0
    dirty: int = 0
    open: int = 0
    dead: int = 0
    set_back: bool = False


def repartition(
    crew: Crew,
    partitions: int,
    *,
    within_s: float,
    progress: Callable[[int], None] = lambda conversations: None,
) -> Repartitioned:
    """Lay the buffer out with ``partitions`` partitions, or leave it as it was; tries for ``within_s`` seconds.
    ``progress`` is told the conversations left. Raises BufferUnavailable; broken off by it, run it again.
    """
    deadline_s = time.monotonic() + within_s
    while True:
        crew.drain(within_s=max(0.0, deadline_s - time.monotonic()))
        crew.settler.settle(crew.buffer.now_ms())
        set_back = not _evict_all(crew)
        left = _left(crew)._replace(set_back=set_back)
        progress(left.conversations)
        if not (left.conversations or left.dirty or left.dead) and _close_all(crew, partitions):
            break
        if time.monotonic() >= deadline_s:
            return left
        time.sleep(_PAUSE_S)
    epoch = secrets.token_hex(8)
    for keys in reversed(crew.buffer.partitions):
        if keys.number >= partitions:
            _step(crew, keys, "drop")
        else:
            _step(crew, keys, "open", partitions, epoch)
    return Repartitioned(done=True)


def _evict_all(crew: Crew) -> bool:
    """False: Postgres lacks what it had committed. While it is away nothing leaves either: it may come back without."""
    if crew.partitions.stands(SET_BACK):
        return False
    partitions = crew.buffer.partitions
    hot = [
        (partitions[number], uid) for number, uids in crew.partitions.conversations().items() for uid in uids
    ]
    for at in range(0, len(hot), _CHUNK):
        some = hot[at : at + _CHUNK]
        try:
            if crew.set_back.lacks(some):
                return False
        except (StoreUnavailable, SchemaError):
            return True
        for keys, uid in some:
            crew.buffer.evict(keys, uid, 0)
    return True


def _left(crew: Crew) -> Repartitioned:
    counts = crew.partitions.counts()
    return Repartitioned(
        done=False,
        conversations=sum(c.hot + c.blind for c in counts),
        dirty=sum(c.due + c.blind for c in counts),
        open=sum(c.open for c in counts),
        dead=sum(c.dead for c in counts),
    )


def _close_all(crew: Crew, partitions: int) -> bool:
    for keys in crew.buffer.partitions:
        if not _step(crew, keys, "close", partitions):
            for closed in crew.buffer.partitions[: keys.number]:
                _step(crew, closed, "open", len(crew.buffer.partitions))
            return False
    return True


def _step(crew: Crew, keys: PartitionKeys, step: str, partitions: int = 0, epoch: str = "") -> bool:
    key_list = [keys.meta, keys.epoch, keys.due, keys.open, keys.idle, keys.dead, keys.blind]
    return int(call(crew.buffer.client, "relay", key_list, [step, partitions, epoch], retries=1)) == 1
