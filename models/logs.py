"""The log of every program: one JSON document a line, on standard error.

Laws: no line holds chat text, a token or a key. An exception is logged as its class and the places it came through, never
by its message, which may quote what was saved; so is one that a library reports. What a library says in its own words
is kept, for it has not seen any text: bodies go through our code, the drivers and nothing else.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
import structlog

#: Places of an exception that are told: those nearest to where it arose.
_PLACES: Final = 12


def logger(level: str, bound: Callable[[], Mapping[str, object]] = dict) -> Any:
    """A logger that writes one JSON document a line; the data layer's log goes the same way.

    ``bound``: what else a line of the data layer carries, of the request or task at hand.
    """
    made = _writer(level)
    data_layer = logging.getLogger("blotter")
    data_layer.setLevel(level)
    data_layer.handlers = [_Forward(made, bound)]
    return made


def handler() -> logging.Handler:
    """For the server's own few lines: see web/granian-log.json."""
    return _Forward(_writer("DEBUG"), dict)


def install(level: str, bound: Callable[[], Mapping[str, object]] = dict) -> None:
    """All that this program and its libraries log goes out as `logger` says."""
    root = logging.getLogger()
    root.setLevel(level)
    root.handlers = [_Forward(_writer(level), bound)]
    logging.captureWarnings(capture=True)


def fault(error: BaseException) -> dict[str, object]:
    """An exception as fields of a line: class and places."""
    places = [
        f"{place.filename}:{place.lineno} {place.name}" for place in traceback.extract_tb(error.__traceback__)
    ]
    return {"error": type(error).__name__, "places": places[-_PLACES:]}


def _writer(level: str) -> Any:
    return structlog.wrap_logger(
        structlog.BytesLogger(sys.stderr.buffer),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=lambda value, **_: orjson.dumps(value)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        cache_logger_on_first_use=True,
    )


class _Forward(logging.Handler):
    """Hands records of Python's own logging on."""

    def __init__(self, log: Any, bound: Callable[[], Mapping[str, object]]) -> None:
        super().__init__()
        self._log = log
        self._bound = bound

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"logger": record.name, **self._bound()}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields |= fault(error)
        write = getattr(self._log, record.levelname.lower(), self._log.error)
        write(_message(record, error), **fields)


def _message(record: logging.LogRecord, error: BaseException | None) -> str:
    """The record's text. Celery puts an exception's message into its arguments: there it is its class instead."""
    if isinstance(record.args, Mapping) and "exc" in record.args:
        name = "an exception" if error is None else type(error).__name__
        return str(record.msg) % {**record.args, "exc": name}
    return record.getMessage()
