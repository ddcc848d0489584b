"""Starts the programs of `blotter up`, starts again what dies, and ends everything in order.

Why not supervisord: tried with version 4.3.0 and granian, it does not meet three needs. Killed itself, it leaves every
program running (no parent-death signal). When a program's main process is killed, what that one had forked lives on:
its `killasgroup` works only for stops it was asked for, so two orphaned web processes went on answering on the port
of their successor. And its control socket is a Unix socket in the data folder, whose path may be too long. A wrapper
around each program would have to do most of what stands below.

Laws: whatever this process started is registered with the guardian before anything else happens, and is gone before
`stop` returns. When a main process ends, the rest of its group is killed before it is started again. A program that
keeps dying is tried ever more slowly, never given up.

One thread. Signals only wake it (through a pipe), so that nothing happens in a handler.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from web.cli.errors import CannotRun
from web.cli.folder import Folder, write_atomically
from web.cli.guardian import group_is_alive
from web.cli.process import Command, signal_group, spawn

# A program that ran this long has recovered: its next death is its first.
HEALTHY_AFTER_S = 30.0
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 30.0
# During start-up, a program that died this often will not come up.
HOPELESS_AFTER = 3
LOG_LIMIT_BYTES = 16 * 1024 * 1024
LOG_CHECK_S = 5.0
TICK_S = 0.25
POLL_S = 0.05

GUARDIAN = Path(__file__).with_name("guardian.py")


class StopRequested(Exception):
    """A signal asked for the end while something was being waited for."""


def delay_s(failures: int) -> float:
    """How long to wait before start number `failures` + 1: 0.2 s, doubling up to 30 s."""
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (failures - 1)))


@dataclass
class Part:
    """One program: what it is, its process while it has one, and its past."""

    command: Command
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_at_s: float = 0.0
    failures: int = 0
    start_again_at_s: float = 0.0


class Supervisor:
    """The parts of one run, in the order of their start."""

    def __init__(self, folder: Folder, lock: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._say = say
        self._parts: dict[str, Part] = {}
        self._logs_checked_at_s = 0.0
        self.stop_requested = False
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._lock = lock
        self._guardian = self._start_guardian()

    def _start_guardian(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARDIAN), str(self._folder.env_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            pass_fds=[self._lock],
            # Out of the reach of a terminal's Ctrl-C and of a kill of our group.
            start_new_session=True,
            cwd="/",
        )

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """While inside, SIGINT, SIGTERM and SIGHUP ask for an orderly end; a second one does not change that."""

        def ask(number: int, frame: object) -> None:
            self.stop_requested = True

        handled = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD]
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            handled.remove(signal.SIGHUP)  # started by nohup: shall outlive its terminal
        before = {number: signal.getsignal(number) for number in handled}
        wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in handled[:-1]:
            signal.signal(number, ask)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, command: Command) -> Part:
        """Start a program for the first time; from now on it is kept running."""
        part = Part(command, self._folder.logs / f"{command.name}.log")
        self._parts[command.name] = part
        self._start(part)
        return part

    def _start(self, part: Part) -> None:
        _bound(part.log)
        part.process = spawn(part.command, part.log)
        self._register(part)
        part.started_at_s = time.monotonic()
        self._note(part)

    def _note(self, part: Part) -> None:
        """Write its pid file. On a full disk it is done without, and tried again: the guardian knows the program anyway."""
        assert part.process is not None
        pid, death = part.process.pid, int(part.command.death_signal)
        with contextlib.suppress(OSError):
            write_atomically(self._pid_file(part), f"{pid} {death} {began_at(pid)}\n")

    def _register(self, part: Part) -> None:
        if part.process is not None:
            self._tell_guardian(f"+ {part.process.pid} {int(part.command.death_signal)}")

    def _tell_guardian(self, line: str) -> None:
        """A guardian that is gone misses nothing: its successor is told everything."""
        assert self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guardian.stdin.write(line + "\n")
            self._guardian.stdin.flush()

    def _look_after_guardian(self) -> None:
        if self._guardian.poll() is not None:
            assert self._guardian.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._guardian.stdin.close()
            self._guardian = self._start_guardian()
            for part in self._parts.values():
                self._register(part)

    def _pid_file(self, part: Part) -> Path:
        return self._folder.run / f"{part.command.name}.pid"

    def tick(self, timeout_s: float = TICK_S) -> None:
        """Sleep until something happens or the time is up, then do what is due."""
        ready, _, _ = select.select([self._wake_read], [], [], timeout_s)
        if ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        now_s = time.monotonic()
        self._look_after_guardian()
        for part in self._parts.values():
            if part.process is not None:
                self._look_after(part, now_s)
            elif now_s >= part.start_again_at_s:
                self._start_again(part, now_s)
        if now_s - self._logs_checked_at_s > LOG_CHECK_S:
            self._logs_checked_at_s = now_s
            for part in self._parts.values():
                _bound(part.log)
                if part.process is not None and not self._pid_file(part).exists():
                    self._note(part)

    def _start_again(self, part: Part, now_s: float) -> None:
        """What the machine refuses now (memory, a place on its disk) is tried again: the others go on meanwhile."""
        try:
            self._start(part)
        except OSError as error:
            part.failures += 1
            wait_s = delay_s(part.failures)
            self._say(f"{part.command.name} cannot be started ({error.strerror}); again in {wait_s:g} s")
            part.start_again_at_s = now_s + wait_s

    def _look_after(self, part: Part, now_s: float) -> None:
        """Bury a program that has died, with all it forked, and set the time of its next start."""
        assert part.process is not None
        if part.process.poll() is None:
            return
        if now_s - part.started_at_s > HEALTHY_AFTER_S:
            part.failures = 0
        part.failures += 1
        wait_s = delay_s(part.failures)
        self._say(
            f"{part.command.name} {_ending(part.process.returncode)}; starting it again in {wait_s:g} s"
        )
        self._bury(part)
        part.start_again_at_s = now_s + wait_s

    def _bury(self, part: Part) -> None:
        assert part.process is not None
        signal_group(part.process.pid, signal.SIGKILL)
        self._tell_guardian(f"- {part.process.pid}")
        self._pid_file(part).unlink(missing_ok=True)
        part.process = None

    def wait_until(self, part: Part, why_not: Callable[[], str], within_s: float) -> None:
        """Go on when `why_not()` answers with nothing.

        Raises CannotRun when that takes too long, or when any part dies again and again: a run that reports itself
        ready has all its parts. StopRequested when a signal came.
        """
        deadline_s = time.monotonic() + within_s
        name = part.command.name
        while True:
            self.tick(POLL_S)
            if self.stop_requested:
                raise StopRequested
            for other in self._parts.values():
                if other.failures >= HOPELESS_AFTER:
                    why = last_words(other.log).removeprefix("Error: ")
                    raise CannotRun(f"{other.command.name} does not start: {why} (see {other.log})")
            reason = why_not() if part.process is not None else "it died"
            if not reason and part.process is not None:
                return
            if time.monotonic() > deadline_s:
                raise CannotRun(f"{name} was not ready within {within_s:g} s: {reason} (see {part.log})")

    def run(self) -> None:
        """Keep everything running until a signal asks for the end."""
        while not self.stop_requested:
            self.tick()

    def stop(self, name: str) -> None:
        """End one program: ask, wait, then kill it and all it forked. From now on it is not kept running."""
        part = self._parts.pop(name, None)
        if part is None or part.process is None:
            return
        part.process.send_signal(part.command.stop_signal)
        try:
            part.process.wait(timeout=part.command.stop_wait_s)
        except subprocess.TimeoutExpired:
            self._say(f"{name} did not end within {part.command.stop_wait_s:g} s; killing it")
            part.process.kill()
            part.process.wait()
        self._bury(part)

    def close(self) -> None:
        """End the guardian too; whatever is still registered it ends first."""
        assert self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guardian.stdin.close()
        self._guardian.wait()
        os.close(self._wake_read)
        os.close(self._wake_write)

    @property
    def names(self) -> list[str]:
        return list(self._parts)


def clear_leftovers(folder: Folder, say: Callable[[str], None]) -> None:
    """End what a former run left behind although its guardian was killed as well. Only what is surely ours."""
    for pid_file in sorted(folder.run.glob("*.pid")):
        words = pid_file.read_text().split()
        if len(words) == 3:
            group, death, started_at = int(words[0]), int(words[1]), words[2]
            if group_is_alive(group) and _is_ours(group, started_at, folder):
                say(f"ending {pid_file.stem} of a former run (process group {group})")
                signal_group(group, signal.Signals(death))
                deadline = time.monotonic() + 15
                while group_is_alive(group):
                    if time.monotonic() > deadline:
                        signal_group(group, signal.SIGKILL)
                    time.sleep(0.02)
        pid_file.unlink(missing_ok=True)


def _is_ours(group: int, started_at: str, folder: Folder) -> bool:
    """A group's number may have gone to somebody else: compare its leader's start, and its members' folder. For pid files
    may come from elsewhere too: in a copy of a folder that is in use, they name the programs of the other one.
    """
    import psutil

    led = psutil.pid_exists(group) and psutil.Process(group).status() != psutil.STATUS_ZOMBIE
    if led and began_at(group) != started_at:
        return False
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, KeyError):
            if os.getpgid(process.pid) == group:
                return os.path.samefile(process.environ()["BLOTTER_DATA"], folder.root)
    return False


def began_at(pid: int) -> str:
    """When that process began, as text that compares equal only for the same process."""
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.NoSuchProcess:
        return "0"


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    return f"was killed ({signal.Signals(-code).name})"


def last_words(log: Path) -> str:
    """The line of a log that tells best why its program ended: the last that names an error, else the last."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    errors = [line for line in lines if re.search(r"(Error|Exception|refuses)\b", line)]
    return (errors or lines or [""])[-1].strip()


def _bound(log: Path) -> None:
    """Keep a log and its predecessor below the limit. Writers append, so they go on at the start of the emptied file;
    a line written in between is lost, which a log may.
    """
    try:
        if log.stat().st_size < LOG_LIMIT_BYTES:
            return
    except FileNotFoundError:
        return
    # In slices: a log that grows while it is copied must not keep us here. On a full disk there is no predecessor.
    with (
        contextlib.suppress(OSError),
        log.open("rb") as source,
        log.with_name(log.name + ".1").open("wb") as kept,
    ):
        source.seek(max(0, log.stat().st_size - LOG_LIMIT_BYTES))
        kept.write(source.read(LOG_LIMIT_BYTES))
    os.truncate(log, 0)
