"""`blotter status`: is all well, and what to do if not. Asks the buffer and Postgres themselves, not the web."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from models.errors import BlotterError, BufferUnavailable, SettingsError
from web.cli.errors import CannotRun
from web.cli.options import SERVERS, address, data_option, locate
from web.cli.session import crew, json_option, load_settings, print_json, print_line

if TYPE_CHECKING:
    from models.pipeline.crew import Crew

EXIT_CODES: Final = {"green": 0, "amber": 1, "red": 2}
COLOURS: Final = {"green": "green", "amber": "yellow", "red": "red"}
#: Figures shown to people, in this order.
SHOWN: Final = (
    ("dirtyItems", "not yet in Postgres", "items"),
    ("oldestDirtyAgeSeconds", "the oldest of them for", "s"),
    ("deadLetters", "dead letters", ""),
    ("blindConversations", "waiting for their base", "conversations"),
    ("inFlightItems", "in flight", "items"),
    ("hotConversations", "in the buffer", "conversations"),
)


@click.command(epilog="Example: blotter status --json | jq .level")
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often with --watch.",
)
@json_option
@data_option
def command(watch: bool, every_s: float, as_json: bool, data: Path | None) -> None:
    """Tell whether all is well: green, amber or red, the reason, and the next step.

    With --watch and --json, a document a line, each with the time `at` which it was so.

    Exit code: 0 green, 1 amber, 2 red (also: nothing answers); with --watch, of the last look.
    """
    found = look(data, tells=True)
    try:
        present(found, as_json=as_json, over=watch)
        while watch:
            threading.Event().wait(every_s)
            found = look(data)
            present(found, as_json=as_json, over=True)
    except KeyboardInterrupt:
        click.echo(err=True)
    raise click.exceptions.Exit(EXIT_CODES[found["level"]])


def present(found: dict[str, Any], *, as_json: bool, over: bool) -> None:
    """Print it; ``over``: as one of many, a terminal is cleared before it."""
    if as_json and over:
        print_line({"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **found})
    elif as_json:
        print_json(found)
    else:
        if over and sys.stdout.isatty():
            click.clear()
        show(found)


def look(data: Path | None, *, tells: bool = False) -> dict[str, Any]:
    """How it stands: level, reasons, figures (None where the buffer does not answer)."""
    from models.core.health import Reason

    try:
        with crew(data, tells=tells) as made:
            return judged(made, layout_fault(data))
    except CannotRun as error:
        reason, _, step = str(error).partition(": ")
        return document([Reason("red", reason, step)], None)
    except BufferUnavailable as error:
        return document([Reason("red", str(error), source(data, refused="password" in str(error)))], None)
    except SettingsError as error:
        name, where = str(error).partition(":")[0], locate(data, *SERVERS)
        return document([Reason("red", str(error), f"correct {name} in {where}")], None)
    except BlotterError as error:
        return document([Reason("red", str(error), "see the log of workers and web")], None)


def source(data: Path | None, *, refused: bool, environ: Mapping[str, str] = os.environ) -> str:
    """What to do about a buffer that is not there, or ``refused`` us: where its address comes from, without its password."""
    stack = locate(data, *SERVERS, environ=environ)
    url = address(stack.environ["REDIS_URL"])
    if stack.folder is not None:
        return f"start all of it: `blotter up --data {stack.folder}` ({stack} names {url})"
    return f"{'' if refused else 'start the buffer, or '}correct REDIS_URL in the environment ({url})"


def layout_fault(data: Path | None) -> str | None:
    """Why web and workers refuse the buffer for its layout; None where they do not, or the number of partitions they were
    given cannot be known from here. (The session itself goes by the buffer's own.) Raises BufferUnavailable.
    """
    from models.buffer.buffer import Buffer

    stack = locate(data, *SERVERS)
    if stack.folder is None and not stack.environ.get("BLOTTER_PARTITIONS"):
        return None
    buffer = Buffer.connect(load_settings(stack), connections=1)
    try:
        return buffer.layout_fault()
    finally:
        buffer.close()


def judged(made: Crew, layout: str | None) -> dict[str, Any]:
    """The judgement on a buffer and store that may not answer."""
    from models.core.health import Limits, judge
    from models.pipeline import policy
    from models.pipeline.figures import figures

    settings = made.buffer.settings
    limits = Limits(settings.autosave_seconds, settings.evict_memory_share, settings.refuse_memory_share)
    try:
        known = figures(made.buffer)
        faults = policy.examine(made.buffer.client, settings).faults
    except BufferUnavailable as error:
        return document(judge(None, limits, unreachable=error), None)
    store = "ok"
    try:
        made.store.ping()
    except BlotterError as error:
        store = str(error)
    return document(judge(known, limits, store=store, faults=faults, layout=layout), known)


def document(reasons: Any, known: dict[str, Any] | None) -> dict[str, Any]:
    """As `--json` prints it."""
    from models.core.health import level

    return {"level": level(reasons), "reasons": [reason._asdict() for reason in reasons], "figures": known}


def show(found: dict[str, Any]) -> None:
    """For people: each reason once, behind its level, the worst first."""
    for reason in found["reasons"]:
        level = click.style(reason["level"], fg=COLOURS[reason["level"]], bold=True)
        click.echo(f"{level}  {reason['reason']}\n  → {reason['step']}")
    if not found["reasons"]:
        click.echo(f"{click.style(found['level'], fg=COLOURS[found['level']], bold=True)}  all is well")
    known = found["figures"]
    if known is not None:
        for name, text, unit in SHOWN:
            value = known[name]
            shown = f"{value:,.1f}" if unit == "s" else f"{value:,}"
            one = value == 1 and unit != "s"
            click.echo(f"  {text:<24}{shown:>14} {unit.removesuffix('s') if one else unit}".rstrip())
        share = known["bufferUsedBytes"] / known["bufferMaxBytes"] if known["bufferMaxBytes"] else None
        memory = f"{known['bufferUsedBytes'] / 1024**2:,.1f} MiB" + (
            f" ({share:.0%})" if share is not None else ""
        )
        beat = "alive" if known["beatAlive"] else "not alive"
        click.echo(
            f"  {'memory':<24}{memory:>14}\n  {'workers':<24}{len(known['workers']):>14,}\n  {'beat':<24}{beat:>14}"
        )
