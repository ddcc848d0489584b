"""What waits, wakes and runs beside the caller: here with threads; `blotter_client.aio.runtime` does it on asyncio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx

HttpClient = httpx.Client

#: A token, or a function that gives one, asked again when the token no longer holds.
TokenSource: TypeAlias = str | Callable[[], str]

#: How a reply's caller is made to leave: not failed, but told to stop. A generator's reader went away: GeneratorExit.
Cancelled: tuple[type[BaseException], ...] = (GeneratorExit, KeyboardInterrupt, SystemExit)


def ask(source: Callable[[], Any]) -> Any:
    """What ``source()`` gives."""
    return source()


def pause(seconds: float) -> None:
    """Let others run for so long."""
    time.sleep(seconds)


def guard() -> threading.Lock:
    """A lock: the reply's own thread reads what the caller's changes."""
    return threading.Lock()


Lock = threading.Lock


class Signal:
    """Counts turns; who has seen one waits for the next. None is missed, whoever else waits."""

    def __init__(self) -> None:
        self.turn = 0
        self._condition = threading.Condition()

    def set(self) -> None:
        """One turn more: wakes all who wait."""
        with self._condition:
            self.turn += 1
            self._condition.notify_all()

    def wait(self, seen: int, seconds: float) -> None:
        """Until the turn is another than ``seen``, at most so long."""
        with self._condition:
            self._condition.wait_for(lambda: self.turn != seen, seconds)


class Beside:
    """One function running beside the caller."""

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._thread = threading.Thread(target=run, name=name, daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Wait for its end, at most so long. True if it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def abandon(self) -> None:
        """A thread cannot be ended from outside: it ends with its request, and dies with the process."""
