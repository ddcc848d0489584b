"""Whether Postgres and the broker answer just now, and whether the buffer keeps what it is given: asked at most every few seconds, however many look at the page.

/metrics needs no token, so what it causes must be bounded: one look at a time, and its result for all.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import redis
from kombu import Connection
from kombu.exceptions import KombuError
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from models.errors import BlotterError, StoreUnavailable
from models.pipeline import policy
from models.pipeline.brokers import celery_options
from models.settings import Settings

if TYPE_CHECKING:
    from models.pipeline.service import Pipeline

LOOK_S: Final = 3.0
#: s; to connect to the broker, and for its answer.
PATIENCE_S: Final = 0.5


class States(NamedTuple):
    """``store``, ``broker``: "ok", or a word or sentence on what is wrong. ``faults``: of the buffer's policy. ``layout``:
    why the buffer is refused for its layout (Buffer.layout_fault).
    """

    store: str
    broker: str
    faults: tuple[str, ...]
    layout: str | None = None


class Around:
    """The states, for one process. Thread-safe."""

    def __init__(self, pipeline: Callable[[], Pipeline], *, look_s: float = LOOK_S) -> None:
        self._pipeline = pipeline
        self._look_s = look_s
        self._lock = threading.Lock()
        self._known: States | None = None
        self._until_s = 0.0

    def states(self) -> States:
        """How they were at most LOOK_S ago; never raises. It takes up to a second where they are away."""
        with self._lock:
            if self._known is None or time.monotonic() >= self._until_s:
                self._known = self._look()
                self._until_s = time.monotonic() + self._look_s
            return self._known

    def _look(self) -> States:
        try:
            pipeline = self._pipeline()
        except BlotterError as error:
            return States(str(error), "unknown", ())
        store = "ok"
        faults: tuple[str, ...] = ()
        layout: str | None = None
        try:
            pipeline.store.ping()
        except StoreUnavailable:
            store = "unavailable"
        except BlotterError as error:
            store = str(error)
        with contextlib.suppress(BlotterError):
            faults = policy.examine(pipeline.buffer.client, pipeline.settings).faults
            layout = pipeline.buffer.layout_fault()
        return States(store, state_of_broker(pipeline.settings), faults, layout)


def state_of_broker(settings: Settings) -> str:
    """`broker_state` of the one that the settings name."""
    options = celery_options(settings, patience_s=PATIENCE_S, connect_s=PATIENCE_S)
    return broker_state(settings.celery_broker_url, options["broker_transport_options"])


def broker_state(url: str, transport: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Whether the broker answers: "ok", else what kind of fault it was: messages of clients may hold the address.
    ``transport``: Celery's options for it.
    """
    try:
        if urlsplit(url).scheme in ("redis", "rediss", "unix", "redis+socket"):
            _ping_redis(url.replace("redis+socket://", "unix://", 1))
        else:
            _connect(url, transport)
    except Exception as error:  # noqa: BLE001 (kombu's transports raise their clients' own errors too)
        known = isinstance(error, (KombuError, RedisError, OSError))
        return "unavailable" if known else type(error).__name__
    return "ok"


def _ping_redis(url: str) -> None:
    # Not through kombu: its tries and pauses make four seconds of it.
    client = redis.Redis.from_url(
        url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S, retry=Retry(NoBackoff(), 0)
    )
    with contextlib.closing(client):
        client.ping()


def _connect(url: str, options: Mapping[str, Any]) -> None:
    connection = Connection(url, connect_timeout=PATIENCE_S, transport_options=dict(options))
    # The transport's own call: the connection's would try again after two seconds.
    transport = connection.transport
    transport.close_connection(transport.establish_connection())
