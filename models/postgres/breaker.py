"""A circuit breaker: after a failure nobody waits for the same one again for a while.

One a process and store. Closed, it lets all calls through. A failure opens it: calls are refused at once for ``open_ms``,
then exactly one goes through as a probe, whose outcome closes it or opens it again. A probe that never reports (its
thread died) is given up after another ``open_ms``.

Thread-safe; time is an argument, in milliseconds of any steady clock.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

OPEN_MS: Final = 1000


class Breaker:
    def __init__(self, open_ms: int = OPEN_MS) -> None:
        self._open_ms = open_ms
        self._lock = Lock()
        #: Nobody passes before this; None: closed.
        self._opens_again_ms: int | None = None

    def allow(self, now_ms: int) -> bool:
        """True: call, and report the outcome with `succeeded` or `failed`. False: don't."""
        with self._lock:
            if self._opens_again_ms is None:
                return True
            if now_ms < self._opens_again_ms:
                return False
            # This caller is the probe: the others wait for what it says.
            self._opens_again_ms = now_ms + self._open_ms
            return True

    def succeeded(self) -> None:
        """A call came back with an answer (an error is one too): close."""
        with self._lock:
            self._opens_again_ms = None

    def failed(self, now_ms: int) -> None:
        """A call found nobody: open for ``open_ms`` from ``now_ms``."""
        with self._lock:
            self._opens_again_ms = now_ms + self._open_ms

    @property
    def is_open(self) -> bool:
        """True after a failure, until a call succeeds."""
        return self._opens_again_ms is not None
