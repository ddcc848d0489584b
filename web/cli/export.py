"""`blotter export`: a conversation, or all of an owner, as JSON lines. See models/pipeline/export.py."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from models.core.wording import counted
from web.cli.errors import CannotRun
from web.cli.options import Owner, data_option
from web.cli.session import bar, crew, json_option, print_json


@click.command(epilog="Example: blotter export --owner ann -o ann.jsonl --json")
@click.option("--owner", type=Owner(), required=True, help="Whose conversations.")
@click.option(
    "--conversation",
    "ids",
    multiple=True,
    help="Only this one; may be repeated. Default: all of the owner's.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to this file, whole or not at all. Default: stdout.",
)
@json_option
@data_option
def command(owner: str, ids: tuple[str, ...], output: Path | None, as_json: bool, data: Path | None) -> None:
    """Write conversations as JSON lines: messages, tool results, artifacts with all their versions.

    Each conversation is one snapshot, what was acknowledged a moment ago included; deleted things are left out. Blotter may
    work meanwhile. `blotter backfill` puts the file back.

    Exit code: 0 written, 1 a conversation named is not there (the others are written), 2 the buffer or Postgres does not
    answer, or the file cannot be written.
    """
    if as_json and output is None:
        raise click.UsageError("--json reports on stdout: name a file with --output")
    with crew(data) as made:
        from models.pipeline.export import Exporter, Progress

        exporter = Exporter(made.buffer, made.store, made.adopter, lambda partition: None)
        chosen = list(dict.fromkeys(ids)) if ids else exporter.ids(owner)
        there: set[str] = set()

        with (
            target(output) as write,
            bar(len(chosen), "exporting", "conversations", quiet=as_json) as progress,
        ):

            def show(so_far: Progress) -> None:
                progress.update(1)

            done = exporter.export(
                owner, chosen, write, now_ms=made.buffer.now_ms(), progress=show, found=there.add
            )
    missing = [name for name in ids if name not in there]
    if as_json:
        print_json({**done._asdict(), "owner": owner, "file": str(output), "notFound": missing})
    else:
        click.echo(
            f"{counted(done.conversations, 'conversation')} in {counted(done.lines, 'line')}", err=True
        )
        for name in missing:
            click.echo(f"{owner} has no conversation {name}", err=True)
    if missing:
        raise click.exceptions.Exit(1)


@contextlib.contextmanager
def target(path: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Writes to stdout, or to ``path``, which is replaced when all is written, readable by its owner alone."""
    if path is None:
        out = sys.stdout.buffer
        yield out.write
        out.flush()
        return
    try:
        handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    except OSError as error:
        raise CannotRun(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CannotRun(f"{path} cannot be written: {error.strerror}") from None
        raise
