"""What this web process acknowledged, added to the counters in the buffer every few seconds, for the graphs.

/metrics counts exactly and by itself. But its counts are this machine's, and nobody keeps how they were a minute ago; the
graphs need both from one place, whichever web process is asked, on whichever machine.

Law: a save never waits for it. It costs a lock and two additions; a timer's thread does the rest, and runs only while
there is something to tell. What cannot be told (no buffer) is dropped, as is what a process had in hand at its end.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from models.core.series import bucket_of
from models.errors import BlotterError
from models.pipeline.figures import ack_counters

EVERY_S: Final = 2.0


class Tally:
    """The counts of one process. Thread-safe; make no use of it before a fork."""

    def __init__(self, tell: Callable[[Mapping[str, int]], None], *, every_s: float = EVERY_S) -> None:
        """``tell``: adds to the buffer's counters; may raise BlotterError."""
        self._tell = tell
        self._every_s = every_s
        self._lock = threading.Lock()
        self._saves = 0
        self._acks: Counter[int] = Counter()
        self._timer: threading.Timer | None = None

    def add(self, saves: int, seconds: float | None) -> None:
        """An answer that acknowledged ``saves`` items took ``seconds``; None: its time tells nothing."""
        with self._lock:
            self._saves += saves
            if seconds is not None:
                self._acks[bucket_of(seconds)] += 1
            if self._timer is None:
                self._timer = threading.Timer(self._every_s, self.push)
                self._timer.daemon = True
                self._timer.start()

    def push(self) -> None:
        """Tell what there is."""
        with self._lock:
            saves, acks = self._saves, self._acks
            self._saves, self._acks, self._timer = 0, Counter(), None
        try:
            self._tell(ack_counters(saves, acks))
        except BlotterError:
            return  # graphs only: nobody is told, and nothing is said twice
