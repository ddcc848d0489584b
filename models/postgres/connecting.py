"""Connections that keep their deadlines: to get one, and to hear from it.

libpq's ``connect_timeout`` counts whole seconds (psycopg's: two at least) and does not cover name resolution; the
server's ``statement_timeout`` does not help when the server is frozen or the network swallows packets. On the path of a
save neither will do: Postgres away has to be known within a quarter of a second. So:

- `connect` drives libpq's non-blocking handshake itself, to one deadline for everything: resolving, TCP, TLS,
  authentication. Each address of each host gets an equal share of what is left, so one that swallows packets cannot use
  up the time of the next.
- `WatchedConnection` gives up when nothing at all was heard from the server for a while. A long answer that keeps coming
  is never cut.

Rejected: a TCP probe before connecting (a second handshake per connection, and a frozen server accepts it);
connecting in a thread that is abandoned (unbounded threads while Postgres is away).
"""

from __future__ import annotations

import ipaddress
import select
import socket
from collections.abc import Iterator
from threading import Lock, Thread
from time import monotonic
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ConnStatus, PGconn, PollingStatus

from models import settings
from models.errors import SettingsError

_WAITS: Final = {PollingStatus.READING: select.POLLIN, PollingStatus.WRITING: select.POLLOUT}
#: One resolving thread a process: while the resolver hangs, others fail at once instead of piling up threads.
_resolving: Final = Lock()


class WatchedConnection(psycopg.Connection[Any]):
    """A psycopg connection that is closed, with an OperationalError, when the server is silent for ``silence_s``."""

    silence_s: float | None = None

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        if self.silence_s is None:
            return super().wait(gen, *args, **kwargs)
        return super().wait(self._watch(gen, self.silence_s), *args, **kwargs)

    def _watch(self, gen: Any, silence_s: float) -> Any:
        """``gen``, with an eye on the clock. psycopg resumes it every 0.1 s when nothing comes."""
        try:
            wanted = next(gen)
            heard = monotonic()
            while True:
                ready = yield wanted
                if ready:
                    heard = monotonic()
                elif monotonic() - heard > silence_s:
                    self.close()
                    raise psycopg.OperationalError(f"no answer from the server for {silence_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value


def libpq_url(database_url: str) -> str:
    """``database_url`` as libpq takes it: SQLAlchemy's ``+driver`` dropped. Raises SettingsError, which does not repeat it."""
    settings.load({"DATABASE_URL": database_url})
    url = f"postgresql://{database_url.partition('://')[2]}"
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise SettingsError(f"DATABASE_URL: {settings.ODD_ADDRESS}") from None
    return url


def connect(
    conninfo: str,
    *,
    within_s: float,
    silence_s: float | None = None,
    prepare_threshold: int | None = 5,
    **params: Any,
) -> WatchedConnection:
    """A connection, at most ``within_s`` seconds from now.

    ``conninfo``: what libpq takes, a ``postgresql://`` URL included; ``params`` go over it. ``prepare_threshold``: as
    in psycopg, None behind a pooler that shares server connections between clients.

    Raises psycopg.OperationalError, its ConnectionTimeout when the time is up.
    """
    deadline = monotonic() + within_s
    attempts = list(_addresses(conninfo_to_dict(conninfo, **params), deadline))
    last: psycopg.Error | None = None
    for number, attempt in enumerate(attempts):
        share = (deadline - monotonic()) / (len(attempts) - number)
        try:
            pgconn = _handshake(make_conninfo("", **attempt), monotonic() + share)
        except psycopg.OperationalError as error:
            last = error
            continue
        connection = WatchedConnection(pgconn)
        connection.prepare_threshold = prepare_threshold
        connection.silence_s = silence_s
        return connection
    raise last or psycopg.OperationalError("connection failed: no host given")


def _handshake(conninfo: str, deadline: float) -> Any:
    """A PGconn that is ready for statements, by the deadline. Raises psycopg.OperationalError."""
    pgconn = PGconn.connect_start(conninfo.encode())
    error = _drive(pgconn, deadline)
    if error is not None:
        pgconn.finish()
        raise error
    pgconn.nonblocking = 1
    return pgconn


def _drive(pgconn: Any, deadline: float) -> psycopg.OperationalError | None:
    """Follow libpq through the handshake, waiting on its socket where it asks to; what went wrong, if anything."""
    status = PollingStatus.WRITING
    while pgconn.status != ConnStatus.BAD and status is not PollingStatus.FAILED:
        if status is PollingStatus.OK:
            return None
        left = deadline - monotonic()
        poll = select.poll()
        poll.register(pgconn.socket, _WAITS[status])
        if left <= 0 or not poll.poll(left * 1000):
            return psycopg.errors.ConnectionTimeout("connection timeout expired")
        status = PollingStatus(pgconn.connect_poll())
    reason = pgconn.error_message.decode("utf-8", "replace").partition("\n")[0]
    return psycopg.OperationalError(f"connection failed: {reason}")


def _addresses(params: dict[str, Any], deadline: float) -> Iterator[dict[str, Any]]:
    """``params`` once for each address: hosts and ports split at commas, names resolved."""
    hosts = str(params.get("host") or "").split(",")
    given = str(params.get("hostaddr") or "").split(",")
    ports = str(params.get("port") or "").split(",")
    if params.get("hostaddr") and len(hosts) == 1:
        hosts *= len(given)
    for number, host in enumerate(hosts):
        port = ports[number] if len(ports) > 1 else ports[0]
        one = {**params, "host": host, "port": port}
        if params.get("hostaddr"):
            yield {**one, "hostaddr": given[number]}
        elif not host or host.startswith(("/", "@")) or _is_address(host):
            yield {name: value for name, value in one.items() if value != ""}
        else:
            for address in _resolve(host, deadline):
                yield {**one, "hostaddr": address}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolve(host: str, deadline: float) -> list[str]:
    """The addresses of ``host``, by the deadline: getaddrinfo knows none, so a thread waits for it in our stead."""
    found: list[str] = []
    failure: list[OSError] = []

    def look_up() -> None:
        try:
            found.extend(
                str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            )
        except OSError as error:
            failure.append(error)
        finally:
            _resolving.release()

    if not _resolving.acquire(timeout=max(0.0, deadline - monotonic())):
        raise psycopg.errors.ConnectionTimeout("connection timeout expired: the resolver does not answer")
    thread = Thread(target=look_up, name="blotter-resolve", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - monotonic()))
    if failure:
        raise psycopg.OperationalError(f"failed to resolve host {host!r}: {failure[0].strerror}")
    if thread.is_alive() or not found:
        raise psycopg.errors.ConnectionTimeout("connection timeout expired: the resolver does not answer")
    return list(dict.fromkeys(found))
