"""What a flush decides: who goes into a transaction with whom, what an answer of the store means, where to cut.

A row the store rejects is found by halving: with k culprits among n rows that is at most about 2·k·log2(n) transactions,
and everybody else is committed on the way. A row that kills the worker cannot be found so, because nobody survives to
halve: `trial` counts how often a transaction with it began and never came to an end, or the buffer could not read it in
time. After GROUP_TRIES such ends its rows go one by one; a row that ends the flush ALONE_TRIES times alone is set aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeVar

T = TypeVar("T")

#: Rows of one transaction, at most.
BATCH_ROWS: Final = 256
#: Bytes of one transaction, at most; a larger row goes alone.
BATCH_BYTES: Final = 1024 * 1024
#: Transactions that may end the worker before their rows go one by one.
GROUP_TRIES: Final = 3
#: How often a row alone may end the worker before it is set aside.
ALONE_TRIES: Final = 3


class Trial(NamedTuple):
    """Refs by how they are to be tried."""

    together: tuple[str, ...]
    alone: tuple[str, ...]
    dead: tuple[str, ...]


def plan_trial(refs: Sequence[str], begun: Mapping[str, int]) -> Trial:
    """``begun``: transactions begun with a ref and never ended (absent: none). Those without suspicion come first."""
    together, alone, dead = [], [], []
    for ref in refs:
        count = begun.get(ref, 0)
        if count < GROUP_TRIES:
            together.append(ref)
        elif count < GROUP_TRIES + ALONE_TRIES:
            alone.append(ref)
        else:
            dead.append(ref)
    return Trial(tuple(together), tuple(alone), tuple(dead))


def halves(rows: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """``rows`` (two at least) cut in the middle."""
    middle = len(rows) // 2
    return rows[:middle], rows[middle:]


Verdict = Literal["committed", "newer", "again"]


def verdict(kind: str, ours: int, stored: int | None) -> Verdict:
    """What it means that the store, after our transaction, holds version ``stored`` of a row we sent at ``ours``.

    newer: fenced out. Either another flusher was ahead of us, or the buffer was rolled back: the buffer itself tells
    which; "committed" would be wrong, for then readers would keep the older row. again: it is not there (purged at that
    very moment), so it stays dirty. Artifact versions are immutable: being there is all there is to them.
    """
    if stored is None:
        return "again"
    if kind == "v" or stored == ours:
        return "committed"
    return "newer" if stored > ours else "again"
