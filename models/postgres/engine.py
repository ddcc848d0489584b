"""Engines: how a process reaches Postgres. Make one after forking; engines and connections must not cross a fork.

Timeouts, and why these (the lease of a flush is 10 s):

| | web | worker | tool |
| --- | --- | --- | --- |
| connect | ``BLOTTER_STORE_CONNECT_MS`` | 5 s | 10 s |
| silence of the server (client side) | 2 s | 7 s | none |
| statement, lock, idle in transaction (server side) | 5 s, 2 s, 5 s | the same | none, 10 s, none |

Behind a pooler in transaction mode (pgbouncer) set ``DATABASE_PREPARE=0``, let it ignore the startup parameter
``options``, and set the server side's timeouts with ``ALTER ROLE … SET``.
"""

from __future__ import annotations

import select
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import NullPool, QueuePool

from models.postgres.connecting import WatchedConnection, connect, libpq_url
from models.settings import Settings

#: Executions after which psycopg prepares a statement.
_PREPARE_AFTER: Final = 5

Role: TypeAlias = Literal["web", "worker", "tool"]


class _Limits(NamedTuple):
    """Seconds on our side, milliseconds (0: none) on the server's, connections of one process."""

    connect_s: float | None
    silence_s: float | None
    statement_ms: int
    lock_ms: int
    idle_ms: int
    connections: int | None


_LIMITS: Final[dict[Role, _Limits]] = {
    "web": _Limits(None, 2.0, 5000, 2000, 5000, None),
    "worker": _Limits(5.0, 7.0, 5000, 2000, 5000, 2),
    "tool": _Limits(10.0, None, 0, 10_000, 0, 0),
}


def make_engine(database_url: str, *, role: Role, settings: Settings) -> Engine:
    """An engine for ``role``; connects to nobody yet. Raises SettingsError where the URL is none of Postgres."""
    url = libpq_url(database_url)
    limits = _LIMITS[role]
    within_s = settings.store_connect_ms / 1000 if limits.connect_s is None else limits.connect_s
    params = _connection_params(url, role, limits)

    def creator() -> WatchedConnection:
        return connect(
            url,
            within_s=within_s,
            silence_s=limits.silence_s,
            prepare_threshold=_PREPARE_AFTER if settings.database_prepare and role != "tool" else None,
            **params,
        )

    pool: dict[str, Any] = {"poolclass": NullPool}
    connections = settings.web_threads if limits.connections is None else limits.connections
    if connections:
        # One connection a thread: nobody waits for another's. Last in, first out keeps the idle ones idle.
        pool = {
            "poolclass": QueuePool,
            "pool_size": connections,
            "max_overflow": 0,
            "pool_timeout": within_s,
            "pool_use_lifo": True,
            "pool_recycle": 1800,
        }
    engine = create_engine(
        "postgresql+psycopg://", creator=creator, hide_parameters=True, use_native_hstore=False, **pool
    )
    event.listen(engine, "checkout", _refuse_dead)
    return engine


def _connection_params(url: str, role: Role, limits: _Limits) -> dict[str, Any]:
    given = conninfo_to_dict(url)
    options = (
        ("statement_timeout", limits.statement_ms),
        ("lock_timeout", limits.lock_ms),
        ("idle_in_transaction_session_timeout", limits.idle_ms),
        ("timezone", "UTC"),
    )
    ours = " ".join(f"-c {name}={value}" for name, value in options)
    params: dict[str, Any] = {
        # What the URL says comes last and wins.
        "options": f"{ours} {given.get('options') or ''}".strip(),
        "application_name": given.get("application_name") or f"blotter-{role}",
        "client_encoding": "UTF8",
        # A peer that vanished: sent data unacknowledged for 5 s, or silence for 5 + 3 * 2 s.
        "tcp_user_timeout": given.get("tcp_user_timeout") or 5000,
        "keepalives": 1,
        "keepalives_idle": given.get("keepalives_idle") or 5,
        "keepalives_interval": given.get("keepalives_interval") or 2,
        "keepalives_count": given.get("keepalives_count") or 3,
    }
    return params


def _refuse_dead(connection: Any, record: object, proxy: object) -> None:
    """Before a pooled connection is handed out: has the server hung up on it meanwhile?

    An idle connection has nothing to say; if it is readable, that is a farewell (restart, administrator, timeout).
    Costs two microseconds instead of `pool_pre_ping`'s round trip. All older connections are dropped with it.
    """
    if connection.closed:
        raise InvalidatePoolError
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    if poll.poll(0):
        raise InvalidatePoolError
