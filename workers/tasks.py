"""The tasks, by the names others send them by."""

from __future__ import annotations

from structlog.contextvars import bound_contextvars

from workers.app import app, process


@app.task(name="blotter.flush")
def flush(partition: int) -> None:
    """Partition ``partition`` has work."""
    with bound_contextvars(partition=partition):
        process.crew().flusher.flush(partition)


@app.task(name="blotter.sweep")
def sweep() -> None:
    """Beat's tick."""
    process.crew().sweeper.sweep(for_beat=True)
