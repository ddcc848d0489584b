"""Hints: one connection that listens to every partition's channel, in a thread of its own.

A hint is "U version [before name …]" (models/buffer/keys.py). Most concern conversations nobody watches here and are
dropped at once, before they cost the event loop anything. A connection that was lost may have lost hints: then every
watcher is told to look.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

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
        """Subscribe and hand on hints until the connection breaks (RedisError) or we close (0)."""
        timeout_s = self._settings.buffer_timeout_ms / 1000
        # Untyped on purpose: redis-py's annotations answer for sync and async clients at once.
        client: Any = redis.Redis.from_url(
            self._settings.redis_url, socket_timeout=timeout_s, socket_connect_timeout=min(timeout_s, 1.0),
            socket_keepalive=True, retry=Retry(NoBackoff(), 0), health_check_interval=_PING_S,
        )  # fmt: skip
        listener = client.pubsub()
        try:
            for channel in self._channels:
                listener.ssubscribe(channel)
            self._await_subscriptions(listener)
            self.listening = True
            self._lost()
            while not self._closing.is_set():
                message = listener.parse_response(block=False, timeout=_WAIT_S)
                if (
                    message is not None
                    and message[0] == b"smessage"
                    and message[2][:32].decode() in self._watched
                ):
                    hint = parse_hint(message[2])
                    if hint is not None:
                        self._hint(hint)
        finally:
            with suppress(RedisError, OSError):
                listener.close()
                client.close()
        return 0

    def _await_subscriptions(self, listener: Any) -> None:
        left = len(self._channels)
        while left:
            message = listener.parse_response(block=False, timeout=self._settings.buffer_timeout_ms / 1000)
            if message is None:
                raise redis.TimeoutError("no answer to SSUBSCRIBE")
            if message[0] == b"ssubscribe":
                left -= 1
