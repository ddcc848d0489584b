"""The buffer's policy: what its server must be set to for "acknowledged means kept" to hold.

    append-only file on, and writable       INFO persistence
    maxmemory-policy noeviction             INFO memory: evicting would drop what was acknowledged
    appendfsync as BLOTTER_FSYNC says       CONFIG GET: managed servers may forbid it; then that is said, not refused
    no-appendfsync-on-rewrite no            CONFIG GET: a rewrite must not suspend the fsync (with always)
    not the broker's server                 run_id of both: a flood of messages must not fill the buffer
    maxmemory set                           only a warning: without it there is no back pressure
    replicas for BLOTTER_ACK_REPLICAS       only a warning: it is the saves that are refused while there are too few

Checked at start (what fails is refused by name, unless BLOTTER_UNSAFE_BUFFER=1) and every minute by the sweep; and with
every refresh of the memory figure as far as INFO tells (models/pipeline/pressure.py).
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from models.buffer.scripts import translate
from models.errors import BufferPolicyError
from models.pipeline.pressure import faults_of, memory_of
from models.settings import Settings

log = logging.getLogger("blotter.policy")


class Policy(NamedTuple):
    """What was found: faults are refused, warnings and what could not be checked are only told."""

    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    unknown: tuple[str, ...]


def examine(client: redis.Redis, settings: Settings) -> Policy:
    """Look at the buffer's server. Raises BufferUnavailable."""
    try:
        info = client.info("server", "memory", "persistence", "replication")
    except RedisError as error:
        raise translate(error) from error
    faults = list(faults_of(info))
    warnings: list[str] = []
    unknown: list[str] = []
    config = _config(client, unknown)
    fsync = config.get("appendfsync")
    # Promised everysec and set to always keeps more than was promised.
    if fsync is not None and fsync not in (settings.fsync, "always"):
        faults.append(
            f"appendfsync is {fsync}: set `appendfsync {settings.fsync}`"
            + (", or BLOTTER_FSYNC=everysec" if fsync == "everysec" else "")
        )
    if settings.fsync == "always" and config.get("no-appendfsync-on-rewrite") == "yes":
        faults.append("no-appendfsync-on-rewrite is yes: set `no-appendfsync-on-rewrite no`")
    if memory_of(info).most == 0:
        warnings.append("maxmemory is not set: a full machine, not Blotter, will say when to stop")
    replicas = int(info.get("connected_slaves", 0))
    if replicas < settings.ack_replicas:
        warnings.append(
            f"BLOTTER_ACK_REPLICAS is {settings.ack_replicas}, and a server has {replicas} replicas: its saves are refused"
        )
    broker = _broker_run_id(settings, unknown)
    # (A cluster has a run_id for each of its servers.)
    if broker is not None and broker in str(info.get("run_id")).split("+"):
        faults.append("the broker is the same server: give CELERY_BROKER_URL one of its own")
    return Policy(tuple(faults), tuple(warnings), tuple(unknown))


def require(client: redis.Redis, settings: Settings) -> Policy:
    """`examine`, and refuse what fails: raises BufferPolicyError (or logs it, with BLOTTER_UNSAFE_BUFFER=1)."""
    found = examine(client, settings)
    for line in (*found.warnings, *found.unknown):
        log.warning("buffer: %s", line)
    if found.faults:
        message = "the buffer does not keep what it acknowledges: " + "; ".join(found.faults)
        if not settings.unsafe_buffer:
            raise BufferPolicyError(f"{message} (BLOTTER_UNSAFE_BUFFER=1 goes on all the same)")
        log.error("%s; going on, BLOTTER_UNSAFE_BUFFER=1", message)
    return found


def _config(client: redis.Redis, unknown: list[str]) -> dict[str, str]:
    try:
        found = cast("dict[Any, Any]", client.config_get("appendfsync", "no-appendfsync-on-rewrite"))
    except RedisError:
        unknown.append("CONFIG GET is refused: appendfsync could not be checked")
        return {}
    return {_text(name): _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _broker_run_id(settings: Settings, unknown: list[str]) -> str | None:
    """The broker's run_id; None where it is no Redis, or does not answer (its own fault shows elsewhere)."""
    if urlsplit(settings.celery_broker_url).scheme not in ("redis", "rediss", "unix", "redis+socket"):
        return None
    url = settings.celery_broker_url.replace("redis+socket://", "unix://", 1)
    try:
        client = redis.Redis.from_url(
            url, socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0)
        )
        with contextlib.closing(client):
            run_id: str | None = client.info("server").get("run_id")
            return run_id
    except (RedisError, ValueError):
        unknown.append("the broker does not answer: whether it is another server could not be checked")
        return None
