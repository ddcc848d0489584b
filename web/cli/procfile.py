"""The Procfile: which programs make up Blotter. The same file serves foreman, honcho and platforms that read it.

A line is `name: command`; the command is the shell's (for `${PORT:-8400}`). `exec` in front makes the shell become the
program, so that signals reach it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from web.cli.errors import CannotRun

#: Where the shell puts in a number: `${WEB_CONCURRENCY:-2}`.
_NUMBER = re.compile(r"\$\{(\w+):-\d+\}")
_LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(.+)")


def read_procfile(path: Path) -> dict[str, list[str]]:
    """Name → argv, in the file's order. Raises CannotRun for a file that is missing or malformed."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise CannotRun(f"{path} is missing; `blotter up` runs from a checkout of Blotter") from None
    programs: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise CannotRun(f"{path}, line {number}: expected `name: command`")
        programs[match[1]] = ["/bin/sh", "-c", f"exec {match[2]}"]
    return programs


def check_numbers(programs: Mapping[str, list[str]], environ: Mapping[str, str]) -> None:
    """Raises CannotRun where a variable that stands for a number in a program's command holds something else."""
    for argv in programs.values():
        for name in _NUMBER.findall(argv[-1]):
            value = environ.get(name) or "1"
            if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < 1:
                raise CannotRun(f"{name} must be a whole number from 1 on, not {value!r}")
