"""The Celery app: `celery -A workers.app worker`, `celery -A workers.app beat`.

The life of a worker: the parent checks the buffer's policy and refuses to start on one that keeps nothing; it never
holds a connection of ours, because its children are forked from it. Each child makes its crew at its first task, or at
its start, patrols (models/pipeline/patrol.py), and on its end finishes the batch at hand and releases the partition.
"""

from __future__ import annotations

import logging
import threading
import warnings
from typing import Any

import structlog
from celery import Celery, signals
from celery.exceptions import SecurityWarning

from models import logs, tracing
from models.errors import BufferPolicyError, BufferUnavailable
from models.pipeline.crew import Crew, check_buffer
from models.pipeline.doorbell import Doorbell
from models.settings import current

log = logging.getLogger("blotter.worker")

# Said to root because of pickle, which celeryconfig.py does not accept.
warnings.filterwarnings("ignore", category=SecurityWarning)

app = Celery("blotter")
app.config_from_object("celeryconfig")


class _Process:
    """What this process works with, made on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._crew: Crew | None = None
        self._doorbell: Doorbell | None = None
        self.stopping = threading.Event()

    def crew(self) -> Crew:
        with self._lock:
            if self._crew is None:
                settings = current()
                tracing.start(settings, "worker")
                self._doorbell = Doorbell(settings)
                self._crew = Crew.connect(
                    settings, role="worker", ring=self._doorbell.ring, stopping=self.stopping.is_set
                )
                self._crew.patrol.start()
            return self._crew

    def close(self) -> None:
        self.stopping.set()
        with self._lock:
            crew, doorbell = self._crew, self._doorbell
            self._crew = self._doorbell = None
        if crew is not None:
            crew.patrol.stop()
        if doorbell is not None:
            doorbell.close()
        if crew is not None:
            crew.close()
        tracing.stop()


process = _Process()


@signals.setup_logging.connect
def _log(**_: Any) -> None:
    """Of worker and beat. Celery's line for each message received and done says nothing that figures do not."""
    level = current().log_level
    logs.install(level, _bound)
    for name in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


def _bound() -> dict[str, object]:
    trace = tracing.trace_id()
    return {**structlog.contextvars.get_contextvars(), **({"trace": trace} if trace else {})}


@signals.worker_init.connect
def _check(**_: Any) -> None:
    try:
        check_buffer(current())
    except BufferPolicyError as error:
        raise SystemExit(f"blotter: worker refuses to start: {error}") from None
    except BufferUnavailable as error:
        # Nothing can be lost by a worker that waits; the sweep checks again each minute.
        log.warning("the buffer is not there yet: %s", error)


@signals.worker_process_init.connect
def _open(**_: Any) -> None:
    process.crew()


@signals.worker_process_shutdown.connect
def _close(**_: Any) -> None:
    process.close()
