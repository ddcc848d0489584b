"""A command's session with a Blotter that runs: its buffer and its store, put together as workers have them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import SettingsError
from web.cli.options import SERVERS, Stack, locate

if TYPE_CHECKING:
    from tqdm import tqdm

    from models.pipeline.crew import Crew
    from models.settings import Settings


@contextlib.contextmanager
def crew(data: Path | None, *, rings: bool = False, tells: bool = True) -> Iterator[Crew]:
    """What a worker has, on the servers that `data` or the environment name. ``rings``: doorbells are sent, else not.
    ``tells``: says on stderr which servers, unless `data` does.

    The number of partitions is the buffer's own, should the environment not know it. Raises CannotRun and the errors of
    models.errors.
    """
    stack = locate(data, *SERVERS)
    settings = load_settings(stack)
    if tells and data is None:
        stack.tell()
    # After the arguments were understood: Celery and SQLAlchemy take a while to import.
    from models.buffer.buffer import Buffer
    from models.pipeline.crew import Crew
    from models.postgres.store import Store

    buffer = Buffer.connect(settings, connections=4)
    if (partitions := buffer.laid_out()) not in (None, settings.partitions):
        buffer.close()
        settings = settings.model_copy(update={"partitions": partitions})
        buffer = Buffer.connect(settings, connections=4)
    with contextlib.ExitStack() as closing:
        ring: Callable[[int], None] = lambda partition: None  # noqa: E731
        if rings:
            from models.pipeline.doorbell import Doorbell

            doorbell = Doorbell(settings)
            closing.callback(doorbell.close)
            ring = doorbell.ring
        made = Crew(buffer, Store.open(settings, role="worker"), ring)
        closing.callback(made.close)
        yield made


def load_settings(stack: Stack) -> Settings:
    """The settings that describe it. Raises SettingsError, which says where the wrong one was found."""
    from models.settings import load

    try:
        return load(stack.environ)
    except SettingsError as error:
        raise SettingsError(f"{error} (as found in {stack})") from None


def bar(total: int, what: str, unit: str, *, quiet: bool = False) -> tqdm[Any]:
    """A progress bar with the time left, on stderr where that is a terminal; nothing in pipes, logs, and when ``quiet``."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=what,
        unit=f" {unit}",
        file=sys.stderr,
        disable=quiet or not sys.stderr.isatty(),
        dynamic_ncols=True,
    )


def print_json(document: object) -> None:
    """One document on stdout."""
    import orjson

    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def print_line(document: object) -> None:
    """One of many documents on stdout, each a line, at once."""
    import orjson

    click.echo(orjson.dumps(document).decode())


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--json` (argument `as_json`)."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)
