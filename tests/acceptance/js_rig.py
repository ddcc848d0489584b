"""A whole Blotter from its Procfile, on private servers, with a door through which another process can break it.

    python -m tests.acceptance.js_rig          # prints BASE_URL, TOKEN, CONTROL_URL … and runs until interrupted

The door takes `POST /NAME/VERB`: NAME is web, worker, beat (kill, start), postgres (kill, start, pause, resume) or
buffer (lose: back, and empty). It answers 204 when that is done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import redis

from models.settings import load
from tests.servers import Running, eventually, private_directory, start_postgres, start_valkey
from web.cli.folder import free_port
from web.cli.process import Command, signal_group, spawn
from web.cli.procfile import read_procfile
from web.cli.token import mint

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SECRET = "a secret of the tests, long enough for HS256"


class Program:
    """One line of the Procfile, to be killed and begun again."""

    def __init__(self, name: str, argv: list[str], environ: Mapping[str, str], log: Path) -> None:
        self._command = Command(name=name, argv=argv, environ=environ, cwd=CHECKOUT)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is None:
            self._process = spawn(self._command, self._log)

    def kill(self) -> None:
        if self._process is not None:
            signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Rig:
    """What runs: `environ` is what a client must know."""

    def __init__(
        self, buffer: Running, postgres: Running, programs: dict[str, Program], environ: dict[str, str]
    ) -> None:
        self.buffer = buffer
        self.postgres = postgres
        self.programs = programs
        self.environ = environ

    def do(self, name: str, verb: str) -> None:
        """Break or mend one thing; done when this returns."""
        if name == "buffer" and verb == "lose":
            with redis.Redis.from_url(self.buffer.url) as client:
                client.flushall()
        elif name == "postgres":
            getattr(self.postgres, verb)()
        else:
            getattr(self.programs[name], verb)()
            if verb == "start" and name == "web":
                self.wait_ready()

    def wait_ready(self) -> None:
        def ready() -> bool:
            with contextlib.suppress(httpx.TransportError):
                urls = [self.environ[name] for name in ("BASE_URL", "EVENTS_URL") if self.environ[name]]
                return all(httpx.get(f"{url}/readyz").status_code == 200 for url in urls)
            return False

        eventually(ready, within_s=90)  # five programs begin at once: on a busy machine that takes its time


@contextlib.contextmanager
def rig(**settings: str) -> Iterator[Rig]:
    """A running Blotter; `settings`: BLOTTER_… names over the tests' own."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(private_directory())
        postgres = stack.enter_context(start_postgres(fsync="off", full_page_writes="off"))
        buffer = stack.enter_context(start_valkey())
        broker = stack.enter_context(start_valkey(role="broker"))
        environ = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": os.environ.get("HOME", "/"),
            "DATABASE_URL": postgres.url,
            "REDIS_URL": buffer.url,
            "CELERY_BROKER_URL": broker.url,
            "BLOTTER_JWT_SECRET": SECRET,
            "BLOTTER_OWNER_REQUESTS_PER_MINUTE": "0",
            "BLOTTER_BEAT_SCHEDULE": str(folder / "schedule"),
            "BLOTTER_CORS_ORIGINS": "http://page.test",
            "HOST": "127.0.0.1",
            "PORT": str(free_port()),
            "EVENTS_PORT": str(free_port()),
            "WEB_CONCURRENCY": "1",
            "WORKER_CONCURRENCY": "1",
            **settings,
        }
        from models.postgres.migrate import upgrade

        upgrade(postgres.url)
        programs = {
            name: Program(name, argv, environ, folder / f"{name}.log")
            for name, argv in read_procfile(CHECKOUT / "Procfile").items()
        }
        for program in programs.values():
            stack.callback(program.kill)
            program.start()
        now_s, described = int(time.time()), load(environ)
        given = {
            "BASE_URL": f"http://127.0.0.1:{environ['PORT']}",
            "EVENTS_URL": f"http://127.0.0.1:{environ['EVENTS_PORT']}" if "events" in programs else "",
            "TOKEN": mint("ann", (), 86_400, now_s, described),
            "OTHER_TOKEN": mint("bob", (), 86_400, now_s, described),
            "EXPIRED_TOKEN": mint("ann", (), 1, now_s - 3600, described),
            "SECRET": SECRET,
        }
        running = Rig(buffer, postgres, programs, given)
        running.wait_ready()
        stack.enter_context(door(running))
        yield running


@contextlib.contextmanager
def door(running: Rig) -> Iterator[None]:
    """The control server; its address goes into `environ`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            _, name, verb = self.path.split("/")
            try:
                running.do(name, verb)
            except (AttributeError, KeyError, AssertionError, redis.RedisError) as error:
                self.send_error(500, str(error)[:200])
                return
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
            pass

    # One thread for all it does: what a thread starts dies with that thread (see web/cli/lifeline.py).
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        running.environ["CONTROL_URL"] = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    with rig() as started:
        for key, value in started.environ.items():
            print(f"{key}={value}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
