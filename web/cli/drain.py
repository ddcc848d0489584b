"""`blotter drain`: everything in the buffer goes to Postgres now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from models.core.wording import counted
from web.cli.options import data_option, timeout_option
from web.cli.session import bar, crew, json_option, print_json

if TYPE_CHECKING:
    from models.pipeline.drain import Drained


@click.command(epilog="Example: blotter drain --timeout 60 && pg_dump blotter")
@timeout_option(300.0, "Give up after this.")
@json_option
@data_option
def command(timeout_s: float, as_json: bool, data: Path | None) -> None:
    """Flush everything to Postgres now, open replies included, and wait until nothing is dirty.

    Stop web first, or saves that keep coming keep it busy. Dead letters are not waited for: they are told, and stay
    where they are (see `blotter dead`).

    Exit code: 0 nothing is dirty, 1 the time was up before, 2 the buffer does not answer.
    """
    with crew(data, rings=True) as made:
        first = made.standing()
        total, done = first.left, 0
        with bar(total, "draining", "rows", quiet=as_json) as progress:

            def show(drained: Drained) -> None:
                # What was saved meanwhile makes the bar longer, it never goes back.
                nonlocal total, done
                total = max(total, done + drained.left)
                progress.total = total
                progress.update(total - drained.left - done)
                done = total - drained.left

            last = made.drain(within_s=timeout_s, progress=show)
    if as_json:
        print_json({"done": last.done, "dirty": last.dirty, "blind": last.blind, "deadLetters": last.dead})
    else:
        click.echo(sentence(last), err=True)
    if not last.done:
        raise click.exceptions.Exit(1)


def sentence(drained: Drained) -> str:
    """Where it stands, and what to do."""
    said = "nothing is dirty: Postgres has everything"
    if not drained.done:
        left = [f"{counted(drained.dirty, 'row')} not in Postgres yet"] if drained.dirty else []
        left += [f"{counted(drained.blind, 'conversation')} without its base yet"] if drained.blind else []
        said = f"the time is up: {' and '.join(left)}; `blotter status` says why"
    elif drained.dead:
        said = "nothing else is dirty"
    if drained.dead:
        said += f"; {counted(drained.dead, 'dead letter')} left in the buffer: `blotter dead list` says why"
    return said
