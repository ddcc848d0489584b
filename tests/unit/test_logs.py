"""The log: one JSON document a line, and never an exception's message."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from models import logs

SECRET = "what the user wrote"


@pytest.fixture(autouse=True)
def data_layer() -> Iterator[None]:
    """Its handlers write where this test looks, and nowhere after it."""
    ours = logging.getLogger("blotter")
    handlers, level = ours.handlers, ours.level
    yield
    ours.handlers, ours.level = handlers, level


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    found = logging.getLogger()
    handlers, level = found.handlers, found.level
    yield found
    found.handlers, found.level = handlers, level
    logging.captureWarnings(capture=False)


def lines(err: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in err.splitlines()]


def test_a_line_has_its_fields_and_what_is_bound(
    root: logging.Logger, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    logs.install("INFO", lambda: {"partition": 3})
    logging.getLogger("blotter.flush").warning("partition %d pauses", 3)
    logging.getLogger("blotter.flush").debug("not told")
    (line,) = lines(capfdbinary.readouterr().err.decode())
    assert line.pop("timestamp")
    assert line == {
        "event": "partition 3 pauses",
        "level": "warning",
        "logger": "blotter.flush",
        "partition": 3,
    }


def test_an_exception_is_its_class_and_places(
    root: logging.Logger, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    logs.install("INFO")
    try:
        int(SECRET)
    except ValueError as error:
        logging.getLogger("blotter.flush").exception("a row could not be read")
        # As Celery tells of a task that raised (celery/app/trace.py).
        told = {
            "name": "blotter.flush",
            "id": "1",
            "description": "raised unexpected",
            "exc": repr(error),
            "traceback": SECRET,
        }
        logging.getLogger("celery.app.trace").exception(
            "Task %(name)s[%(id)s] %(description)s: %(exc)s", told
        )
        logging.getLogger("celery.app.trace").info("Task %(name)s[%(id)s] %(description)s: %(exc)s", told)
    err = capfdbinary.readouterr().err.decode()
    assert SECRET not in err
    ours, celerys, expected = lines(err)
    assert ours["error"] == celerys["error"] == "ValueError"
    assert "test_logs.py" in str(ours["places"])
    assert celerys["event"] == "Task blotter.flush[1] raised unexpected: ValueError"
    assert expected["event"] == "Task blotter.flush[1] raised unexpected: an exception"


def test_celery_logs_a_failed_task_without_its_message(
    root: logging.Logger, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Celery's own words, not our idea of them."""
    from celery import Celery

    logs.install("INFO")
    app = Celery("test", broker="memory://", set_as_current=False)

    @app.task(name="fails")
    def fails() -> None:
        raise ValueError(SECRET)

    fails.apply()
    err = capfdbinary.readouterr().err.decode()
    assert SECRET not in err
    assert any(line.get("error") == "ValueError" for line in lines(err))


def test_web_lines_of_the_data_layer_name_their_request(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    from flask import Flask

    from web import observe

    observe.logger("INFO")
    with Flask("test").test_request_context(headers={"X-Request-Id": "r1"}):
        logging.getLogger("blotter.read").warning("slow")
    logging.getLogger("blotter.read").warning("alone")
    first, second = lines(capfdbinary.readouterr().err.decode())
    assert first["request_id"] == "r1"
    assert "request_id" not in second
