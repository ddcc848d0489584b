"""Where a command finds the Blotter it speaks to: --data DIR, else the environment, else the default folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from web.cli.errors import CannotRun
from web.cli.folder import Folder, default_folder


def data_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--data DIR` (argument `data: Path | None`)."""
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Data folder of `blotter up`. Default: $BLOTTER_DATA, else ~/.local/share/blotter.",
    )(command)


def context(data: Path | None, *names: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a command that needs at least one of the variables `names`.

    With --data, what DIR/env says goes over the process's environment. Without, the environment alone decides when
    it has one of the names; else the default folder's env does. The result suits `models.settings.load`.
    Raises CannotRun when none of the names is found.
    """
    merged = dict(environ)
    if data is None and any(environ.get(name) for name in names):
        return merged
    folder = Folder(data.absolute() if data else default_folder(environ))
    found = folder.read_env()
    merged.update(found)
    if any(merged.get(name) for name in names) and (found or data is None):
        return merged
    raise CannotRun(
        f"no Blotter is running in {folder.root}: start one with `blotter up --data {folder.root}`, "
        f"or set {' or '.join(names)}"
    )
