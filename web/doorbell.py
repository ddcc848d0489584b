"""The doorbell: a Celery message that says only that a partition has work. A hint, sent by name.

Law: a save waits for the broker at most half a second, and at most once in five per process. The due index is the
truth; a bell that was not rung costs the second until beat's sweep, nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from celery import Celery
from kombu.exceptions import KombuError

from models.settings import Settings

FLUSH_TASK: Final = "blotter.flush"
COUNTDOWN_S: Final = 0.2
#: An older bell tells nothing that the sweep does not know.
EXPIRES_S: Final = 60
SILENCE_S: Final = 5.0
#: Sending takes a millisecond; who waits longer for the turn waits for a dead broker.
_TURN_S: Final = 0.05


class Doorbell:
    """Rings partitions. Threads share one; it never raises for a broker that is away."""

    def __init__(self, settings: Settings, log: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._celery = Celery("blotter", broker=settings.celery_broker_url, set_as_current=False)
        self._celery.config_from_object("celeryconfig")
        self._log = log
        self._clock = clock
        self._silent_until = float("-inf")
        self._turn = threading.Lock()

    def __call__(self, partition: int) -> None:
        """Ask for a flush of ``partition``, 0.2 s from now."""
        if self._clock() < self._silent_until or not self._turn.acquire(timeout=_TURN_S):
            return
        try:
            self._celery.send_task(
                FLUSH_TASK, args=(partition,), countdown=COUNTDOWN_S, expires=EXPIRES_S, ignore_result=True
            )
        except (KombuError, OSError) as error:
            self._silent_until = self._clock() + SILENCE_S
            self._log.warning("the broker does not answer", error=type(error).__name__)
        finally:
            self._turn.release()
