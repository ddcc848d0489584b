"""Real servers for tests and benchmarks: private, on random loopback ports, gone with the process that started them.

    with start_valkey() as valkey:                      # settings as in production: AOF, fsync always, noeviction
    with start_valkey(maxmemory="8mb") as valkey:       # any directive, `_` for `-`
    with start_postgres() as postgres:                  # real settings; fsync=off and the like as keywords
        valkey.url, valkey.pid
        valkey.kill()                                   # SIGKILL, gone when this returns
        valkey.start()                                  # again: same data, same port, ready when this returns
        valkey.pause(); valkey.resume()                 # SIGSTOP, SIGCONT: accepts connections, answers nothing
        valkey.stop()                                   # orderly
        postgres.new_database()                         # a context manager: the URL of an empty database

Given a directory they leave their data there; without one they make one and remove it. Started from the main thread
they die with the process (Linux), even one killed by SIGKILL.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from web.cli.folder import free_port
from web.cli.postgres_server import PostgresServer
from web.cli.process import spawn
from web.cli.valkey_server import ValkeyServer

START_WAIT_S = 30.0


def eventually(holds: Callable[[], object], within_s: float = 10.0, every_s: float = 0.02) -> None:
    """Poll until `holds()` is true or answers without an AssertionError; then go on. Else fail with the last word."""
    deadline = time.monotonic() + within_s
    while True:
        failure: AssertionError | None = None
        try:
            if holds() is not False:
                return
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            raise failure or AssertionError(f"{holds} did not come true within {within_s} s")
        time.sleep(every_s)


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """A directory that the servers' user reaches too (pytest's own are closed to it when we are root)."""
    parent = Path("/var/tmp" if os.geteuid() == 0 else tempfile.gettempdir())
    _remove_those_of_the_dead(parent)
    directory = Path(tempfile.mkdtemp(prefix=f"blotter-test-{os.getpid()}-", dir=parent))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _remove_those_of_the_dead(parent: Path) -> None:
    """A test process that was killed could not clean up."""
    for left in parent.glob("blotter-test-*-*"):
        pid = left.name.split("-")[2]
        with contextlib.suppress(PermissionError, ValueError):
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                shutil.rmtree(left, ignore_errors=True)


class Running:
    """A server's process, to be ended and begun again on the same data and port."""

    def __init__(
        self, server: PostgresServer | ValkeyServer, log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.server = server
        self.log = log
        self._command = server.command({"PATH": "/usr/bin:/bin", **(environ or {})})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def pid(self) -> int:
        assert self._process is not None, "not running"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert self._process is None, "already running"
        self._process = spawn(self._command, self.log)
        deadline = time.monotonic() + START_WAIT_S
        while missing := self.server.why_not_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(
                    f"{self.server.name} did not start: {missing}\n{self.log.read_text()[-2000:]}"
                )
            time.sleep(0.01)

    def stop(self) -> None:
        """End it in order; nothing happens when it is not running."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(self._command.stop_signal)
            self._process.wait(timeout=self._command.stop_wait_s)
            self._process = None

    def kill(self) -> None:
        """SIGKILL; returns when it and what it forked are gone."""
        if self._process is not None:
            family = self._family()
            self._process.kill()
            self._process.wait()
            self._process = None
            # PostgreSQL's children notice the death of their parent; stopped ones cannot.
            for pid in family[1:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it and all it forked: connections are accepted by the kernel, nothing is answered."""
        for pid in self._family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self._family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _family(self) -> list[int]:
        import psutil

        if self._process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children(recursive=True)
            return [self.pid, *(child.pid for child in children)]
        return [self.pid]


class RunningPostgres(Running):
    """PostgreSQL, with databases to give away."""

    server: PostgresServer

    def __init__(self, server: PostgresServer, log: Path) -> None:
        super().__init__(server, log)
        self._numbers = itertools.count(1)

    @contextlib.contextmanager
    def new_database(self, template: str = "template0") -> Iterator[str]:
        """The URL of a new database cloned from `template` (to which nobody may be connected)."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self.server.create_database(name, template)
        try:
            yield self.server.url_of(name)
        finally:
            if self._process is not None:
                self.server.drop_database(name)


@contextlib.contextmanager
def start_valkey(
    directory: Path | None = None,
    *,
    role: str = "buffer",
    password: str = "",
    environ: Mapping[str, str] | None = None,
    **directives: str,
) -> Iterator[Running]:
    """A ready Valkey in `directory`, or in one of its own. `role`: see web.cli.valkey_server. `environ`: what it has more."""
    with contextlib.ExitStack() as stack:
        folder = directory or stack.enter_context(private_directory())
        server = ValkeyServer(
            name=role,
            data=folder / role,
            port=free_port(),
            password=password,
            role=role,
            directives={name.replace("_", "-"): value for name, value in directives.items()},
        )
        server.prepare()
        running = Running(server, folder / f"{role}.log", environ)
        stack.callback(running.kill)
        running.start()
        yield running
        running.stop()


@contextlib.contextmanager
def start_postgres(directory: Path | None = None, **settings: str) -> Iterator[RunningPostgres]:
    """A ready PostgreSQL with an empty database `blotter` (`.url`), in `directory` or in one of its own.

    Settings are those of production; `**settings` goes over them. As root, `directory` must be one that others can
    pass through (see `private_directory`), else the data lies elsewhere and stays.
    """
    with contextlib.ExitStack() as stack:
        folder = directory or stack.enter_context(private_directory())
        server = PostgresServer(folder / "postgres", free_port(), password="test", settings=settings)
        server.prepare()
        running = RunningPostgres(server, folder / "postgres.log")
        stack.callback(running.kill)
        running.start()
        server.create_database()
        yield running
        running.stop()
