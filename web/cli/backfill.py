"""`blotter backfill`: an export back into Blotter. See models/pipeline/backfill.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from models.core.wording import counted
from web.cli.errors import CannotRun
from web.cli.options import Owner, data_option
from web.cli.session import bar, crew, json_option, print_json

if TYPE_CHECKING:
    from models.pipeline.backfill import Backfilled, Checked


@click.command(epilog="Example: blotter backfill ann.jsonl")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--owner", type=Owner(), help="Whose the conversations become. Default: the owner whom the file names."
)
@click.option(
    "--check", "only_check", is_flag=True, help="Read the file, say what is wrong with it, write nothing."
)
@json_option
@data_option
def command(file: Path, owner: str | None, only_check: bool, as_json: bool, data: Path | None) -> None:
    """Put an export back: rows with their versions and times, as they were.

    The whole file is checked first: with one bad line nothing is written. Twice changes nothing; what is there in the same
    or a newer version stays; a conversation that was deleted stays deleted. Blotter may work meanwhile.

    Exit code: 0 all of it is there now, 1 the file has bad lines, or something was left out (each is named), 2 the buffer or
    Postgres does not answer.
    """
    from models.pipeline.backfill import Backfiller, check

    try:
        checked = check(file, owner)
    except OSError as error:
        raise CannotRun(f"{file} cannot be read: {error.strerror}") from None
    if checked.bad or only_check:
        tell(file, checked, None, as_json)
        raise click.exceptions.Exit(1 if checked.bad else 0)
    with (
        crew(data) as made,
        bar(checked.conversations, "backfilling", "conversations", quiet=as_json) as progress,
    ):
        backfiller = Backfiller(made.buffer, made.partitions, made.store, made.adopter)
        done = backfiller.backfill(file, checked.owner, lambda so_far: progress.update(1))
    tell(file, checked, done, as_json)
    if done.deleted or done.rejected:
        raise click.exceptions.Exit(1)


def tell(file: Path, checked: Checked, done: Backfilled | None, as_json: bool) -> None:
    """What was found, and what was done."""
    if as_json:
        print_json({
            "file": str(file),
            "owner": checked.owner,
            "conversations": checked.conversations,
            "lines": checked.lines,
            "badLines": checked.bad_lines,
            "bad": [{"line": number, "reason": what} for number, what in checked.bad],
            "written": done.written if done else 0,
            "unchanged": done.unchanged if done else 0,
            "newer": done.newer if done else 0,
            "deleted": list(done.deleted) if done else [],
            "rejected": [{"conversation": name, "reason": why} for name, why in done.rejected] if done else [],
        })  # fmt: skip
        return
    for number, what in checked.bad:
        click.echo(f"{file}, line {number}: {what}", err=True)
    if checked.bad:
        click.echo(f"{counted(checked.bad_lines, 'bad line')}: nothing was written", err=True)
    elif done is None:
        click.echo(
            f"{counted(checked.conversations, 'conversation')} in {counted(checked.lines, 'line')}: all is right",
            err=True,
        )
    else:
        for name in done.deleted:
            click.echo(f"conversation {name} was deleted here: left alone", err=True)
        for name, why in done.rejected:
            click.echo(f"conversation {name} is incomplete: Postgres refuses a row ({why})", err=True)
        click.echo(
            f"{counted(done.conversations, 'conversation')} of {checked.owner}: {counted(done.written, 'row')} written, "
            f"{done.unchanged:,} there already, {done.newer:,} newer here",
            err=True,
        )
