"""Hints: a connection to each of the buffer's servers that listens to its partitions' channels; one thread for all.

A hint is "U version [before name …]" (models/buffer/keys.py). Most concern conversations nobody watches here and are
dropped at once, before they cost the event loop anything. A connection that was lost may have lost hints: then every
watcher is told to look.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from typing import Any, Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from models.buffer.cluster import addresses
from models.settings import Settings

log = logging.getLogger("blotter.events")

#: How long one wait for a hint lasts, s: so often the thread looks whether it is to end.
_WAIT_S: Final = 1.0
#: A connection that is silent is pinged this often, s.
_PING_S: Final = 5
_PAUSES_S: Final = (0.05, 0.2, 0.5, 1.0, 2.0)


class Hint(NamedTuple):
    """``names``: the rows that changed since version ``before``; empty where that is not told."""

    uid: str
    version: int
    before: int = -1
    names: tuple[str, ...] = ()


def parse_hint(payload: bytes) -> Hint | None:
    """The hint, None where it is none."""
    words = payload.decode("ascii", "replace").split(" ")
    try:
        if len(words) == 2:
            return Hint(words[0], int(words[1]))
        return Hint(words[0], int(words[1]), int(words[2]), tuple(words[3:]))
    except (IndexError, ValueError):
        return None


class Hints:
    """Listens until closed. ``watched`` is read, ``hint`` and ``lost`` are called, in the listening thread."""

    def __init__(
        self,
        settings: Settings,
        channels: Collection[str],
        watched: Collection[str],
        hint: Callable[[Hint], None],
        lost: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._channels = tuple(channels)
        self._watched = watched
        self._hint = hint
        self._lost = lost
        self._closing = threading.Event()
        #: True while the subscription stands.
        self.listening = False
        self._thread = threading.Thread(target=self._run, name="blotter-hints", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ask the thread to end; it does within a second."""
        self._closing.set()

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                failures = self._listen()
            except RedisError as error:
                if failures == 0:
                    log.warning(
                        "no hints from the buffer (%s): watchers look by themselves", type(error).__name__
                    )
                failures += 1
            self.listening = False
            self._closing.wait(_PAUSES_S[min(failures, len(_PAUSES_S)) - 1] if failures else 0)

    def _listen(self) -> int:
        """Subscribe and hand on hints until a connection breaks (RedisError) or we close (0)."""
        timeout_s = self._settings.buffer_timeout_ms / 1000
        with ExitStack() as open_ones:
            listeners = [
                self._subscribe(url, channels, timeout_s, open_ones)
                for url, channels in addresses(self._settings.redis_url, self._channels, timeout_s)
            ]
            poll = select.poll()
            heard_s = {}
            for listener in listeners:
                sock = listener.connection._sock  # noqa: SLF001
                poll.register(sock, select.POLLIN | select.POLLHUP)
                heard_s[sock.fileno()] = time.monotonic()
            self.listening = True
            self._lost()
            while not self._closing.is_set():
                heard_s |= {found: time.monotonic() for found, _ in poll.poll(_WAIT_S * 1000)}
                # A connection that was cut without a word takes pings for many minutes.
                if time.monotonic() - min(heard_s.values()) > _PING_S + timeout_s + 2 * _WAIT_S:
                    raise redis.TimeoutError("no answer to a ping")
                for listener in listeners:
                    self._drain(listener)
        return 0

    def _drain(self, listener: Any) -> None:
        """Take what has arrived. (Nothing is returned for the answer to a ping, and more may lie behind it.)"""
        while True:
            message = listener.parse_response(block=False, timeout=0)
            if message is not None:
                self._take(message)
            elif not listener.connection.can_read(timeout=0):
                return

    def _take(self, message: Any) -> None:
        if message[0] == b"sunsubscribe":
            # The cluster gave the partition to another server.
            raise redis.ConnectionError("a channel went elsewhere")
        if message[0] == b"smessage" and message[2][:32].decode() in self._watched:
            hint = parse_hint(message[2])
            if hint is not None:
                self._hint(hint)

    def _subscribe(self, url: str, channels: Collection[str], timeout_s: float, open_ones: ExitStack) -> Any:
        """A subscription to ``channels`` of one server, once it stands; closed with ``open_ones``."""
        # Untyped on purpose: redis-py's annotations answer for sync and async clients at once.
        client: Any = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=min(timeout_s, 1.0),
            retry=Retry(NoBackoff(), 0), health_check_interval=_PING_S,
        )  # fmt: skip
        listener = client.pubsub()
        open_ones.callback(_close, listener, client)
        for channel in channels:
            listener.ssubscribe(channel)
        left = len(channels)
        while left:
            message = listener.parse_response(block=False, timeout=timeout_s)
            if message is None:
                raise redis.TimeoutError("no answer to SSUBSCRIBE")
            if message[0] == b"ssubscribe":
                left -= 1
        return listener


def _close(*open_ones: Any) -> None:
    for one in open_ones:
        with suppress(RedisError, OSError):
            one.close()
