"""Ends what a killed `blotter up` has left behind.

A process of its own beside `blotter up`, fed through a pipe with the process groups that come and go
(`+ GROUP SIGNAL`, `- GROUP`). When the pipe ends, its owner is gone, however it died: DIR/env is withdrawn (whoever
waits for the next run must not take this one's for it), and every group still listed gets its signal, the latest
first (so programs before servers), and SIGKILL when it lingers. It holds the data folder's
lock meanwhile, so that the next `blotter up` begins only when nothing of the last one is left.

The kernel's parent-death signal (lifeline.py) reaches a program but not what that program forked: web servers and
Celery fork, and such orphans would go on answering on the port of their successor. Groups reach them.

Run as a script of its own, on the standard library alone: python -I -S guardian.py DIR/env
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

ORDERLY_WAIT_S = 10.0


def group_is_alive(group: int) -> bool:
    """Whether a process of that group still runs. Zombies that nobody collects (containers) do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # macOS, for zombies; elsewhere somebody else's group
    if not os.path.isdir("/proc/self"):
        return True
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:
                    # pid (name) state parent group ...; the name may hold anything, parentheses too
                    state, _, member_of = file.read().rpartition(b")")[2].split()[:3]
            except (OSError, ValueError):
                continue
            if int(member_of) == group and state not in (b"Z", b"X"):
                return True
    return False


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def end(groups: dict[int, int], orderly_wait_s: float = ORDERLY_WAIT_S) -> None:
    """Signal every group with its own signal, the latest first; SIGKILL what outlives the wait."""
    for group in reversed(groups):
        _signal(group, groups[group])
    deadline = time.monotonic() + orderly_wait_s
    alive = list(groups)
    while alive and time.monotonic() < deadline:
        time.sleep(0.02)
        alive = [group for group in alive if group_is_alive(group)]
    for group in alive:
        _signal(group, signal.SIGKILL)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, int] = {}
    for line in sys.stdin:
        verb, *numbers = line.split()
        if verb == "+":
            groups[int(numbers[0])] = int(numbers[1])
        else:
            groups.pop(int(numbers[0]), None)
    with contextlib.suppress(OSError):
        os.unlink(sys.argv[1])
    end(groups)


if __name__ == "__main__":
    main()
