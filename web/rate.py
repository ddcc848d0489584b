"""How many requests one owner may make a minute, and how many bytes send, in each web process: beyond it 429, never a
dropped save.

A sliding window of two counters (Cloudflare's approximation): last minute's count, weighted by how much of it still lies
within the last 60 s, plus this minute's. No burst of twice the limit fits around the turn of a minute. The counters of
all owners turn together, so memory is bounded by who called within two minutes, without a timer.

The bytes bound how fast one owner can fill the buffer that all share; what is stored leaves it again, so that bounds what
lies there, too. Rejected: a count of the bytes that an owner has in the buffer. His conversations lie in all partitions, so
the count would have a slot of its own, and every save, acknowledgement and eviction a round trip more, or it drifts.

Rejected: the library `limits` (5.8). Its in-memory storage starts a thread that walks through all keys every 10 ms
while requests come in.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from web.problems import Problem

WINDOW_S: Final = 60


class OwnerRate:
    """Counts owners' requests, or what ``unit`` names; ``per_minute`` 0: no limit. Threads share one."""

    def __init__(
        self, per_minute: int, clock: Callable[[], float] = time.monotonic, unit: str = "requests"
    ) -> None:
        self._limit = per_minute
        self._unit = unit
        self._clock = clock
        self._window = 0
        self._last: dict[str, int] = {}
        self._this: dict[str, int] = {}
        self._lock = threading.Lock()

    def spend(self, owner: str, amount: int = 1) -> None:
        """Count ``amount`` for ``owner``. Raises Problem: rate-limited, with Retry-After; such a one is not counted.

        The last that is let through may go beyond the limit: what is larger than all of it would never fit else.
        """
        if not self._limit:
            return
        window, within = divmod(self._clock(), WINDOW_S)
        with self._lock:
            if window != self._window:
                self._last = self._this if window == self._window + 1 else {}
                self._this = {}
                self._window = int(window)
            spent, before = self._this.get(owner, 0), self._last.get(owner, 0)
            if spent + before * (1 - within / WINDOW_S) < self._limit:
                self._this[owner] = spent + amount
                return
        raise Problem(
            "rate-limited",
            f"More than {self._limit} {self._unit} in a minute.",
            headers={"Retry-After": str(self._wait_s(spent, before, within))},
            limit=self._limit,
        )

    def _wait_s(self, spent: int, before: int, within: float) -> int:
        """Seconds until one more fits, at least 1: last minute's weight has to sink, or this minute has to end."""
        if spent < self._limit:
            return max(1, math.ceil(WINDOW_S * (1 - (self._limit - spent) / before) - within))
        return math.ceil(WINDOW_S - within + WINDOW_S * (1 - self._limit / spent)) + 1
