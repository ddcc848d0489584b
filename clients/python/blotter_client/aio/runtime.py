"""What waits, wakes and runs beside the caller: here on asyncio; `blotter_client.blocking.runtime` does it with threads.

The only module of this folder that is written twice. Everything else here is written once, and its blocking twin is made
by `clients/python/generate.py`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext
from typing import Any, TypeAlias

import httpx

HttpClient = httpx.AsyncClient

#: A token, or a function that gives one (it may be asynchronous), asked again when the token no longer holds.
TokenSource: TypeAlias = str | Callable[[], str | Awaitable[str]]

#: How a reply's caller is made to leave: not failed, but told to stop.
Cancelled: tuple[type[BaseException], ...] = (
    asyncio.CancelledError,
    GeneratorExit,
    KeyboardInterrupt,
    SystemExit,
)


async def ask(source: Callable[[], Any]) -> Any:
    """What ``source()`` gives, awaited where it has to be."""
    value = source()
    return await value if inspect.isawaitable(value) else value


async def pause(seconds: float) -> None:
    """Let others run for so long."""
    await asyncio.sleep(seconds)


def guard() -> nullcontext[None]:
    """Nothing else runs between two awaits."""
    return nullcontext()


Lock = asyncio.Lock


class Signal:
    """Counts turns; who has seen one waits for the next. None is missed, whoever else waits."""

    def __init__(self) -> None:
        self.turn = 0
        self._event = asyncio.Event()

    def set(self) -> None:
        """One turn more: wakes all who wait."""
        self.turn += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seen: int, seconds: float) -> None:
        """Until the turn is another than ``seen``, at most so long."""
        if self.turn == seen:
            try:
                async with asyncio.timeout(seconds):
                    await self._event.wait()
            except TimeoutError:
                return


class Beside:
    """One function running beside the caller."""

    def __init__(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._task = asyncio.create_task(run(), name=name)

    async def join(self, seconds: float) -> bool:
        """Wait for its end, at most so long. True if it has ended. A cancelled caller leaves at once."""
        await asyncio.wait({self._task}, timeout=seconds)
        return self._task.done()

    async def abandon(self) -> None:
        """End it where it stands."""
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=1.0)
