"""One hierarchy of errors; driver errors are translated into it once, at each edge (buffer, store).

Laws: every class maps to exactly one outcome (an HTTP status in web, a decision in the pipeline), and no message
carries chat text or secrets.
"""

from __future__ import annotations


class BlotterError(Exception):
    """Root of all errors this package raises on purpose."""


class SettingsError(BlotterError):
    """The environment does not describe a runnable Blotter; the message names the variable and the range."""


class BufferUnavailable(BlotterError):
    """The buffer did not answer, or its answer was lost: the outcome is unknown. 503 + Retry-After."""


class BufferSlow(BufferUnavailable):
    """The buffer did not answer in time: it is away, or busy with what it was asked."""


class BufferFull(BlotterError):
    """The buffer is above its share of maxmemory, or refused a write for memory: nothing was written. 503 + Retry-After."""


class BufferPolicyError(BlotterError):
    """The buffer's server would not keep what it acknowledges; the message names what to change."""


class StoreUnavailable(BlotterError):
    """Postgres did not answer, or a commit's outcome is unknown: retry. 503 + Retry-After where it reaches a caller."""


class RecordRejected(BlotterError):
    """Postgres will never take this record as it is (SQLSTATE 21/22/23/54, DataError, encoding): dead-letter it."""

    def __init__(self, sqlstate: str | None, reason: str) -> None:
        super().__init__(reason)
        self.sqlstate = sqlstate
        self.reason = reason


class Contention(BlotterError):
    """Another process moved the conversation under us five times in a row. 503 + Retry-After."""


class NotFound(BlotterError):
    """No such conversation or item of this owner. 404."""


class Gone(BlotterError):
    """The conversation or item was deleted; a tombstone stands. 410."""
