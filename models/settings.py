"""Every setting of Blotter: read once from the environment, frozen, validated at start.

Laws: no other module reads ``os.environ`` for a setting; an error names the variable, what it was and what is allowed;
units stand in the names (`_SECONDS`, `_MS`, `_BYTES`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from models.core import wording
from models.errors import SettingsError

_Seconds = Annotated[float, Field(gt=0, le=31_536_000)]


class Settings(BaseModel):
    """The fields' aliases are the environment's names; their descriptions are the README's table."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    database_url: str = Field(
        "postgresql://localhost/blotter",
        alias="DATABASE_URL",
        description="Postgres, as psql would take it",
    )
    redis_url: str = Field(
        "redis://localhost:6379/0",
        alias="REDIS_URL",
        description="the buffer: Redis or Valkey with AOF, by `unix://path` too; a cluster: `redis+cluster://host:port[,host:port…]`",
    )
    celery_broker_url: str = Field(
        "redis://localhost:6380/0",
        alias="CELERY_BROKER_URL",
        description="Celery's broker; never the buffer's server",
    )
    broker_master: str = Field(
        "mymaster",
        alias="BLOTTER_BROKER_MASTER",
        min_length=1,
        description="name of the broker's primary, where CELERY_BROKER_URL lists Sentinels (`sentinel://a:26379;sentinel://b:26379`)",
    )
    database_prepare: bool = Field(
        True,
        alias="DATABASE_PREPARE",
        description="0: no prepared statements, for a pooler in transaction mode (pgbouncer) before Postgres",
    )
    partitions: int = Field(
        16,
        alias="BLOTTER_PARTITIONS",
        ge=1,
        le=1024,
        description="partitions; written once into the buffer",
    )
    autosave_seconds: _Seconds = Field(
        30.0,
        alias="BLOTTER_AUTOSAVE_SECONDS",
        description="s; an open item reaches Postgres at least this often",
    )
    stream_flush_seconds: _Seconds = Field(
        1.0,
        alias="BLOTTER_STREAM_FLUSH_SECONDS",
        description="s; the first interval of an open item, doubled up to autosave",
    )
    stale_seconds: _Seconds = Field(
        120.0,
        alias="BLOTTER_STALE_SECONDS",
        description="s; silence after which an open item is settled as interrupted",
    )
    stale_tool_seconds: _Seconds = Field(
        900.0,
        alias="BLOTTER_STALE_TOOL_SECONDS",
        description="s; the same with a tool pending",
    )
    stale_approval_seconds: _Seconds = Field(
        86_400.0,
        alias="BLOTTER_STALE_APPROVAL_SECONDS",
        description="s; the same with an approval requested",
    )
    idle_seconds: _Seconds = Field(
        900.0,
        alias="BLOTTER_IDLE_SECONDS",
        description="s; an idle clean conversation leaves the buffer after this",
    )
    min_idle_seconds: float = Field(
        60.0,
        alias="BLOTTER_MIN_IDLE_SECONDS",
        ge=0,
        le=31_536_000,
        description="s; never evicted sooner, memory pressure or not",
    )
    sweep_seconds: _Seconds = Field(1.0, alias="BLOTTER_SWEEP_SECONDS", description="s; beat's tick")
    retention_days: float = Field(
        30.0,
        alias="BLOTTER_RETENTION_DAYS",
        ge=0,
        le=36_500,
        description="days a tombstone is kept before purge",
    )
    evict_memory_share: float = Field(
        0.6,
        alias="BLOTTER_EVICT_MEMORY_SHARE",
        gt=0,
        lt=1,
        description="share of maxmemory above which oldest go first",
    )
    refuse_memory_share: float = Field(
        0.8,
        alias="BLOTTER_REFUSE_MEMORY_SHARE",
        gt=0,
        lt=1,
        description="share of maxmemory above which saves get 503",
    )
    fsync: Literal["always", "everysec"] = Field(
        "always",
        alias="BLOTTER_FSYNC",
        description="what the buffer's appendfsync must be; everysec may lose about a second in a power cut",
    )
    ack_replicas: int = Field(
        0,
        alias="BLOTTER_ACK_REPLICAS",
        ge=0,
        le=8,
        description="replicas of the buffer that have a save before it is answered; with fewer at hand saves get 503",
    )
    unsafe_buffer: bool = Field(
        False,
        alias="BLOTTER_UNSAFE_BUFFER",
        description="1: start on a buffer that does not keep what it acknowledges",
    )
    max_item_bytes: int = Field(
        4 * 1024**2,
        alias="BLOTTER_MAX_ITEM_BYTES",
        ge=1024,
        le=64 * 1024**2,
        description="bytes of one item",
    )
    max_sync_bytes: int = Field(
        16 * 1024**2,
        alias="BLOTTER_MAX_SYNC_BYTES",
        ge=1024,
        le=256 * 1024**2,
        description="bytes of one sync's body",
    )
    max_sync_items: int = Field(
        500,
        alias="BLOTTER_MAX_SYNC_ITEMS",
        ge=1,
        le=5000,
        description="items of one sync",
    )
    max_conversation_items: int = Field(
        5000,
        alias="BLOTTER_MAX_CONVERSATION_ITEMS",
        ge=1,
        le=100_000,
        description="items of one conversation",
    )
    max_conversation_bytes: int = Field(
        32 * 1024**2,
        alias="BLOTTER_MAX_CONVERSATION_BYTES",
        ge=1024,
        le=512 * 1024**2,
        description="bytes of one conversation",
    )
    jwt_secret: str | None = Field(
        None,
        alias="BLOTTER_JWT_SECRET",
        description="HS256 key, at least 32 bytes",
        repr=False,
    )
    jwt_secret_file: Path | None = Field(
        None,
        alias="BLOTTER_JWT_SECRET_FILE",
        description="file of HS256 keys, one a line; the first signs, all are accepted",
    )
    jwks_url: str | None = Field(
        None,
        alias="BLOTTER_JWKS_URL",
        description="RS256/ES256 keys; needs audience and issuer",
    )
    jwt_audience: str | None = Field(
        None, alias="BLOTTER_JWT_AUDIENCE", description="`aud` a token must carry"
    )
    jwt_issuer: str | None = Field(None, alias="BLOTTER_JWT_ISSUER", description="`iss` a token must carry")
    cors_origins: tuple[str, ...] = Field(
        (),
        alias="BLOTTER_CORS_ORIGINS",
        description="origins allowed to call from a browser, separated by commas",
    )
    embedded: bool = Field(
        False,
        alias="BLOTTER_EMBEDDED",
        description="set by `blotter up`: loopback only, no owner limits",
    )
    owner_requests_per_minute: int = Field(
        6000,
        alias="BLOTTER_OWNER_REQUESTS_PER_MINUTE",
        ge=0,
        le=10_000_000,
        description="requests of one owner a minute and web process; 0: no limit (as in the embedded mode)",
    )
    owner_bytes_per_minute: int = Field(
        512 * 1024**2,
        alias="BLOTTER_OWNER_BYTES_PER_MINUTE",
        ge=0,
        le=1024**4,
        description="bytes of bodies of one owner a minute and web process; 0: no limit (as in the embedded mode)",
    )
    web_threads: int = Field(8, alias="WEB_THREADS", ge=1, le=1024, description="threads of one web process")
    body_seconds: _Seconds = Field(
        10.0,
        alias="BLOTTER_BODY_SECONDS",
        description="s; a request's body arrives within this, and a second more for each 64 KiB, or is answered 408",
    )
    base_url: str | None = Field(
        None,
        alias="BASE_URL",
        description="where the web is reached; pages from there may read events at another origin",
    )
    events_url: str | None = Field(
        None,
        alias="EVENTS_URL",
        description="where the events process is reached, an origin with the web's paths; unset: the web's own",
    )
    events_connections: int = Field(
        5000,
        alias="BLOTTER_EVENTS_CONNECTIONS",
        ge=1,
        le=1_000_000,
        description="live readers of one events process; more are answered 503",
    )
    events_owner_connections: int = Field(
        200,
        alias="BLOTTER_EVENTS_OWNER_CONNECTIONS",
        ge=0,
        le=1_000_000,
        description="live readers of one owner and events process; 0: no limit (as in the embedded mode)",
    )
    events_poll_seconds: _Seconds = Field(
        5.0,
        alias="BLOTTER_EVENTS_POLL_SECONDS",
        description="s; a watched conversation is looked at this often, hints or not",
    )
    events_long_poll_seconds: _Seconds = Field(
        20.0,
        alias="BLOTTER_EVENTS_LONG_POLL_SECONDS",
        description="s; a long poll with nothing to tell is answered 204",
    )
    events_sse_seconds: _Seconds = Field(
        60.0,
        alias="BLOTTER_EVENTS_SSE_SECONDS",
        description="s; an event stream is ended after this and resumed by the reader",
    )
    events_stall_seconds: _Seconds = Field(
        20.0,
        alias="BLOTTER_EVENTS_STALL_SECONDS",
        description="s; a reader of events that takes nothing of what it was sent for so long is cut off",
    )
    buffer_timeout_ms: int = Field(
        2000,
        alias="BLOTTER_BUFFER_TIMEOUT_MS",
        ge=50,
        le=60_000,
        description="ms; connect and answer, for one buffer call",
    )
    store_connect_ms: int = Field(
        250,
        alias="BLOTTER_STORE_CONNECT_MS",
        ge=50,
        le=60_000,
        description="ms; Postgres away beyond this, on the path of a save",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", alias="BLOTTER_LOG_LEVEL", description="least level logged"
    )

    otel_traces_exporter: str = Field(
        "none",
        alias="OTEL_TRACES_EXPORTER",
        description="traces: `otlp` or `console` (needs the extra `otel`; its other `OTEL_…` variables hold as ever)",
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("database_url", "redis_url", "celery_broker_url")
    @classmethod
    def _is_url(cls, value: str, info: ValidationInfo) -> str:
        _check_url(value, _SCHEMES[str(info.field_name)])
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.stream_flush_seconds > self.autosave_seconds:
            raise ValueError("BLOTTER_STREAM_FLUSH_SECONDS must not exceed BLOTTER_AUTOSAVE_SECONDS")
        if self.evict_memory_share >= self.refuse_memory_share:
            raise ValueError("BLOTTER_EVICT_MEMORY_SHARE must lie below BLOTTER_REFUSE_MEMORY_SHARE")
        if self.jwks_url is not None and (self.jwt_audience is None or self.jwt_issuer is None):
            raise ValueError("BLOTTER_JWKS_URL needs BLOTTER_JWT_AUDIENCE and BLOTTER_JWT_ISSUER")
        if self.jwt_secret is not None and len(self.jwt_secret.encode()) < 32:
            raise ValueError("BLOTTER_JWT_SECRET must have at least 32 bytes")
        return self


#: Said of every address that has the right beginning and cannot be read all the same.
ODD_ADDRESS: Final = (
    "must be an address like scheme://user:password@host:port/name; in user and password write @ as %40, : as %3A, "
    "/ as %2F, ? as %3F, # as %23, % as %25"
)
_REDIS = ("redis", "rediss", "unix")
#: Which schemes an address may have. A broker may be any that Celery knows.
_SCHEMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"database_url": ("postgresql", "postgres"), "redis_url": _REDIS, "celery_broker_url": ()}
)


def _check_url(url: str, schemes: tuple[str, ...]) -> None:
    """Raises ValueError, which repeats nothing of the URL: it may hold a password."""
    allowed = " or ".join(f"{scheme}://" for scheme in schemes) or "scheme://"
    scheme, separator, _ = url.partition("://")
    if not separator or not scheme or (schemes and scheme.partition("+")[0] not in schemes):
        raise ValueError(f"must be an address that begins with {allowed}")
    # A password with a character that belongs to the address ends up, in part, as host, path or fragment.
    for one in url.split(";"):
        plain = one.rpartition("://")[2].partition("?")[0]
        if plain.count("@") > ("@" in re.split("[/#]", plain)[0]):
            raise ValueError(ODD_ADDRESS)
    # libpq takes several hosts, each with a port, as Celery takes several brokers; those they check themselves.
    if "," in url or ";" in url:
        return
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError(ODD_ADDRESS) from None


def load(environ: Mapping[str, str]) -> Settings:
    """The settings that ``environ`` describes; empty variables count as absent.

    Raises SettingsError, one line a fault, each naming its variable.
    """
    given = {name: value for name, value in environ.items() if value != ""}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        lines = []
        for fault in error.errors(include_url=False, include_input=False):
            said = wording.fault(fault["type"], fault.get("ctx", {}))
            lines.append(": ".join((*(str(part) for part in fault["loc"]), said)))
        raise SettingsError("; ".join(lines)) from None


@lru_cache(maxsize=1)
def current() -> Settings:
    """The settings of this process, read from its environment on first use."""
    return load(os.environ)


def markdown_table() -> str:
    """The rows of README's table: name, meaning with unit, default, range."""
    rows = []
    for field in Settings.model_fields.values():
        bounds = {
            name: getattr(part, name) for part in field.metadata for name in _BOUNDS if hasattr(part, name)
        }
        allowed = " and ".join(f"{_BOUNDS[name]} {value:,}" for name, value in bounds.items())
        if field.annotation is bool:
            allowed = "0, 1"
        elif get_origin(field.annotation) is Literal:
            allowed = ", ".join(str(choice) for choice in get_args(field.annotation))
        default = {None: "", (): "", False: "0", True: "1"}.get(field.default, field.default)
        rows.append(
            f"| `{field.alias}` | {field.description} | {default:{'g' if isinstance(default, float) else ''}} | {allowed} |\n"
        )
    return "".join(rows)


_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
