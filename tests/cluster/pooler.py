"""A real pgbouncer in transaction mode before a Postgres, where the program is installed (Debian: pgbouncer).

with start_pgbouncer(postgres, limits=True) as pooler:
    pooler.url_of(database_url)       the same database through the pooler
    pooler.stop()                     SIGTERM; pooler.start() brings it back on its port
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.servers import RunningPostgres, eventually, private_directory
from web.cli.folder import free_port

#: As `models/postgres/engine.py` sets them where nobody stands between, and deploy/SCALE-OUT.md says to set them.
LIMITS = {
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "5s",
    "timezone": "UTC",
}
_CONFIGURATION = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
ignore_startup_parameters = options
server_login_retry = 0.2
"""


class Pooler:
    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def url_of(self, database_url: str) -> str:
        parts = urlsplit(database_url)
        return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self.port}").geturl()

    def start(self) -> None:
        # It refuses to run as root.
        user = {"user": "nobody"} if os.geteuid() == 0 else {}
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None
        with (self._folder / "pgbouncer.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(self._folder / "pgbouncer.ini")], stdout=log, stderr=log, **user
            )
        eventually(self._listens)

    def _listens(self) -> bool:
        import socket

        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False

    def stop(self) -> None:
        """SIGTERM: it ends at once, whatever its clients are about."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=10)
            self._process = None


@contextlib.contextmanager
def start_pgbouncer(postgres: RunningPostgres) -> Iterator[Pooler]:
    """A pooler that is ready; skips the test where the program is missing."""
    if shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    server = urlsplit(postgres.url)
    with private_directory() as folder:
        folder.chmod(0o755)
        listen = free_port()
        values = {"host": server.hostname, "port": server.port, "listen": listen, "folder": folder}
        (folder / "pgbouncer.ini").write_text(_CONFIGURATION.format(**values))
        (folder / "users.txt").write_text(f'"{server.username}" "{server.password}"\n')
        pooler = Pooler(folder, listen)
        pooler.start()
        try:
            yield pooler
        finally:
            pooler.stop()


def set_limits(database_url: str) -> None:
    """What a connection through the pooler cannot ask for itself."""
    parts = urlsplit(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        for name, value in LIMITS.items():
            connection.execute(
                f'ALTER ROLE "{parts.username}" IN DATABASE "{parts.path[1:]}" SET {name} = \'{value}\''
            )
