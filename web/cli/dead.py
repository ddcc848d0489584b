"""`blotter dead`: dead letters, the rows that Postgres would not take. See models/pipeline/deadletters.py.

Chat text is printed by `show --content` alone. A letter's name, its REF, is what `list` prints first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from models.core.wording import counted
from web.cli.options import Owner, data_option
from web.cli.session import bar, crew, json_option, print_json

if TYPE_CHECKING:
    from models.pipeline.deadletters import DeadLetters, Letter

KINDS: Final = {
    "c": "conversation",
    "m": "message",
    "t": "tool result",
    "a": "artifact",
    "v": "artifact version",
}
#: Large or private: printed only when asked for.
CONTENT: Final = ("content", "parts", "metadata", "input", "output", "error_text", "title")


class Ref(click.ParamType[str]):
    """32 hex digits, a kind's letter, an id."""

    name = "ref"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[0-9a-f]{32}/[cmtav]/.*", value):
            self.fail(f"{value!r} is no dead letter's name; `blotter dead list` prints them", param, ctx)
        return value


def filters(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--owner` and `--conversation`."""
    for name, text in (
        ("--conversation", "Only of this conversation; needs --owner, and then looks nowhere else."),
        ("--owner", "Only of this owner's conversations."),
    ):
        function = click.option(name, type=Owner() if name == "--owner" else str, help=text)(function)
    return function


@click.group()
def command() -> None:
    """List, show, replay or purge dead letters.

    A dead letter is a row that Postgres rejected, or that killed its worker. It stays in the buffer: readable, never
    evicted, and freed by the next save of the same item. `list` tells why it was set aside; when that is mended, `replay`.
    """


@command.command("list", epilog="Example: blotter dead list --owner ann --json")
@filters
@json_option
@data_option
def list_command(owner: str | None, conversation: str | None, as_json: bool, data: Path | None) -> None:
    """List dead letters with the reason of each, without chat text.

    Exit code: 0 done, 2 the buffer does not answer.
    """
    with crew(data) as made:
        letters = list(chosen(made.dead_letters, owner, conversation))
    if as_json:
        print_json({"deadLetters": [described(letter) for letter in letters]})
        return
    for letter in letters:
        click.echo("\t".join(line(letter)))
    click.echo(counted(len(letters), "dead letter"), err=True)


@command.command("show", epilog="Example: blotter dead show 0f…/m/m1 --content")
@click.argument("ref", type=Ref())
@click.option("--content", is_flag=True, help="Print the record with all its content, chat text included.")
@json_option
@data_option
def show_command(ref: str, content: bool, as_json: bool, data: Path | None) -> None:
    """Show one dead letter: why it was set aside, and the row itself.

    Exit code: 0 done, 1 it is no dead letter (anymore), 2 the buffer does not answer.
    """
    with crew(data) as made:
        found = made.dead_letters.show(ref)
    if found is None:
        raise click.ClickException(f"{ref} is no dead letter (anymore)")
    letter, record = found
    document = described(letter) | {"record": None if record is None else fields_of(record, content=content)}
    if as_json:
        print_json(document)
        return
    rows: dict[str, Any] = document.pop("record") or {}
    for name, value in (*document.items(), *((f"record.{name}", value) for name, value in rows.items())):
        if value is not None:
            click.echo(f"{name}: {value}")


@command.command("replay", epilog="Example: blotter dead replay --all --owner ann")
@click.argument("refs", nargs=-1, type=Ref())
@click.option(
    "--all", "everything", is_flag=True, help="All of them (that --owner and --conversation leave)."
)
@filters
@json_option
@data_option
def replay_command(
    refs: tuple[str, ...],
    everything: bool,
    owner: str | None,
    conversation: str | None,
    as_json: bool,
    data: Path | None,
) -> None:
    """Make dead letters due again, once the cause is mended.

    A worker flushes them within a second; what is rejected again is set aside again.

    Exit code: 0 done, 1 something named is no dead letter (anymore), 2 the buffer does not answer.
    """
    act("replay", refs, everything, owner, conversation, as_json, data)


@command.command("purge", epilog="Example: blotter dead purge 0f…/m/m1 --yes")
@click.argument("refs", nargs=-1, type=Ref())
@click.option(
    "--all", "everything", is_flag=True, help="All of them (that --owner and --conversation leave)."
)
@click.option("--yes", is_flag=True, help="Do not ask. What is purged is lost.")
@filters
@json_option
@data_option
def purge_command(
    refs: tuple[str, ...],
    everything: bool,
    yes: bool,
    owner: str | None,
    conversation: str | None,
    as_json: bool,
    data: Path | None,
) -> None:
    """Drop dead letters from the buffer for good. What Postgres has of these items stays and is shown from then on.

    Exit code: 0 done, 1 something named is no dead letter (anymore), 2 the buffer does not answer.
    """
    wanted(refs, everything)
    if not yes:
        what = "all dead letters chosen" if everything else counted(len(refs), "dead letter")
        click.confirm(f"Drop {what} for good?", abort=True, err=True)
    act("purge", refs, everything, owner, conversation, as_json, data)


def act(
    action: str,
    refs: tuple[str, ...],
    everything: bool,
    owner: str | None,
    conversation: str | None,
    as_json: bool,
    data: Path | None,
) -> None:
    """Replay or purge; exit code 1 when something named was no dead letter."""
    wanted(refs, everything)
    done: list[str] = []
    missing: list[str] = []
    with crew(data, rings=action == "replay") as made:
        do = made.dead_letters.replay if action == "replay" else made.dead_letters.purge
        names = (
            dict.fromkeys(letter.ref for letter in chosen(made.dead_letters, owner, conversation))
            if everything
            else dict.fromkeys(refs)
        )
        with bar(len(names), action, "letters", quiet=as_json) as progress:
            for ref in names:
                (done if do(ref) else missing).append(ref)
                progress.update()
    if everything:
        # Overtaken by a save between the list and the deed: nothing anybody asked for is missing.
        missing = []
    if as_json:
        print_json({"done": done, "notFound": missing})
    else:
        click.echo(f"{action}: {len(done):,} done", err=True)
        for ref in missing:
            click.echo(f"{ref} is no dead letter (anymore)", err=True)
    if missing:
        raise click.exceptions.Exit(1)


def wanted(refs: tuple[str, ...], everything: bool) -> None:
    if everything == bool(refs):
        raise click.UsageError("name dead letters, or --all")


def chosen(letters: DeadLetters, owner: str | None, conversation: str | None) -> Iterator[Letter]:
    """The dead letters that the filters leave."""
    if conversation is not None:
        if owner is None:
            raise click.UsageError("--conversation needs --owner: ids are an owner's own")
        yield from letters.of(owner, conversation)
        return
    seen: set[str] = set()
    for letter in letters.all():
        if letter.ref not in seen and owner in (None, letter.owner):
            seen.add(letter.ref)
            yield letter


def described(letter: Letter) -> dict[str, Any]:
    """A letter as `--json` prints it."""
    return {
        "ref": letter.ref,
        "owner": letter.owner,
        "conversation": letter.conversation,
        "kind": KINDS[letter.kind],
        "id": letter.id,
        "at": moment(letter.at_ms),
        "sqlstate": letter.sqlstate,
        "reason": letter.reason,
    }


def line(letter: Letter) -> tuple[str, ...]:
    """A letter as a line of columns."""
    return (
        letter.ref,
        moment(letter.at_ms),
        f"{letter.owner or '?'}/{letter.conversation or '?'}",
        KINDS[letter.kind],
        letter.sqlstate or "-",
        " ".join(letter.reason.split()),
    )


def moment(at_ms: int) -> str:
    """ISO 8601, UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def fields_of(record: Any, *, content: bool) -> dict[str, Any]:
    """A record's fields; of large and private ones only their length unless ``content``."""
    out: dict[str, Any] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if name in CONTENT and not content and value is not None:
            value = counted(len(value), "character")
        out[name] = str(value) if name == "conversation_uid" else value
    return out
