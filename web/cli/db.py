"""`blotter db`: the database's schema."""

from __future__ import annotations

from pathlib import Path

import click

from web.cli.options import context, data_option


@click.group()
def command() -> None:
    """Bring the database's schema up to date, or check it."""


@command.command()
@data_option
def upgrade(data: Path | None) -> None:
    """Run the migrations that are missing."""
    from models.postgres import migrate

    migrate.upgrade(context(data, "DATABASE_URL")["DATABASE_URL"])
    click.echo("the schema is up to date", err=True)


@command.command()
@data_option
def check(data: Path | None) -> None:
    """Tell whether the schema is what this version needs; exit code 1 when it is not."""
    from models.postgres import migrate

    migrate.check(context(data, "DATABASE_URL")["DATABASE_URL"])
    click.echo("the schema is what this version needs", err=True)
