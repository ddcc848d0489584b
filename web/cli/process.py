"""A program to run and how to stop it, as a value; and the one place that starts it.

Every program leads a process group of its own (so that all it forked can be signalled together), dies with its
parent (see lifeline.py), has no standard input, and writes straight into its log file: a pipe through us would
break when we are killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LIFELINE = Path(__file__).with_name("lifeline.py")


@dataclass(frozen=True)
class Command:
    """One program of a run."""

    name: str
    argv: Sequence[str]
    environ: Mapping[str, str]
    cwd: Path
    # Sent to ask for an orderly end, and how long that may take before SIGKILL.
    stop_signal: signal.Signals = signal.SIGTERM
    stop_wait_s: float = 10.0
    # Sent when the parent has died without asking.
    death_signal: signal.Signals = signal.SIGKILL
    # Whom to run as (uid, gid) when not as ourselves.
    user: tuple[int, int] | None = None


def spawn(command: Command, log: Path) -> subprocess.Popen[bytes]:
    """Start it; its output is appended to `log`. The process id is the program's own, and its group's."""
    uid, gid = command.user or (-1, -1)
    lifeline = [sys.executable, "-I", "-S", str(LIFELINE), str(int(command.death_signal)), str(os.getpid())]
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            [*lifeline, str(uid), str(gid), str(command.cwd), *command.argv],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            env=dict(command.environ),
            process_group=0,
        )
    finally:
        os.close(handle)


def signal_group(pid: int, number: signal.Signals) -> bool:
    """Signal every process of the group that `pid` leads or led. False when none is left."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS answers so for a group of zombies
        return False
    return True
