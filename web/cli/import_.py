"""`blotter import`: chat files through the HTTP API, as a streaming writer would send them; then read back and compared."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from models.core.wording import counted
from web.cli.errors import CannotRun
from web.cli.options import KEYS, Owner, data_option, locate
from web.cli.session import json_option, load_settings, print_json

if TYPE_CHECKING:
    from blotter_client import Blotter

    from models.settings import Settings
    from web.cli.importing.files import Chat
    from web.cli.importing.verify import Mismatch

TOKEN_TTL_S = 3600
#: Errors and mismatches shown one by one; the rest are counted.
SHOWN = 10


class Import:
    """One import: what is sent, what came of it. Threads share it."""

    def __init__(
        self, blotter: Blotter, address: str, chats: list[Chat], rate: float | None, *, quiet: bool
    ) -> None:
        from tqdm import tqdm

        self.blotter = blotter
        self.address = address
        self.chats = chats
        self.rate = rate
        self.stop = threading.Event()
        self.counts: Counter[str] = Counter()
        self.sent: list[str] = []
        self.errors: dict[str, str] = {}
        self.mismatches: list[Mismatch] = []
        total = sum(chat.characters for chat in chats)
        self.bar = tqdm(
            total=total,
            unit="char",
            unit_scale=True,
            file=sys.stderr,
            disable=quiet or not sys.stderr.isatty(),
        )
        self._lock = threading.Lock()

    def send(self, chat: Chat) -> None:
        """Send one chat; what goes wrong with it is noted. Raises CannotRun for what would go wrong with all of them."""
        from blotter_client import BlotterError, Unreachable
        from blotter_client.errors import Forbidden, NotReached, Unauthenticated

        from web.cli.importing.replay import Stopped, Throttle, send

        try:
            send(self.blotter, chat, Throttle(self.rate, self.stop), self._message_sent)
            with self._lock:
                self.counts["conversations"] += 1
                self.sent.append(chat.id)
        except (Unauthenticated, Forbidden) as error:
            raise CannotRun(
                f"{self.address} does not take this token ({str(error.detail or error).rstrip('.')}): give one that it takes with --token"
            ) from None
        except NotReached as error:
            raise CannotRun(str(error)) from None
        except Unreachable as error:
            raise CannotRun(f"{self.address} does not answer ({error}); import again to go on") from None
        except BlotterError as error:
            with self._lock:
                self.errors[chat.id] = f"{chat.place}: {type(error).__name__}: {error}"
        except Stopped:
            return

    def verify(self, chat: Chat) -> None:
        """Read one chat back and compare."""
        from blotter_client import BlotterError

        from web.cli.importing.verify import differences, read

        try:
            found = differences(chat, read(self.blotter, chat.id))
        except BlotterError as error:
            with self._lock:
                self.errors[chat.id] = f"{chat.place}: reading back: {type(error).__name__}: {error}"
            return
        with self._lock:
            self.counts["verified"] += not found
            self.mismatches += found

    def each(self, work: Callable[[Chat], None], chats: list[Chat], concurrency: int) -> None:
        """``work`` on all of them, so many at once. Ctrl-C stops after the request at hand."""
        with ThreadPoolExecutor(concurrency, thread_name_prefix="import") as pool:
            try:
                for future in [pool.submit(work, chat) for chat in chats]:
                    future.result()
            except BaseException:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _message_sent(self, message: Any) -> None:
        with self._lock:
            self.counts["messages"] += 1
            self.counts["tool_results"] += len(message.results)
            self.counts["characters"] += message.characters
            self.bar.update(message.characters)
            self.bar.set_postfix(
                conversations=self.counts["conversations"], messages=self.counts["messages"], refresh=False
            )


@click.command(epilog="Example: blotter import chats.json.gz --owner ann")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--owner", type=Owner(), help="Whose conversations they become. Default: the owner of --token.")
@click.option("--url", help="Address of the API. Default: the running Blotter's.")
@click.option(
    "--token",
    "given",
    metavar="TOKEN",
    help="Bearer token, where no secret is at hand (JWKS). Of another than --owner, it needs blotter:act-for.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    help="Characters a second of each conversation. Default: no limit.",
)
@click.option(
    "--concurrency", type=click.IntRange(1, 64), default=4, show_default=True, help="Conversations at once."
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N conversations.")
@click.option(
    "--verify/--no-verify", default=True, show_default=True, help="Read everything back and compare."
)
@json_option
@data_option
def command(
    files: tuple[Path, ...],
    owner: str | None,
    url: str | None,
    given: str | None,
    rate: float | None,
    concurrency: int,
    limit: int | None,
    verify: bool,
    as_json: bool,
    data: Path | None,
) -> None:
    """Send chat files through the HTTP API as a streaming writer would, then read them back.

    FILE holds OpenAI-style message lists, {"messages": …} or {"traj": …} objects, or AI SDK UIMessage lists: one or many,
    as JSON or JSON lines, gzipped or not. The same file twice changes nothing.

    Exit code: 0 all arrived and was read back identical, 1 something did not (each is named), 2 nothing could be sent: the
    file holds no chats, the API does not answer or does not take the token, wrong usage.
    """
    from blotter_client import Blotter

    from web.cli.importing.files import read

    address, settings = surroundings(data, url, given)
    owner, acting, token = identity(owner, given, settings)
    chats = list(islice(read(files), limit))

    began_s = time.monotonic()
    try:
        client = Blotter(address, token, owner=acting, connections=concurrency * 2)
    except ValueError as error:
        raise CannotRun(f"{error} (--url, or BASE_URL of the folder)") from None
    with client as blotter:
        run = Import(blotter, address, chats, rate, quiet=as_json)
        with run.bar:
            run.each(run.send, chats, concurrency)
        sent_s = time.monotonic() - began_s
        if verify:
            run.each(run.verify, [chat for chat in chats if chat.id not in run.errors], concurrency)
        report = _report(run, owner, sent_s, time.monotonic() - began_s - sent_s, verify)
    if as_json:
        print_json(report)
    else:
        own = shlex.join(
            [
                str(Path(sys.argv[0]).absolute()),
                "token",
                owner,
                *(() if data is None else ("--data", str(data.absolute()))),
            ]
        )
        _say(run, report, f"$({own})" if given is None else "$TOKEN", acting)
    if run.errors or run.mismatches:
        raise SystemExit(1)


def surroundings(data: Path | None, url: str | None, given: str | None) -> tuple[str, Settings | None]:
    """The API's address, and the settings with a key where no token was given."""
    if given is not None and url is not None:
        return url, None
    try:
        stack = locate(
            data, *(() if url is not None else ("BASE_URL",)), one_of=() if given is not None else KEYS
        )
    except CannotRun as error:
        hints = [] if given is not None else ["a token with --token"]
        hints += [] if url is not None else ["an address with --url"]
        raise CannotRun(f"{error}; or give {' and '.join(hints)}") from None
    settings = load_settings(stack)
    if url is None and data is None:
        click.echo(f"to {settings.base_url} (as {stack} says)", err=True)
    return url or str(settings.base_url), None if given is not None else settings


def identity(
    owner: str | None, given: str | None, settings: Settings | None
) -> tuple[str, str | None, str | Callable[[], str]]:
    """(owner, the owner to act for if it is not the token's own, a token or who mints one)."""
    if given is None:
        assert settings is not None
        if owner is None:
            raise click.UsageError("Missing option '--owner' (or --token).")
        minted = partial(_minted, owner, settings)
        minted()  # a key that is none is told before anything is sent
        return owner, None, minted
    bearer = given.strip()
    subject = subject_of(bearer)
    if subject is None and owner is None:
        raise click.BadParameter("is no JWT with a `sub`: name the --owner too", param_hint="--token")
    own = owner is None or owner == subject
    return owner or str(subject), None if own else owner, bearer


def _minted(owner: str, settings: Settings) -> str:
    from web.cli.token import mint

    return mint(owner, (), TOKEN_TTL_S, int(time.time()), settings)


def subject_of(token: str) -> str | None:
    """What a token says of whose it is; unverified, the server does that."""
    import jwt

    try:
        subject = jwt.decode(token, options={"verify_signature": False}).get("sub")
    except jwt.PyJWTError:
        return None
    return subject if isinstance(subject, str) else None


def _report(run: Import, owner: str, sent_s: float, verify_s: float, verify: bool) -> dict[str, Any]:
    return {
        "url": run.address,
        "owner": owner,
        "conversations": run.counts["conversations"],
        "messages": run.counts["messages"],
        "toolResults": run.counts["tool_results"],
        "characters": run.counts["characters"],
        "requests": run.blotter.requests,
        "seconds": round(sent_s, 3),
        "ids": sorted(run.sent),
        "verified": run.counts["verified"] if verify else None,
        "verifySeconds": round(verify_s, 3) if verify else None,
        "errors": [{"conversation": name, "error": error} for name, error in run.errors.items()],
        "mismatches": [vars(mismatch) for mismatch in run.mismatches],
    }


def _say(run: Import, report: Mapping[str, Any], token: str, acting: str | None) -> None:
    for error in list(run.errors.values())[:SHOWN]:
        click.echo(f"not sent: {error}", err=True)
    for mismatch in run.mismatches[:SHOWN]:
        click.echo(f"differs: {mismatch}", err=True)
    hidden = max(0, len(run.errors) - SHOWN) + max(0, len(run.mismatches) - SHOWN)
    if hidden:
        click.echo(f"… and {hidden} more (all of them with --json)", err=True)
    for name in report["ids"][:SHOWN]:
        click.echo(name)
    if len(report["ids"]) > SHOWN:
        click.echo(f"… and {len(report['ids']) - SHOWN} more (all of them with --json)")
    if report["ids"]:
        click.echo(f"read one: {curl(run.address, report['ids'][0], token, acting)}", err=True)
    verified = "" if report["verified"] is None else f", {report['verified']} verified identical"
    click.echo(
        f"{report['conversations']} of {counted(len(run.chats), 'conversation')}, {counted(report['messages'], 'message')}, "
        f"{counted(report['toolResults'], 'tool result')}, {counted(report['characters'], 'character')} in {report['seconds']:.1f} s"
        f"{verified}; {counted(len(run.errors), 'error')}, {counted(len(run.mismatches), 'difference')}"
    )


def curl(address: str, conversation: str, token: str, acting: str | None) -> str:
    """A line for the shell that reads a conversation; runs as it stands. ``token``: what the shell makes one of."""
    path = f"{address.rstrip('/')}/api/conversations/{conversation}"
    owner = "" if acting is None else f" -H {shlex.quote(f'Blotter-Owner: {quote(acting)}')}"
    return f'curl -sS -H "Authorization: Bearer {token}"{owner} {shlex.quote(path)}'
