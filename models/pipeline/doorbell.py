"""The doorbell: a Celery message, sent by name, that says only "partition N has work". A hint; the due index is the truth.

Used by web and workers alike, which never import each other: the task is known by its name, the broker by celeryconfig
(loaded by name as well, so that no arrow leads out of models). A message a save is forbidden: save.lua asks for a ring
at most once a partition until a flush begins, or five seconds passed.

Law: who rings never waits and never gets an exception. Ringing puts the number into a set and wakes one thread of the
process; that thread publishes (0.8 ms). A broker that is away costs that thread half a second, then nothing is tried for
five; what was rung for meanwhile is dropped, because the sweep, or a worker on its own, finds it by its lateness.

Rejected: publishing on the caller's thread under a lock (a dead broker costs one save half a second, and the others the
wait for the lock).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Final

from celery import Celery
from kombu.exceptions import KombuError

from models import tracing
from models.pipeline.brokers import celery_options, is_redis
from models.settings import Settings

log = logging.getLogger("blotter.doorbell")

FLUSH_TASK: Final = "blotter.flush"
#: The window in which what else becomes due joins the flush.
COUNTDOWN_S: Final = 0.2
#: An older bell tells nothing the sweep does not know. Generous, because sender and worker compare wall clocks.
EXPIRES_S: Final = 60
#: How long the publishing thread waits for a broker.
PATIENCE_S: Final = 0.5
#: Nothing is tried for this long after a broker did not answer.
SILENCE_S: Final = 5.0


class Doorbell:
    """Rings partitions. Thread-safe, and safe to carry over a fork: each process gets a thread of its own."""

    def __init__(self, settings: Settings, *, silence_s: float = SILENCE_S) -> None:
        self._silence_s = silence_s
        self._celery = Celery("blotter-doorbell", set_as_current=False)
        self._celery.config_from_object("celeryconfig")
        self._celery.conf.update(celery_options(settings, patience_s=PATIENCE_S, connect_s=PATIENCE_S))
        #: What the message carries. RabbitMQ delays by whole seconds, or has the worker hold what it delivered: there the
        #: thread waits before it sends.
        self._countdown_s = COUNTDOWN_S if is_redis(settings.celery_broker_url) else 0.0
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._state = threading.Condition()
        #: Partition -> headers of its message: the trace that rang.
        self._wanted: dict[int, dict[str, str]] = {}
        self._thread: threading.Thread | None = None
        self._silent_until_s = float("-inf")
        self._busy = self._closed = False
        #: Messages sent, and rings dropped because the broker was away.
        self.sent = self.dropped = 0

    def __call__(self, partition: int) -> None:
        """Ask for a flush of ``partition``, 0.2 s from now."""
        self.ring(partition)

    def ring(self, partition: int) -> None:
        """Ask for a flush of ``partition``, 0.2 s from now."""
        if self._pid != os.getpid():
            self._begin()
        with self._state:
            if self._closed or time.monotonic() < self._silent_until_s:
                self.dropped += 1
                return
            self._wanted[partition] = tracing.carried()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="blotter-doorbell", daemon=True)
                self._thread.start()
            self._state.notify_all()

    def close(self, within_s: float = 1.0) -> None:
        """Send what was rung for, waiting at most ``within_s``; ring no more."""
        if self._pid != os.getpid():
            return
        deadline = time.monotonic() + within_s
        with self._state:
            while (self._wanted or self._busy) and (left := deadline - time.monotonic()) > 0:
                self._state.wait(left)
            self._closed = True
            self._state.notify_all()

    def _run(self) -> None:
        while True:
            with self._state:
                if not self._wanted:
                    while not self._wanted:
                        if self._closed:
                            return
                        self._state.wait()
                    if not self._countdown_s:
                        self._state.wait_for(lambda: self._closed, COUNTDOWN_S)
                partition, headers = self._wanted.popitem()
                self._busy = True
            self._publish(partition, headers)
            with self._state:
                self._busy = False
                self._state.notify_all()

    def _publish(self, partition: int, headers: dict[str, str]) -> None:
        try:
            self._celery.send_task(
                FLUSH_TASK,
                args=(partition,),
                headers=headers,
                countdown=self._countdown_s or None,
                expires=EXPIRES_S,
                ignore_result=True,
            )
            self.sent += 1
        except Exception as error:  # noqa: BLE001 (kombu's transports raise their clients' own errors too)
            self._fall_silent(error)

    def _fall_silent(self, error: Exception) -> None:
        known = isinstance(error, (KombuError, OSError))
        log.warning("the broker does not answer (%s); the sweep rings instead", type(error).__name__)
        if not known:
            log.debug("unusual broker error", exc_info=error)
        with self._state:
            self._silent_until_s = time.monotonic() + self._silence_s
            self.dropped += 1 + len(self._wanted)
            self._wanted.clear()
