"""Other brokers than one Redis: RabbitMQ where it is installed (Debian: rabbitmq-server), and a pair under Sentinels."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError

from tests.servers import Running, eventually, start_valkey
from web.cli.folder import free_port
from web.cli.valkey_server import binary

_RABBIT = Path("/usr/lib/rabbitmq/bin")
MASTER = "doorbells"


class RabbitMq:
    """One node of its own: its ports, its data, its port mapper."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self._mapper = free_port(), free_port()
        self._environ = {
            "PATH": "/usr/bin:/bin:/usr/sbin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._mapper),
            "RABBITMQ_NODENAME": f"blotter-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        }
        (folder / "plugins").write_text("[].\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        with (self.folder / "rabbitmq.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(_RABBIT / "rabbitmq-server")], env=self._environ, stdout=log, stderr=log, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip
        eventually(self._answers, within_s=60, every_s=0.2)

    def _answers(self) -> bool:
        from kombu import Connection

        with contextlib.suppress(Exception), Connection(self.url, connect_timeout=1.0) as connection:
            transport = connection.transport
            transport.close_connection(transport.establish_connection())
            return True
        return False

    def queues(self) -> str:
        """Names and types of its queues."""
        command = [str(_RABBIT / "rabbitmqctl"), "-q", "list_queues", "name", "type", "messages"]
        done = subprocess.run(
            command, env=self._environ, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None
        # The port mapper is no child of it.
        subprocess.run(
            ["epmd", "-port", str(self._mapper), "-kill"], env=self._environ, capture_output=True, check=False
        )


@contextlib.contextmanager
def start_rabbitmq() -> Iterator[RabbitMq]:
    """A node that answers; skips the test where the program is missing."""
    if not (_RABBIT / "rabbitmq-server").exists() or shutil.which("epmd") is None:
        pytest.skip("RabbitMQ is not installed (Debian: apt-get install rabbitmq-server)")
    folder = Path(tempfile.mkdtemp(prefix="blotter-test-rabbitmq-"))
    made = RabbitMq(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Watched:
    """A primary and a replica for doorbells, and the Sentinel that watches them."""

    def __init__(self, servers: list[Running], port: int) -> None:
        self.servers = servers
        self._sentinel: Any = redis.Redis(port=port, socket_timeout=2.0)
        self.url = f"sentinel://127.0.0.1:{port}"

    def primary(self) -> Running:
        _, port = self._sentinel.sentinel_get_master_addr_by_name(MASTER)
        return next(server for server in self.servers if server.port == port)

    def ready(self) -> bool:
        with contextlib.suppress(RedisError):
            return int(self._sentinel.sentinel_master(MASTER)["num-slaves"]) == 1
        return False


@contextlib.contextmanager
def start_watched() -> Iterator[Watched]:
    """A broker that fails over by itself."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(start_valkey(role="broker")) for _ in range(2)]
        with redis.Redis(port=servers[1].port) as replica:
            replica.execute_command("REPLICAOF", "127.0.0.1", str(servers[0].port))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        configuration = folder / "sentinel.conf"
        configuration.write_text(
            f'port {port}\nbind 127.0.0.1\ndir "{folder}"\nlogfile ""\n'
            f"sentinel monitor {MASTER} 127.0.0.1 {servers[0].port} 1\n"
            f"sentinel down-after-milliseconds {MASTER} 1000\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
        )
        log = stack.enter_context((folder / "sentinel.log").open("ab"))
        process = subprocess.Popen([str(binary()), str(configuration), "--sentinel"], stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        watched = Watched(servers, port)
        eventually(watched.ready, within_s=30, every_s=0.1)
        yield watched
