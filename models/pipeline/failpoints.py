"""Fail points: the numbered steps of save, adopt, flush and the rest, where a test may end, hold or break the process.

Production never arms one; then `reach` costs one comparison. A process is armed from outside by its environment:

    BLOTTER_FAILPOINTS="flush.6=kill@/tmp/once, save.2=pause@/tmp/hold, flush.7=raise"

    kill    SIGKILL to this process        with @file: only if it could remove the file, so once for all processes
    raise   Crash                          likewise
    pause   wait here while file exists

Within a process, `arm` takes any callable (a scheduler's, a counter's) and `disarm` ends it. ``Crash`` is no Exception,
so that no handler tidies up after it: what remains is what a killed process leaves. This variable is no setting: it has
no default to document and no place in models/settings.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_PAUSE_LOOK_S: Final = 0.005


class Crash(BaseException):
    """The process "died" here; nothing may tidy up."""


_armed: dict[str, Callable[[str], None]] = {}


def reach(step: str) -> None:
    """The code has passed ``step``."""
    if _armed:
        action = _armed.get(step)
        if action is not None:
            action(step)


def arm(step: str, action: Callable[[str], None]) -> None:
    """Call ``action(step)`` whenever ``step`` is reached."""
    _armed[step] = action


def disarm(step: str | None = None) -> None:
    """Forget one step, or all."""
    if step is None:
        _armed.clear()
    else:
        _armed.pop(step, None)


def crash(step: str) -> None:
    """An action: die as if killed, within the test's process."""
    raise Crash(step)


def _parse(text: str) -> dict[str, Callable[[str], None]]:
    found: dict[str, Callable[[str], None]] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        step, _, action = entry.partition("=")
        name, _, file = action.partition("@")
        found[step] = _ACTIONS[name](file)
    return found


def _kill(file: str) -> Callable[[str], None]:
    def act(step: str) -> None:
        if _taken(file):
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def _raise(file: str) -> Callable[[str], None]:
    def act(step: str) -> None:
        if _taken(file):
            raise Crash(step)

    return act


def _pause(file: str) -> Callable[[str], None]:
    def act(step: str) -> None:
        with contextlib.suppress(OSError):
            Path(f"{file}.reached").write_text(f"{step} {os.getpid()}\n")
        while Path(file).exists():
            time.sleep(_PAUSE_LOOK_S)

    return act


def _taken(file: str) -> bool:
    """Without a file always; with one only for the process that removes it."""
    if not file:
        return True
    try:
        os.unlink(file)
    except FileNotFoundError:
        return False
    return True


_ACTIONS: Final[dict[str, Callable[[str], Callable[[str], None]]]] = {
    "kill": _kill,
    "raise": _raise,
    "pause": _pause,
}
_armed.update(_parse(os.environ.get("BLOTTER_FAILPOINTS", "")))
