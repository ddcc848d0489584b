"""`Prefer: wait=N` (RFC 7240): hold the answer until the save is stored, or N seconds passed.

Law: waiting never starves saving. At most a quarter of a process's threads wait; who comes then is answered at once.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MAX_WAIT_S: Final = 10
_WAIT = re.compile(r'\s*wait\s*=\s*"?([0-9]{1,6})"?\s*(?:;.*)?', re.IGNORECASE | re.ASCII)


def wait_asked(prefer: str | None) -> int:
    """Milliseconds asked for, at most 10 s; 0 where nothing valid was (a preference may be ignored, RFC 7240, 2)."""
    if prefer is None:
        return 0
    for preference in prefer.split(","):
        match = _WAIT.fullmatch(preference)
        if match is not None:
            return min(int(match[1]), MAX_WAIT_S) * 1000
    return 0


class Waiters:
    """The places for threads that wait."""

    def __init__(self, places: int) -> None:
        self._free = threading.Semaphore(places)

    @contextmanager
    def place(self) -> Iterator[bool]:
        """True if there was a place; it is free again afterwards. Never blocks."""
        taken = self._free.acquire(blocking=False)
        try:
            yield taken
        finally:
            if taken:
                self._free.release()
