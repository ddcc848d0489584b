"""The web program as a process of its own, on servers that a test was given; and tokens for it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jwt

from tests.servers import START_WAIT_S
from web.cli.folder import free_port
from web.cli.process import Command, spawn

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SECRET = "a-secret-of-tests-that-is-long-enough-for-hs256"


def token(owner: str, *scopes: str, ttl_s: int = 3600) -> str:
    """A bearer token that `web_process` takes."""
    claims = {"sub": owner, "exp": int(time.time()) + ttl_s, "scope": " ".join(scopes)}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def environment(database_url: str, buffer_url: str, **settings: str) -> dict[str, str]:
    """What web and workers need to run on these servers. No broker answers: bells are not rung."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "DATABASE_URL": database_url,
        "REDIS_URL": buffer_url,
        "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
        "BLOTTER_JWT_SECRET": SECRET,
        "BLOTTER_OWNER_REQUESTS_PER_MINUTE": "0",
        "BLOTTER_OWNER_BYTES_PER_MINUTE": "0",
        "BLOTTER_PARTITIONS": "4",
        "BLOTTER_STORE_CONNECT_MS": "5000",
        "BLOTTER_LOG_LEVEL": "WARNING",
        **settings,
    }


@contextmanager
def web_process(environ: dict[str, str], *, threads: int = 8, port: int | None = None) -> Iterator[str]:
    """The base URL of a granian that serves `web.app`; ready when this enters, gone when it leaves."""
    port = port or free_port()
    argv = [
        *("granian", "--interface", "asgi", "--factory", "--host", "127.0.0.1", "--port", str(port)),
        *("--http", "1", "--no-ws", "--workers", "1", "web.edge:create_app"),
    ]
    with tempfile.TemporaryDirectory(prefix="blotter-web-") as folder:
        log = Path(folder) / "web.log"
        process = spawn(Command("web", argv, {**environ, "WEB_THREADS": str(threads)}, CHECKOUT), log)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_ready(url, process.poll, log)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except Exception:
                process.kill()
                process.wait()
                raise


def _wait_ready(url: str, ended: object, log: Path) -> None:
    deadline = time.monotonic() + START_WAIT_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError) as error:
            dead = callable(ended) and ended() is not None
            if dead or time.monotonic() > deadline:
                raise AssertionError(f"web did not start: {error}\n{log.read_text()[-3000:]}") from error
        time.sleep(0.02)
