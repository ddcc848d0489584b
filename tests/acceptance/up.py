"""Drives `blotter up` as a process of its own, for acceptance tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).resolve().parent.parent.parent
STANDIN = Path(__file__).with_name("standin") / "Procfile"

# Runs `blotter up` on other programs than the real ones.
ON_STANDIN = """
import os, sys
from pathlib import Path
from web.cli.errors import CannotRun
from web.cli.folder import Folder
from web.cli.run import Wishes, run
from web.cli.up import say
try:
    migrate = sys.argv[3:] == ["migrate"]
    run(Wishes(Folder(Path(sys.argv[1])), None, None, dict(os.environ), Path(sys.argv[2]), migrate=migrate), say)
except CannotRun as error:
    sys.exit(f"Error: {error}")
"""


class Up:
    """One `blotter up` on `folder`. `programs=None` means the real ones; of others, `arguments` may be `migrate`."""

    def __init__(
        self,
        folder: Path,
        programs: Path | None = STANDIN,
        environ: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        if programs is None:
            blotter = str(Path(sys.executable).with_name("blotter"))
            argv = [blotter, "up", "--data", str(folder), *arguments]
        else:
            argv = [sys.executable, "-c", ON_STANDIN, str(folder), str(programs), *arguments]
        self.process = subprocess.Popen(
            argv,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_ready(self, within_s: float = 30.0) -> dict[str, str]:
        """Wait for DIR/env; what it says."""
        deadline = time.monotonic() + within_s
        path = self.folder / "env"
        while not path.exists():
            if self.process.poll() is not None:
                raise AssertionError(f"it ended: {self.said()}")
            if time.monotonic() > deadline:
                self.end()
                raise AssertionError(f"not ready within {within_s} s: {self.said()}")
            time.sleep(0.02)
        return dict(line.split("=", 1) for line in path.read_text().splitlines())

    def said(self) -> str:
        """All it wrote to stderr. Only after its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def family(self) -> list[psutil.Process]:
        """All processes it has started, and all that those have."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def cpu_s(self) -> float:
        """Processor time so far of it and of all it has started, in seconds."""
        used = 0.0
        for process in (psutil.Process(self.process.pid), *self.family()):
            with contextlib.suppress(psutil.NoSuchProcess):
                used += sum(process.cpu_times())
        return used

    def pid(self, name: str) -> int:
        """The process id of that program's main process, now; 0 while it has none."""
        try:
            return int((self.folder / "run" / f"{name}.pid").read_text().split()[0])
        except FileNotFoundError:
            return 0

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=45)

    def close(self) -> None:
        if self.process.poll() is None:
            try:
                self.end()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextlib.contextmanager
def up(
    folder: Path, programs: Path | None = STANDIN, environ: Mapping[str, str] | None = None
) -> Iterator[Up]:
    """A `blotter up`, ended in order at the latest when the block ends."""
    running = Up(folder, programs, environ)
    try:
        yield running
    finally:
        running.close()


def alive(processes: list[psutil.Process]) -> list[str]:
    """Those that still run; zombies, which only wait for their parent to look, do not."""
    left = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(f"{process.pid} {' '.join(process.cmdline())[:120]}")
    return left
