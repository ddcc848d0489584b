"""Which messages of a conversation a reader sees: branches and windows, decided on ids and positions alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Node(NamedTuple):
    """A living message."""

    id: str
    position: str
    parent_id: str | None


class Window(NamedTuple):
    """Chosen messages in order; ``more``: there are earlier ones."""

    ids: tuple[str, ...]
    more: bool


def window(
    nodes: Iterable[Node], *, head_id: str | None, branches: bool, limit: int, before: str | None
) -> Window:
    """The last ``limit`` messages before position ``before``, on the path to ``head_id`` unless ``branches``.

    A head that is not there (deleted, or not yet arrived) hides nothing.
    """
    ordered = sorted(nodes, key=lambda node: (node.position, node.id))
    if head_id is not None and not branches:
        ordered = path(ordered, head_id)
    if before is not None:
        ordered = [node for node in ordered if node.position < before]
    return Window(tuple(node.id for node in ordered[-limit:]), len(ordered) > limit)


def path(ordered: Sequence[Node], head_id: str) -> list[Node]:
    """The messages from the root to ``head_id``, in order of position; all of them where the head is unknown."""
    by_id = {node.id: node for node in ordered}
    if head_id not in by_id:
        return list(ordered)
    chosen: set[str] = set()
    at: str | None = head_id
    while at is not None and at in by_id and at not in chosen:
        chosen.add(at)
        at = by_id[at].parent_id
    return [node for node in ordered if node.id in chosen]


def place_before_known(order: Sequence[str], known: dict[str, str]) -> dict[str, str]:
    """Positions for the messages of a sync that are new and stand before a known one.

    ``order``: message ids as sent; ``known``: id -> position of every message there is, tombstones included. A new
    message goes directly before the next known one that was sent; new ones at the end get none (the script stamps them).
    """
    taken = sorted(known.values())
    placed: dict[str, str] = {}
    run: list[str] = []
    for item_id in order:
        if item_id not in known:
            if item_id not in placed and item_id not in run:
                run.append(item_id)
        elif run:
            right = known[item_id]
            at = bisect_left(taken, right)
            _spread(run, taken[at - 1] if at else "", right, placed)
            taken[at:at] = [placed[new] for new in run]
            run = []
    return placed


def _spread(run: Sequence[str], left: str, right: str, placed: dict[str, str]) -> None:
    """Positions for ``run`` between two others, halving, so that texts grow with the logarithm of its length."""
    if not run:
        return
    middle = len(run) // 2
    placed[run[middle]] = position = between(left, right)
    _spread(run[:middle], left, position, placed)
    _spread(run[middle + 1 :], position, right, placed)


def between(left: str, right: str) -> str:
    """A text that sorts bytewise after ``left`` ("" for the beginning) and before ``right``, not ending in "0".

    Fractional indexing over base 62, as in Figma's ordered lists (Evan Wallace, "Realtime editing of ordered sequences",
    2017): texts are read as the digits of a fraction. ``left`` < ``right``; ``right`` holds a digit above "0".
    """
    prefix = ""
    index = 0
    while True:
        low = _DIGITS.index(left[index]) if index < len(left) else 0
        high = _DIGITS.index(right[index]) if index < len(right) else len(_DIGITS)
        if high - low > 1:
            return prefix + _DIGITS[(low + high) // 2]
        prefix += _DIGITS[low]
        if high > low:
            # One apart: what follows only has to be above the rest of left.
            return prefix + _above(left[index + 1 :])
        index += 1


def _above(rest: str) -> str:
    """The shortest digits that sort after ``rest``."""
    out = ""
    for digit in rest:
        value = _DIGITS.index(digit)
        if value < len(_DIGITS) - 1:
            return out + _DIGITS[(value + len(_DIGITS)) // 2 if value < len(_DIGITS) - 2 else value + 1]
        out += digit
    return out + _DIGITS[len(_DIGITS) // 2]
