"""A command's session with a Blotter that runs: its buffer and its store, put together as workers have them.

Exit codes of the commands that use it: 0 all is well, 1 what was asked for did not come true (each command's help says
what that means), 2 it could not be asked: no Blotter there, the buffer or Postgres does not answer, wrong usage.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import BlotterError
from web.cli.errors import CannotRun
from web.cli.options import context

if TYPE_CHECKING:
    from tqdm import tqdm

    from models.pipeline.crew import Crew
    from models.settings import Settings


class CannotAsk(click.ClickException):
    """One sentence, exit code 2."""

    exit_code = 2


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Whatever keeps Blotter from answering ends the command with its sentence and exit code 2."""
    try:
        yield
    except (CannotRun, BlotterError) as error:
        raise CannotAsk(str(error)) from None


@contextlib.contextmanager
def crew(data: Path | None, *, rings: bool = False) -> Iterator[Crew]:
    """What a worker has, on the servers that `data` or the environment name. ``rings``: doorbells are sent, else not.

    The number of partitions is the buffer's own, should the environment not know it.
    """
    with asking():
        settings = load_settings(context(data, "REDIS_URL"))
        # After the arguments were understood: Celery and SQLAlchemy take a while to import.
        from models.buffer.buffer import Buffer
        from models.pipeline.crew import Crew
        from models.postgres.store import Store

        buffer = Buffer.connect(settings, connections=4)
        if (partitions := buffer.laid_out()) not in (None, settings.partitions):
            buffer.close()
            settings = settings.model_copy(update={"partitions": partitions})
            buffer = Buffer.connect(settings, connections=4)
        with contextlib.ExitStack() as stack:
            ring: Callable[[int], None] = lambda partition: None  # noqa: E731
            if rings:
                from models.pipeline.doorbell import Doorbell

                doorbell = Doorbell(settings)
                stack.callback(doorbell.close)
                ring = doorbell.ring
            made = Crew(buffer, Store.open(settings, role="worker"), ring)
            stack.callback(made.close)
            yield made


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings that `environ` describes. Raises SettingsError."""
    from models.settings import load

    return load(environ)


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


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--json` (argument `as_json`)."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)
