"""The tasks, by the names others send them by."""

from __future__ import annotations

from celery import Task
from structlog.contextvars import bound_contextvars

from models import tracing
from workers.app import app, process


@app.task(name="blotter.flush", bind=True)
def flush(self: Task[[int], None], partition: int) -> None:
    """Partition ``partition`` has work."""
    rang = self.request.headers or {}
    with (
        bound_contextvars(partition=partition),
        tracing.span("blotter.flush", kind="consumer", carrier=rang, partition=partition),
    ):
        process.crew().flusher.flush(partition)


@app.task(name="blotter.sweep")
def sweep() -> None:
    """Beat's tick."""
    process.crew().sweeper.sweep(for_beat=True)
