"""The data folder of `blotter up`: what lies where, who may use it, and what outlives a run.

    DIR/env             KEY=VALUE, written when everything is ready; what every other command reads
    DIR/lock            held by the running `blotter up` and by its guardian
    DIR/ports.json      the ports chosen once, so that addresses survive a restart
    DIR/secrets/        passwords and the token signing key, one per file, 0600
    DIR/run/            pid files, generated server configuration, beat's schedule
    DIR/logs/           one file a process
    DIR/postgres, DIR/buffer, DIR/broker    the servers' data

Laws: a file is replaced whole or not at all; secrets are never readable by others, not even for a moment;
one `blotter up` at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from web.cli.errors import CannotRun

# Below the ephemeral ranges of Linux (32768) and macOS (49152): while a server is down, a client's outgoing
# connection can neither take its port nor, by connecting from that very port, connect to itself.
PORTS = range(15_000, 32_000)

# The guardian of a killed run needs this long at most to stop what is left.
LOCK_WAIT_S = 20.0


def default_folder(environ: Mapping[str, str]) -> Path:
    """The folder used when neither --data nor BLOTTER_DATA names one."""
    if environ.get("BLOTTER_DATA"):
        return Path(environ["BLOTTER_DATA"]).absolute()
    if environ.get("XDG_DATA_HOME"):
        return Path(environ["XDG_DATA_HOME"]).absolute() / "blotter"
    try:
        return Path.home() / ".local" / "share" / "blotter"
    except RuntimeError:
        raise CannotRun("this user has no home folder; name a folder with --data DIR") from None


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now. SO_REUSEADDR, because servers set it too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def claim_port(port: int, host: str = "127.0.0.1") -> socket.socket | None:
    """Keep other `blotter up` off a port until what is returned is closed, or this process dies; None: one has it.

    granian shares its port with whoever asks (SO_REUSEPORT), so two that start at once would both find it free, and each
    would get some of the other's requests. The UDP port of that number is nobody's but the first's, and needs no file
    that outlives a crash.
    """
    claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        claim.bind((host, port))
    except OSError:
        claim.close()
        return None
    return claim


def is_claimed(port: int) -> bool:
    """Whether another `blotter up` has claimed that port."""
    claim = claim_port(port)
    if claim is not None:
        claim.close()
    return claim is None


def _ports_in(path: Path) -> dict[str, int]:
    """The ports of a ports.json; what is none in it is left out, for each can be chosen anew."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: port for name, port in found.items() if isinstance(port, int) and 0 < port < 65536}


def free_port(avoid: frozenset[int] = frozenset()) -> int:
    """A port outside the ephemeral ranges on which nobody listens."""
    for _ in range(200):
        port = random.choice(PORTS)  # noqa: S311 - not a secret
        if port not in avoid and port_is_free(port) and not is_claimed(port):
            return port
    raise CannotRun(f"no free port between {PORTS.start} and {PORTS.stop} on 127.0.0.1")


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace `path` by `text` so that a reader sees the old file or the new one, never half of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class Folder:
    """A data folder. Paths only; nothing is created before `create`."""

    root: Path

    @property
    def env_file(self) -> Path:
        return self.root / "env"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def create(self) -> None:
        """Make the folder and its private parts. Raises CannotRun when the place cannot hold them."""
        try:
            # 0711: PostgreSQL, when it runs as another user, passes through; everything inside has its own rights.
            self.root.mkdir(mode=0o711, parents=True, exist_ok=True)
            for private in (self.secrets, self.run, self.logs):
                private.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise CannotRun(
                f"{self.root} cannot be used ({error.strerror}); name another folder with --data DIR"
            ) from error
        if self.secrets.stat().st_mode & 0o077:
            raise CannotRun(
                f"the file system of {self.root} does not keep Unix rights (a Windows drive?); "
                "name a folder on a Linux file system with --data DIR"
            )

    def secret(self, name: str, size: int = 32) -> str:
        """The secret of that name: `size` random bytes as hex, made at first use."""
        path = self.secrets / name
        if not path.exists():
            write_atomically(path, secrets.token_hex(size))
        return path.read_text().strip()

    def port(self, name: str, wanted: range = range(0)) -> int:
        """The remembered port of that server, chosen anew when somebody else has taken it: from ``wanted``, if it can be."""
        path = self.root / "ports.json"
        ports = _ports_in(path)
        if name not in ports or not port_is_free(ports[name]) or is_claimed(ports[name]):
            others = frozenset(ports.values())
            free = (
                port for port in wanted if port not in others and port_is_free(port) and not is_claimed(port)
            )
            ports[name] = next(free, None) or free_port(others)
            write_atomically(path, json.dumps(ports, indent=2) + "\n")
        return ports[name]

    def write_env(self, values: Mapping[str, str]) -> None:
        """Publish the addresses of a run that is ready."""
        write_atomically(self.env_file, "".join(f"{name}={value}\n" for name, value in values.items()))

    def read_env(self) -> dict[str, str]:
        """What the last ready run published; empty when there was none."""
        try:
            lines = self.env_file.read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except PermissionError:
            raise CannotRun(f"{self.env_file} belongs to another user; run this as that user") from None
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def lock(self) -> int:
        """Take the folder for this process and return the lock's descriptor, to be kept open (and handed on).

        A holder that is alive refuses us at once. One that was killed has left its guardian behind, which holds
        the lock until nothing of that run is left: for that one we wait.
        """
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(handle, 32, 0).decode().strip()
                if _is_running(holder) or time.monotonic() > deadline:
                    os.close(handle)
                    raise CannotRun(
                        f"{self.root} is in use by `blotter up` (process {holder or 'unknown'}); "
                        "stop that one first or name another folder with --data DIR"
                    ) from None
                time.sleep(0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        return handle


def _is_running(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
