"""Back pressure: is there room in the buffer, and does it still keep what it is given?

Asked before every save, so it must cost nothing: one thread refreshes the figures at most once a second, all others go on
with what is known. Where the buffer does not answer, nothing is said here; the save itself will find out.

Above ``refuse_memory_share`` of maxmemory saves are refused while there is still room for what must not fail (indexes,
acknowledgements, adoption of blind conversations). A buffer whose append-only file or noeviction was switched off while
we ran no longer keeps what it acknowledges: saves are refused by name until it does, unless BLOTTER_UNSAFE_BUFFER=1.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import redis
from redis.exceptions import RedisError

from models.buffer.scripts import translate
from models.core.strands import aside
from models.errors import BlotterError, BufferFull, BufferPolicyError
from models.settings import Settings

log = logging.getLogger("blotter.policy")

REFRESH_MS: Final = 1_000
#: How often a process looks at the whole policy again (CONFIG GET, the broker's server).
POLICY_MS: Final = 30_000


class Memory(NamedTuple):
    """Bytes; ``most`` is 0 where the server has no maxmemory."""

    used: int
    most: int

    @property
    def share(self) -> float:
        """Used of maxmemory, 0 where there is none."""
        return self.used / self.most if self.most else 0.0


def memory_of(info: Mapping[str, Any]) -> Memory:
    """From INFO memory."""
    return Memory(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)))


def faults_of(info: Mapping[str, Any]) -> tuple[str, ...]:
    """What INFO alone tells against a buffer; each names what to change."""
    faults = []
    if int(info.get("aof_enabled", 0)) != 1:
        faults.append("appendonly is off: set `appendonly yes`")
    elif info.get("aof_last_write_status", "ok") != "ok":
        faults.append("the append-only file cannot be written: look at the server's disk")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        faults.append(f"maxmemory-policy is {policy}: set `maxmemory-policy noeviction`")
    return tuple(faults)


class Informed(Protocol):
    """Who tells a server's INFO, to strands as well as to threads. Raises redis' own errors."""

    def info(self, *sections: str) -> Mapping[str, Any]: ...


class Pressure:
    """The guard of one process. Thread-safe."""

    def __init__(
        self,
        buffer: Informed,
        settings: Settings,
        *,
        clock_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        examine: Callable[[], tuple[str, ...]] | None = None,
    ) -> None:
        """``examine``: the faults of the buffer's whole policy; asked before the first save is let through, by one
        thread while the others wait, and then every POLICY_MS on a thread of its own. It may raise BlotterError.
        """
        self._examine = examine
        self._policy_lock = threading.Lock()
        self._policy_ms: int | None = None
        self._policy_faults: tuple[str, ...] = ()
        self._buffer = buffer
        self._settings = settings
        self._clock_ms = clock_ms
        self._lock = threading.Lock()
        self._next_ms = 0
        self.memory = Memory(0, 0)
        self.faults: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises BufferFull above the refused share, BufferPolicyError on a buffer that does not keep things."""
        if self._clock_ms() >= self._next_ms and self._lock.acquire(blocking=False):
            try:
                self.refresh()
            except (RedisError, ConnectionError, TimeoutError):
                self._next_ms = self._clock_ms() + REFRESH_MS
            finally:
                self._lock.release()
        if self.memory.share > self._settings.refuse_memory_share:
            raise BufferFull(f"the buffer is above {self._settings.refuse_memory_share:.0%} of its maxmemory")
        if self._examine is not None:
            self._look_at_policy(self._examine)
        faults = self._policy_faults + tuple(
            fault for fault in self.faults if fault not in self._policy_faults
        )
        if faults and not self._settings.unsafe_buffer:
            raise BufferPolicyError("the buffer does not keep what it acknowledges: " + "; ".join(faults))

    def _look_at_policy(self, examine: Callable[[], tuple[str, ...]]) -> None:
        if self._policy_ms is None:
            aside(self._first_look, examine)
        elif self._clock_ms() - self._policy_ms >= (POLICY_MS if not self._policy_faults else REFRESH_MS):
            self._policy_ms = self._clock_ms()
            threading.Thread(target=self._note_policy, args=(examine,), name="policy", daemon=True).start()

    def _first_look(self, examine: Callable[[], tuple[str, ...]]) -> None:
        with self._policy_lock:
            if self._policy_ms is None:
                self._note_policy(examine)

    def _note_policy(self, examine: Callable[[], tuple[str, ...]]) -> None:
        try:
            faults = examine()
        except BlotterError:
            # The buffer does not answer: the save will say so itself, and the next one looks again.
            return
        for fault in set(faults).difference(self._policy_faults):
            log.error("the buffer does not keep what it acknowledges: %s", fault)
        self._policy_faults = faults
        self._policy_ms = self._clock_ms()

    def refresh(self) -> Memory:
        """Ask the server now. Raises redis' own errors."""
        info = self._buffer.info("memory", "persistence")
        self.memory, self.faults = memory_of(info), faults_of(info)
        self._next_ms = self._clock_ms() + REFRESH_MS
        return self.memory


def memory(client: redis.Redis) -> Memory:
    """The figures as they are now. Raises BufferUnavailable."""
    try:
        return memory_of(client.info("memory"))
    except RedisError as error:
        raise translate(error) from error
