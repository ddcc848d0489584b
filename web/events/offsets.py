"""Offsets and cursors: where a reader stands, as the protocol's opaque, sortable texts.

An offset is the conversation's version and, behind it, how many items at or below it are not yet committed, counted down
from 99999: a commit moves the offset on as a change does, so that `stored` can be resumed as well. The version alone is
an offset too ("I have read the conversation at this version").
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from web.problems import Problem

_OFFSET: Final = re.compile(r"([0-9]{1,16})(?:_([0-9]{5}))?", re.ASCII)
_CURSOR: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_REST: Final = 99_999
#: Cursors count intervals of this length from the protocol's epoch, 2024-10-09 00:00 UTC.
_INTERVAL_S: Final = 20
_CURSOR_EPOCH_S: Final = 1_728_432_000


class Position(NamedTuple):
    """``unstored``: items at or below ``version`` that are not committed; None: the reader does not know."""

    version: int
    unstored: int | None = None

    def __str__(self) -> str:
        if self.unstored is None:
            return f"{self.version:016d}"
        return f"{self.version:016d}_{_REST - min(self.unstored, _REST):05d}"


START: Final = Position(0)


def parse_offset(text: str | None) -> Position | Literal["now"]:
    """The position that ``text`` names; absent and "-1" are the beginning. Raises Problem (400)."""
    if text is None or text == "-1":
        return START
    if text == "now":
        return "now"
    match = _OFFSET.fullmatch(text)
    if match is None:
        raise Problem("malformed", "offset must be -1, now, or an offset that an answer gave.")
    rest = match[2]
    return Position(int(match[1]), None if rest is None else _REST - int(rest))


def next_cursor(given: str | None, now_s: float, jitter: int) -> str:
    """The cursor to hand out at ``now_s`` (Unix time): the interval's number, always above ``given``.

    ``jitter``: 1 … 3600, random, so that readers with one cursor do not stay together.
    """
    current = int(now_s - _CURSOR_EPOCH_S) // _INTERVAL_S
    if given is not None and _CURSOR.fullmatch(given) and int(given) >= current:
        return str(int(given) + jitter)
    return str(current)
