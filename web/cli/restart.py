"""`blotter restart`: programs of a running `blotter up` begin anew, with the code that is there now, and no save fails.

web and events get SIGHUP: granian replaces its processes one after the other, each new one listening for some seconds
before an old one is told to end what it has. The others get SIGTERM: they end what they are at (a worker, its batch), and
`blotter up` starts them again; meanwhile saves are taken and wait in the buffer. Settings stay those `blotter up` was
started with; a file that a setting names (keys) is read again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from web.cli.errors import CannotRun
from web.cli.folder import Folder, default_folder
from web.cli.options import folder_option, timeout_option
from web.cli.session import json_option, print_json

#: In this order: who stores what the others take first, so that new rows meet code that knows them.
PROGRAMS: Final = ("worker", "beat", "assistant", "events", "web")
SERVED_BY_GRANIAN: Final = ("events", "web")
LOOK_S: Final = 0.1


@click.command(epilog="Example: blotter db upgrade && blotter restart")
@click.argument("programs", nargs=-1, type=click.Choice(PROGRAMS), metavar="[PROGRAM]...")
@timeout_option(120.0, "Give up waiting for a program after this.")
@json_option
@folder_option
def command(programs: tuple[str, ...], timeout_s: float, as_json: bool, data: Path | None) -> None:
    """Restart programs of a running `blotter up`, one after the other, without a failed save. Default: all of them.

    PROGRAM is worker, beat, assistant, events or web; the servers stay.

    Exit code: 0 they run anew, 1 one did not within the time, 2 no `blotter up` runs there.
    """
    folder = Folder(data.absolute() if data else default_folder(os.environ))
    if not folder.read_env():
        raise CannotRun(
            f"no Blotter is running in {folder.root}: start one with `blotter up --data {folder.root}`"
        )
    took: dict[str, float] = {}
    for name in PROGRAMS if not programs else dict.fromkeys(programs):
        began = time.monotonic()
        done = restart(folder, name)
        while not done():
            if time.monotonic() - began > timeout_s:
                raise click.ClickException(
                    f"{name} did not come back within {timeout_s:g} s: see {folder.logs / name}.log"
                )
            time.sleep(LOOK_S)
        took[name] = round(time.monotonic() - began, 1)
        if not as_json:
            click.echo(f"{name} runs anew, after {took[name]:g} s", err=True)
    if as_json:
        print_json({"restarted": took})


def restart(folder: Folder, name: str) -> Callable[[], bool]:
    """Ask ``name`` to begin anew; returns whether it has. Raises CannotRun where it does not run.

    One that dies meanwhile is begun anew by `blotter up`, which is as good.
    """
    import psutil

    pid = running(folder, name)
    if pid is None:
        raise CannotRun(f"{name} does not run in {folder.root}: see {folder.logs / name}.log")
    old = workers_of(pid)
    served = name in SERVED_BY_GRANIAN
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).send_signal(signal.SIGHUP if served else signal.SIGTERM)

    def done() -> bool:
        now = running(folder, name)
        if now is None or not served:
            return now not in (None, pid)
        return len(workers := workers_of(now)) >= len(old) and not old & workers

    return done


def running(folder: Folder, name: str) -> int | None:
    """The process id of a program of that `blotter up`; None while it has none."""
    from web.cli.supervisor import began_at

    try:
        pid, _, began = (folder.run / f"{name}.pid").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if began_at(int(pid)) == began else None


def workers_of(main: int) -> set[int]:
    """The processes of a granian that answer requests: all but the one that multiprocessing keeps its books with."""
    import psutil

    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(main).children():
            with contextlib.suppress(psutil.Error):
                if child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(
                    child.cmdline()
                ):
                    found.add(child.pid)
    return found
