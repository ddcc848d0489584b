"""`blotter repartition`: the buffer gets another number of partitions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from models.core.wording import counted
from web.cli.options import data_option, timeout_option
from web.cli.session import crew, json_option, print_json

if TYPE_CHECKING:
    from models.pipeline.repartition import Repartitioned


@click.command(epilog="Example: blotter repartition 64, then start everything with BLOTTER_PARTITIONS=64")
@click.argument("partitions", type=click.IntRange(1, 1024))
@click.option("--yes", is_flag=True, help="Do not ask, though workers still run: saves get 503 from then on.")
@timeout_option(300.0, "Give up after this; the buffer is as it was then.")
@json_option
@data_option
def command(partitions: int, yes: bool, timeout_s: float, as_json: bool, data: Path | None) -> None:
    """Empty the buffer into Postgres and lay it out with PARTITIONS partitions.

    Stop web, workers, beat and events first, and start them with BLOTTER_PARTITIONS set to the new number. Programs that
    still run with the old one are refused from then on: their saves get 503. So while workers run it asks first. Dead
    letters, and replies in flight, keep a buffer from being emptied: replay or purge the first, wait until the others are
    complete or settled.

    Exit code: 0 the buffer has this number, 1 it could not be emptied in time, or you said no, and it is as it was,
    2 the buffer does not answer.
    """
    with crew(data) as made:
        before = made.buffer.laid_out()
        if before is None:
            made.buffer.initialise()
        if not yes and (workers := made.partitions.workers(made.buffer.now_ms())):
            click.echo(f"{counted(len(workers), 'worker')} still at work here", err=True)
            click.confirm("Saves get 503 until all is started anew. Go on?", abort=True, err=True)
        from models.pipeline.repartition import repartition

        result = repartition(made, partitions, within_s=timeout_s)
    if as_json:
        print_json({"partitions": partitions if result.done else before, **result._asdict()})
    else:
        click.echo(sentence(partitions, result), err=True)
    if not result.done:
        raise click.exceptions.Exit(1)


def sentence(partitions: int, result: Repartitioned) -> str:
    """What came of it, and what to do."""
    if result.done:
        return f"the buffer has {counted(partitions, 'partition')}: start everything with BLOTTER_PARTITIONS={partitions}"
    left = [f"{counted(result.conversations, 'conversation')}"]
    left += (
        [f"{counted(result.dirty, 'row')} not in Postgres yet (`blotter status` says why)"]
        if result.dirty
        else []
    )
    left += (
        ["Postgres lacks what it had committed (`blotter verify --repair` first)"] if result.set_back else []
    )
    left += (
        [f"{counted(result.open, 'item')} in flight (wait until they are complete, or settled)"]
        if result.open
        else []
    )
    left += (
        [f"{counted(result.dead, 'dead letter')} (`blotter dead replay` or `purge`)"] if result.dead else []
    )
    return f"the buffer is as it was, for it is not empty: {', '.join(left)}"
