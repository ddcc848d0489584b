"""`blotter up`: everything on this machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

from web.cli.errors import CannotRun
from web.cli.folder import Folder, default_folder
from web.cli.options import folder_option


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port of the HTTP API. Default: 8400, or the next free one.",
)
@folder_option
@click.option(
    "--workers", type=click.IntRange(1, 256), help="Processes that write to PostgreSQL. Default: 2."
)
def command(port: int | None, data: Path | None, workers: int | None) -> None:
    """Run Blotter on this machine: servers, web, worker, beat.

    Starts a private PostgreSQL and two private Valkeys, unless DATABASE_URL, REDIS_URL or CELERY_BROKER_URL name
    servers of your own. When everything answers, DIR/env holds the addresses. Ctrl-C stops everything in order.
    """
    from web.cli.run import Wishes, run

    folder = Folder(data.absolute() if data else default_folder(os.environ))
    try:
        run(Wishes(folder, port, workers, dict(os.environ)), say)
    except OSError as error:
        raise CannotRun(f"{error.filename or folder.root} cannot be used ({error.strerror})") from error


def say(text: str) -> None:
    """A line for the operator. A terminal that was closed must not keep us from stopping in order."""
    with contextlib.suppress(OSError):
        click.echo(f"blotter: {text}", err=True)
