"""Which Blotter a command speaks to. One rule, for all commands:

    --data DIR      the one that runs there: what DIR/env says of servers and keys, and nothing else of them
    the environment, where it names a server (or, for `token` and `import`, a key): it alone, and then it has to name all
    else            the one that runs in the default folder

The two are never mixed: the database of one and the buffer of another would be read, drained or repaired as one.
Where the command line does not say which it is, the command does, on stderr.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import click

from web.cli.errors import CannotRun
from web.cli.folder import Folder, default_folder

SERVERS: Final = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL")
KEYS: Final = ("BLOTTER_JWT_SECRET_FILE", "BLOTTER_JWT_SECRET")
#: What belongs to one Blotter and never to another.
_OWN: Final = frozenset((*SERVERS, *KEYS, "BLOTTER_JWKS_URL", "BLOTTER_JWT_AUDIENCE", "BLOTTER_JWT_ISSUER"))


def _data(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help=f"Data folder of `blotter up`. Default: {default}$BLOTTER_DATA, else ~/.local/share/blotter.",
    )


#: Adds `--data DIR` (argument `data: Path | None`): to a command that may go by the environment, to one that may not.
data_option: Final = _data("the servers in the environment if it names any, else ")
folder_option: Final = _data("")


def timeout_option(default_s: float, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds `--timeout SECONDS` (argument `timeout_s: float`)."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0),
        default=default_s,
        show_default=True,
        metavar="SECONDS",
        help=text,
    )


class Owner(click.ParamType[str]):
    """A name that web would take for an owner's."""

    name = "owner"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from web.auth import is_owner

        if not value.strip():
            self.fail("must not be empty", param, ctx)
        if not is_owner(value):
            self.fail("must be 1 to 256 bytes without control characters", param, ctx)
        return value


class Stack(NamedTuple):
    """The Blotter a command speaks to: what describes it (suits `models.settings.load`), and where that was found."""

    environ: dict[str, str]
    #: None: in the environment.
    folder: Path | None

    def __str__(self) -> str:
        return "the environment" if self.folder is None else f"{self.folder}/env"

    def tell(self) -> None:
        """Say on stderr which it is: the folder, or the servers. Only of addresses that settings have accepted."""
        if self.folder is not None:
            told = f"on the Blotter of {self.folder}"
        else:
            named = (name for name in SERVERS if self.environ.get(name))
            told = "on " + ", ".join(f"{name} {address(self.environ[name])}" for name in named)
        click.echo(told, err=True)


def address(url: str) -> str:
    """Of a URL what may be shown: host, port and path, without user and password."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"


def locate(
    data: Path | None,
    *needs: str,
    one_of: tuple[str, ...] = (),
    environ: Mapping[str, str] = os.environ,
) -> Stack:
    """The Blotter to speak to, by the rule above; it names all of ``needs`` and something of ``one_of``.

    Raises CannotRun where there is none, or where what was found does not name enough.
    """
    marks = dict.fromkeys((*SERVERS, *(one_of or needs)))
    named = [name for name in marks if environ.get(name)]
    if data is None and named:
        stack = Stack(dict(environ), None)
    else:
        folder = Folder(data.absolute() if data else default_folder(environ))
        found = folder.read_env()
        if not found:
            either = " and ".join(filter(None, (*needs, " or ".join(one_of))))
            raise CannotRun(
                f"no Blotter is running in {folder.root}: start one with `blotter up --data {folder.root}`"
                + ("" if data else f", or set {either}")
            )
        stack = Stack({k: v for k, v in environ.items() if k not in _OWN} | found, folder.root)
    lacking = [name for name in needs if not stack.environ.get(name)]
    if one_of and not any(stack.environ.get(name) for name in one_of):
        lacking.append(" or ".join(one_of))
    if lacking and stack.folder is None:
        raise CannotRun(
            f"the environment names {' and '.join(named)}, but not {' and '.join(lacking)}: "
            "set that too, or name a Blotter's folder with --data DIR"
        )
    if lacking:
        raise CannotRun(f"{stack} does not name {' and '.join(lacking)}: restart that Blotter with it")
    return stack
