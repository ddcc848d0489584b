"""`blotter sweep`: one sweep now."""

from __future__ import annotations

from pathlib import Path

import click

from models.core.wording import counted
from web.cli.options import data_option
from web.cli.session import crew, json_option, print_json


@click.command(epilog="Example: blotter sweep --json")
@json_option
@data_option
def command(as_json: bool, data: Path | None) -> None:
    """Run one sweep now, as beat does every second: ring for what is overdue, settle, evict, do the daily chores.

    Any number may run at once; where beat is dead, workers sweep by themselves.

    Exit code: 0 done, 2 the buffer does not answer.
    """
    with crew(data, rings=True) as made:
        done = made.sweeper.sweep()._asdict()
    if as_json:
        print_json(done)
    else:
        click.echo(
            f"rang for {counted(done['rung'], 'partition')}, settled {counted(done['settled'], 'item')}, "
            f"evicted {counted(done['evicted'], 'conversation')}, adopted {counted(done['adopted'], 'stray')}, "
            f"purged {counted(done['purged'], 'row')}",
            err=True,
        )
