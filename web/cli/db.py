"""`blotter db`: the database's schema."""

from __future__ import annotations

from pathlib import Path

import click

from web.cli.options import data_option, locate
from web.cli.session import json_option, load_settings, print_json


@click.group()
def command() -> None:
    """Bring the database's schema up to date, or check it.

    Order of an upgrade: `blotter db upgrade` first, then restart workers and web.
    """


@command.command("upgrade", epilog="Example: blotter db upgrade && blotter db check")
@json_option
@data_option
def upgrade_command(as_json: bool, data: Path | None) -> None:
    """Run the migrations that are missing. May run while Blotter works, and twice at once.

    Exit code: 0 the schema is up to date, 2 the database does not answer, or cannot hold what Blotter stores.
    """
    from models.postgres.migrate import revisions, upgrade

    url = database(data)
    before = revisions(url).current
    upgrade(url)
    after = revisions(url)
    if as_json:
        print_json({"before": before, "schema": after.current, "needed": after.needed})
    elif before == after.current:
        click.echo(f"the schema is up to date ({after.current})", err=True)
    else:
        click.echo(f"the schema is up to date: from {before or 'nothing'} to {after.current}", err=True)


@command.command("check", epilog="Example: blotter db check --json")
@json_option
@data_option
def check_command(as_json: bool, data: Path | None) -> None:
    """Tell whether the schema is what this version needs.

    Exit code: 0 it is, 1 it is not (what to do is said), 2 the database does not answer.
    """
    from models.postgres.migrate import revisions

    found = revisions(database(data))
    wrong = found.wrong
    if as_json:
        print_json({"ok": wrong is None, "schema": found.current, "needed": found.needed, "reason": wrong})
    else:
        click.echo(wrong or f"the schema is what this version needs ({found.current})", err=True)
    if wrong:
        raise click.exceptions.Exit(1)


def database(data: Path | None) -> str:
    """The address of the database to work on. Raises CannotRun, SettingsError."""
    stack = locate(data, "DATABASE_URL")
    url = load_settings(stack).database_url
    if data is None:
        stack.tell()
    return url
