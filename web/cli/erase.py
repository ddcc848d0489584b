"""`blotter erase`: everything of one owner, for good, with proof. See models/pipeline/erase.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from models.core.wording import counted
from web.cli.options import Owner, data_option, timeout_option
from web.cli.session import crew, json_option, print_json

if TYPE_CHECKING:
    from models.pipeline.erase import Census, Erased

#: Where copies live that no command of ours reaches.
KEPT: Final = (
    "backups of Postgres (dumps, base backups, archived WAL) keep what they hold until they are thrown away",
    "the files of Postgres keep dead rows until VACUUM has run, its WAL until it is recycled; standbys follow",
    "copies of the buffer's files (backups, an RDB snapshot where `save` is set, replicas) keep what they hold",
    "browsers keep what they could not send; whoever still has a token can save again: let tokens end first",
)


@click.command(epilog="Example: blotter erase ann --yes --json > proof.json")
@click.argument("owner", type=Owner())
@click.option("--yes", is_flag=True, help="Do not ask. What is erased is lost.")
@timeout_option(120.0, "Stop looking again after this, where saves keep coming.")
@json_option
@data_option
def command(owner: str, yes: bool, timeout_s: float, as_json: bool, data: Path | None) -> None:
    """Erase everything of OWNER: in the buffer (rows, journals, images, dead letters, indexes, the append-only file) and in
    Postgres (all tables, artifact versions included). No tombstone stays.

    Looks again until two looks in a row find nothing, for web may save meanwhile; after that nobody looks, so let the
    owner's tokens end first. Prints what there was, and what a last scan of everything finds. May be run again.

    Exit code: 0 nothing is left, 1 something is (or the append-only file could not be rewritten, or you said no), 2 the buffer
    or Postgres does not answer.
    """
    with crew(data, rings=True) as made:
        from models.pipeline.erase import Eraser

        eraser = Eraser(made.buffer, made.store, made.ring)
        if not yes:
            before = eraser.census(owner)
            click.echo(f"{owner}: {sentence(before)}", err=True)
            click.confirm("Erase all of it for good?", abort=True, err=True)
        erased = eraser.erase(owner, within_s=timeout_s)
    if as_json:
        print_json({
            "owner": owner,
            "erased": erased.done,
            "before": described(erased.before),
            "after": described(erased.left),
            "rounds": erased.rounds,
            "appendOnlyFile": erased.rewrite_failed or "rewritten",
            "replicas": erased.replicas,
            "kept": list(KEPT),
        })  # fmt: skip
    else:
        report(owner, erased)
    if not erased.done:
        raise click.exceptions.Exit(1)


def report(owner: str, erased: Erased) -> None:
    """For people: the proof on stdout, what it does not reach on stderr."""
    after = described(erased.left)
    click.echo(f"{'of ' + owner[:40]:<28}{'before':>12}{'after':>12}")
    for name, count in described(erased.before).items():
        click.echo(f"  {name:<26}{count:>12,}{after[name]:>12,}")
    if erased.rewrite_failed:
        click.echo(f"the append-only file was not rewritten: {erased.rewrite_failed}; run it again", err=True)
    if erased.left.nothing:
        click.echo("a scan of the whole buffer and of all tables finds nothing of it", err=True)
    else:
        click.echo(
            "something is left: saves kept coming, or a worker was at it; end its tokens, then run it again",
            err=True,
        )
    click.echo("not reached by this:", err=True)
    for kept in KEPT:
        click.echo(f"  - {kept}", err=True)
    if erased.replicas:
        click.echo(f"  - the buffer has {erased.replicas} replicas now: they follow", err=True)


def described(census: Census) -> dict[str, Any]:
    """A census as `--json` prints it: rows by table, then what the buffer holds."""
    return {
        **census.tables,
        "bufferKeys": census.keys,
        "bufferIndexEntries": census.indexed,
        "deadLetters": census.letters,
        "ownerIndexEntries": census.listed,
    }


def sentence(census: Census) -> str:
    rows = sum(census.tables.values())
    return (
        f"{counted(census.conversations, 'conversation')}, {counted(rows, 'row')} in Postgres, {counted(census.keys, 'key')} in the buffer, "
        f"{counted(census.letters, 'dead letter')}"
    )
