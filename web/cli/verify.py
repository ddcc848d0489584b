"""`blotter verify`: the buffer against itself and against Postgres. See models/pipeline/verify.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.core.wording import counted
from web.cli.options import data_option
from web.cli.session import bar, crew, json_option, print_json

if TYPE_CHECKING:
    from models.pipeline.verify import Found


@click.command(epilog="Example: blotter verify --repair --json")
@click.option("--repair", is_flag=True, help="Put right what is wrong, then look again.")
@json_option
@data_option
def command(repair: bool, as_json: bool, data: Path | None) -> None:
    """Compare everything in the buffer with Postgres, row by row, and its counters and indexes with its rows.

    May run while Blotter works. A repair forgets nothing: what Postgres lacks is made due again, what it has newer is
    adopted, counters and indexes are derived anew.

    Exit code: 0 all is right (after --repair: now), 1 something is wrong, 2 the buffer or Postgres does not answer.
    """
    with crew(data, rings=repair) as made, bar(0, "verifying", "conversations", quiet=as_json) as progress:

        def show(done: int, of: int) -> None:
            progress.total = of
            progress.update(done - progress.n)

        result = made.verifier.verify(repair=repair, progress=show)
    if as_json:
        print_json({
            "conversations": result.conversations,
            "rows": result.rows,
            "blind": result.blind,
            "suspect": result.suspect,
            "faults": [described(found) for found in result.found],
            "left": [described(found) for found in result.left],
        })  # fmt: skip
    else:
        for found in result.left if repair else result.found:
            click.echo("\t".join(line(found)))
        said = f"{counted(result.conversations, 'conversation')} with {counted(result.rows, 'row')}: "
        if not result.found:
            said += "all is right"
        elif repair:
            said += f"{counted(len(result.found), 'fault')}, {len(result.left):,} left after the repair"
        else:
            said += f"{counted(len(result.found), 'fault')}; put right by `blotter verify --repair`"
        if result.blind:
            said += f"; {result.blind:,} waiting for their base (Postgres was away)"
        click.echo(said, err=True)
    if result.left:
        raise click.exceptions.Exit(1)


def described(found: Found) -> dict[str, Any]:
    """A fault as `--json` prints it."""
    return {
        "conversationUid": found.uid,
        "owner": found.owner,
        "conversation": found.conversation,
        "item": found.fault.name or None,
        "kind": found.fault.kind,
        "detail": found.fault.detail,
    }


def line(found: Found) -> tuple[str, ...]:
    """A fault as a line of columns."""
    where = f"{found.owner or '?'}/{found.conversation or '?'}"
    return found.uid, where, found.fault.name or "-", found.fault.kind, found.fault.detail
