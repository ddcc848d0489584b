"""The command `blotter`. Its subcommands are imported when called, so that `blotter --help` is quick.

A subcommand is a module here with a click command named `command`, and a line below.

Exit codes, of all of them: 0 all is well; 1 what was asked for did not come true (each command's help says what that
means), or was broken off; 2 it could not be asked: wrong usage, no Blotter there, nobody answers, the caller is refused.
A command tells the last by raising CannotRun, or an error of models.errors: one sentence on stderr; with --json, on stdout too.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import click

from web.cli.errors import CannotRun

# Name → (module, what the list of commands says). In the order of the list.
COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "up": ("web.cli.up", "Run Blotter on this machine: servers, web, worker, beat."),
    "token": ("web.cli.token", "Print a bearer token."),
    "import": ("web.cli.import_", "Send chat files as a streaming writer would, and read them back."),
    "status": ("web.cli.status", "Tell whether all is well, and what to do if not."),
    "restart": ("web.cli.restart", "Begin programs anew, without a failed save."),
    "drain": ("web.cli.drain", "Flush everything to Postgres now, and wait."),
    "dead": ("web.cli.dead", "List, show, replay or purge dead letters."),
    "verify": ("web.cli.verify", "Compare the buffer with Postgres, and repair."),
    "export": ("web.cli.export", "Write a conversation, or all of an owner, as JSON lines."),
    "backfill": ("web.cli.backfill", "Put an export back."),
    "erase": ("web.cli.erase", "Erase everything of an owner, with proof."),
    "sweep": ("web.cli.sweep", "Run one sweep now."),
    "repartition": ("web.cli.repartition", "Give the buffer another number of partitions."),
    "db": ("web.cli.db", "Bring the database's schema up to date, or check it."),
    "openapi": ("web.cli.openapi", "Print the API's OpenAPI document."),
})  # fmt: skip


#: Where a context keeps whether JSON was asked for: to be known also where the arguments are not understood.
AS_JSON: Final = "blotter.as_json"


class CannotAsk(click.ClickException):
    """One sentence, exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """Knows its subcommands by name; imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[AS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        from models.errors import BlotterError

        as_json = ctx.meta[AS_JSON]
        try:
            return super().invoke(ctx)
        except (CannotRun, BlotterError) as error:
            if as_json:
                tell(str(error))
            raise CannotAsk(str(error)) from error
        except click.ClickException as error:
            if as_json:
                tell(error.format_message())
            raise
        except (KeyboardInterrupt, click.Abort):
            if as_json:
                tell("broken off")
            raise


def tell(error: str) -> None:
    """The one document on stdout of a command with `--json` that ends before its own."""
    from web.cli.session import print_json

    print_json({"error": error})


@click.group(cls=Commands)
@click.version_option(package_name="blotter")
def main() -> None:
    """Keeps every piece of an AI chat the moment it exists."""
