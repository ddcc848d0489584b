"""`blotter db`: the database's schema."""

from __future__ import annotations

from pathlib import Path

import click

from web.cli.errors import CannotRun
from web.cli.options import context, data_option


@click.group()
def command() -> None:
    """Bring the database's schema up to date, or check it."""


@command.command("upgrade")
@data_option
def upgrade_command(data: Path | None) -> None:
    """Run the migrations that are missing."""
    from models.postgres.migrate import upgrade

    upgrade(context(data, "DATABASE_URL")["DATABASE_URL"])
    click.echo("the schema is up to date", err=True)


@command.command("check")
@data_option
def check_command(data: Path | None) -> None:
    """Tell whether the schema is what this version needs; exit code 1 when it is not."""
    from models.postgres.migrate import check

    if wrong := check(context(data, "DATABASE_URL")["DATABASE_URL"]):
        raise CannotRun(wrong)
    click.echo("the schema is what this version needs", err=True)
