"""One run of everything on this machine: servers, migrations, programs, until a signal ends it.

    lock the folder → end leftovers → look at all settings → servers, each until it answers → migrate → programs of the Procfile
    → until the web answers → DIR/env → … → beat, assistant, web, worker, then broker, buffer, PostgreSQL

Beat goes first, for it makes work, then the demo's assistant, which writes through web; web before the workers, so that
what it accepted last is still flushed while somebody flushes; the servers last. Nothing depends on that order: what is not flushed lies in the buffer's file.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from web.cli.embedded import missing_servers
from web.cli.errors import CannotRun
from web.cli.folder import Folder, claim_port, port_is_free
from web.cli.process import Command
from web.cli.procfile import check_numbers, read_procfile
from web.cli.start import check_settings
from web.cli.supervisor import Part, StopRequested, Supervisor, clear_leftovers
from web.cli.valkey_server import ValkeyServer

CHECKOUT = Path(__file__).resolve().parent.parent.parent
DEFAULT_PORT = 8400
HOST = "127.0.0.1"
SERVER_WAIT_S = 60.0
PROGRAM_WAIT_S = 60.0
# Programs that end before the others, in this order; those not named end in between, servers after all.
FIRST_TO_END = ("beat", "assistant", "web")
LAST_TO_END = ("worker",)
KEY_VARIABLES = ("BLOTTER_JWT_SECRET", "BLOTTER_JWT_SECRET_FILE", "BLOTTER_JWKS_URL")


@dataclass(frozen=True)
class Wishes:
    """What the caller of `blotter up` asked for."""

    folder: Folder
    port: int | None
    workers: int | None
    environ: Mapping[str, str]
    procfile: Path = CHECKOUT / "Procfile"
    migrate: bool = True


def run(wishes: Wishes, say: Callable[[str], None]) -> None:
    """Run until a signal. Raises CannotRun with a sentence for the operator when it cannot go on."""
    folder = wishes.folder
    programs = read_procfile(wishes.procfile)
    folder.create()
    lock = folder.lock()
    try:
        # Whoever waits for the file must not take the last run's for this one's.
        folder.env_file.unlink(missing_ok=True)
        clear_leftovers(folder, say)
        supervisor = Supervisor(folder, lock, say)
        try:
            with supervisor.signals(), contextlib.ExitStack() as claims:
                try:
                    _bring_up(wishes, programs, supervisor, claims, say)
                    supervisor.run()
                except StopRequested:
                    pass
                finally:
                    _bring_down(folder, supervisor, say)
        finally:
            supervisor.close()
    finally:
        os.close(lock)


def _bring_up(
    wishes: Wishes,
    programs: Mapping[str, list[str]],
    supervisor: Supervisor,
    claims: contextlib.ExitStack,
    say: Callable[[str], None],
) -> None:
    folder = wishes.folder
    port = choose_port(wishes.port, folder)
    claims.enter_context(claimed(port))
    servers = missing_servers(folder, wishes.environ)
    environ = program_environ(wishes, port)
    if "events" in programs:
        # Kept from run to run: a page that is open goes on reading where it did.
        events_port = folder.port("events")
        claims.enter_context(claimed(events_port))
        environ.update(EVENTS_PORT=str(events_port), EVENTS_URL=f"http://{HOST}:{events_port}")
    # Before anything is started: the servers' addresses that are ours to give are missing yet, and right by default.
    check_numbers(programs, environ)
    check_settings(environ, lets_in=True)
    if servers:
        say(f"starting {', '.join(server.name for server in servers.values())} in {folder.root}")
    parts = []
    for variable, server in servers.items():
        server.prepare()
        part = supervisor.start(server.command({"BLOTTER_DATA": str(folder.root)}))
        parts.append((part, server))
        environ[variable] = server.url
    for part, server in parts:
        supervisor.wait_until(part, server.why_not_ready, SERVER_WAIT_S)
        server.create_database()
    if wishes.migrate:
        say("migrating the database")
        _migrate(environ["DATABASE_URL"])
    say(f"starting {', '.join(programs)}")
    started = {
        name: supervisor.start(
            Command(
                name=name,
                argv=argv,
                environ=environ | metrics_environ(folder) if name == "web" else environ,
                cwd=wishes.procfile.parent,
                stop_signal=signal.SIGTERM,
                stop_wait_s=15.0,
            )
        )
        for name, argv in programs.items()
    }
    if "web" in started:
        for path in ("/healthz", "/readyz"):
            supervisor.wait_until(
                started["web"], partial(why_not_ours, started["web"], port, path), PROGRAM_WAIT_S
            )
    if "events" in started:
        supervisor.wait_until(
            started["events"],
            partial(why_not_ours, started["events"], int(environ["EVENTS_PORT"]), "/readyz"),
            PROGRAM_WAIT_S,
        )
    broker = servers.get("CELERY_BROKER_URL")
    if "worker" in started and isinstance(broker, ValkeyServer):
        supervisor.wait_until(started["worker"], partial(why_not_consuming, broker), PROGRAM_WAIT_S)
    folder.write_env(published(environ))
    say(f"ready: {environ['BASE_URL']}/  (the demo chat)")
    say(f"addresses: {folder.env_file}   logs: {folder.logs}")


def _bring_down(folder: Folder, supervisor: Supervisor, say: Callable[[str], None]) -> None:
    folder.env_file.unlink(missing_ok=True)
    if not supervisor.names:
        return
    say("stopping")
    for name in order_of_end(supervisor.names):
        supervisor.stop(name)
    say("stopped")


def order_of_end(started: list[str]) -> list[str]:
    """The order in which to end what was started in the given order."""
    servers = [name for name in ("postgres", "buffer", "broker") if name in started]
    others = [name for name in started if name not in (*servers, *FIRST_TO_END, *LAST_TO_END)]
    wanted = [*FIRST_TO_END, *others, *LAST_TO_END, *reversed(servers)]
    return [name for name in wanted if name in started]


def choose_port(asked: int | None, folder: Folder) -> int:
    """The port asked for; else the one of the last run, at first the first free one from 8400 on."""
    if asked is not None:
        if not port_is_free(asked, HOST):
            raise CannotRun(f"port {asked} of {HOST} is taken; name another with --port N")
        return asked
    return folder.port("web", range(DEFAULT_PORT, DEFAULT_PORT + 100))


def claimed(port: int) -> socket.socket:
    """A claim on that port, to be closed. Raises CannotRun where another `blotter up` has one."""
    claim = claim_port(port, HOST)
    if claim is None:
        raise CannotRun(f"port {port} of {HOST} is taken by another `blotter up`; name another with --port N")
    return claim


def program_environ(wishes: Wishes, port: int) -> dict[str, str]:
    """What web, worker and beat get: the caller's environment, and ours over it."""
    folder = wishes.folder
    environ = dict(wishes.environ)
    programs = str(Path(sys.executable).parent)
    environ.update(
        PATH=f"{programs}{os.pathsep}{environ.get('PATH', os.defpath)}",
        PYTHONUNBUFFERED="1",
        BASE_URL=f"http://{HOST}:{port}",
        # Always ours: some shells export HOST, and only loopback may go without an owner's key.
        HOST=HOST,
        PORT=str(port),
        BLOTTER_DATA=str(folder.root),
        BLOTTER_EMBEDDED="1",
        BLOTTER_BEAT_SCHEDULE=str(folder.run / "beat-schedule"),
    )
    if wishes.workers is not None:
        environ["WORKER_CONCURRENCY"] = str(wishes.workers)
    if sys.platform == "darwin":
        # Celery's pool forks; Apple's frameworks abort a forked child that touches them.
        environ["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"
    if not any(environ.get(name) for name in KEY_VARIABLES):
        folder.secret("jwt")
        environ["BLOTTER_JWT_SECRET_FILE"] = str(folder.secrets / "jwt")
    return environ


def metrics_environ(folder: Folder) -> dict[str, str]:
    """What web needs for /metrics to count over all its processes: a folder of this run, empty.

    A process that dies leaves its counts there, and they stay part of the sums; those of the last run must not.
    """
    metrics = folder.run / "metrics"
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir(mode=0o700)
    return {"PROMETHEUS_MULTIPROC_DIR": str(metrics)}


def published(environ: Mapping[str, str]) -> dict[str, str]:
    """What DIR/env tells: addresses, keys, and every setting that was given, for commands that go by it."""
    from models.settings import Settings

    given = [str(field.alias) for field in Settings.model_fields.values()]
    names = (
        "BASE_URL",
        "EVENTS_URL",
        "DATABASE_URL",
        "REDIS_URL",
        "CELERY_BROKER_URL",
        *KEY_VARIABLES,
        "BLOTTER_JWT_AUDIENCE",
        "BLOTTER_JWT_ISSUER",
        "BLOTTER_EMBEDDED",
        *given,
    )
    return {name: environ[name] for name in dict.fromkeys(names) if environ.get(name)}


def why_not_ours(part: Part, port: int, path: str) -> str:
    """Empty when GET answers 200 and who answers is ``part``: another server may have the port."""
    return why_not_ok(port, path) or ("" if listens(part, port) else f"port {port} is another program's")


def listens(part: Part, port: int) -> bool:
    """Whether ``part``, or a process it started, listens on ``port``."""
    import psutil

    if part.process is None:
        return False
    with contextlib.suppress(psutil.Error):
        main = psutil.Process(part.process.pid)
        for process in (main, *main.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                for connection in process.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                        return True
    return False


def why_not_ok(port: int, path: str) -> str:
    """Empty when GET answers 200, else what it did instead."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2.0)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(500).decode(errors="replace")
        return (
            ""
            if response.status == http.client.OK
            else f"GET {path} answered {response.status} {' '.join(body.split())}"
        )
    except (OSError, http.client.HTTPException) as error:
        return f"GET {path}: {error}"
    finally:
        connection.close()


def why_not_consuming(broker: ValkeyServer) -> str:
    """Empty once a Celery worker waits for messages. Only then is what is saved stored at once, as promised."""
    blocked = broker.commands_of_clients()
    return "" if "brpop" in blocked else "no worker has asked the broker for messages"


def _migrate(database_url: str) -> None:
    from models.postgres.migrate import upgrade

    upgrade(database_url)
