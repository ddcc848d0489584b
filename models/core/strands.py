"""Work written for a thread, run on an event loop: where it would wait, it lets the loop go on.

A save computes for a tenth of a millisecond and then waits for one reply of the buffer's. In a pool of threads most of its
cost is the way there and back: waking a thread, waiting for the interpreter's lock, once more after the reply. A strand is
a greenlet on the loop's own thread: it hands what it waits for to the loop (`wait`), and goes on with what came of it.
SQLAlchemy's asyncio extension carries its synchronous core the same way.

Laws:
1. A strand never blocks its thread. What may block goes through `aside`, to a thread, and the strand waits for that.
2. No lock is held across a `wait` or an `aside`: the next strand of the thread would wait for it forever.
3. In a thread of its own the same code runs as it stands: `aside` calls, and nobody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from greenlet import getcurrent, greenlet

P = ParamSpec("P")
T = TypeVar("T")


class Strand(greenlet):
    """One piece of work on the running loop; ``executor`` takes what of it may block."""

    def __init__(self, work: Callable[[], object], executor: Executor) -> None:
        super().__init__(work)
        self.executor = executor

    def wait(self, awaitable: Awaitable[T]) -> T:
        """What comes of ``awaitable``; called by the strand itself. Raises what it raises."""
        assert self.parent is not None
        result: T = self.parent.switch(awaitable)
        return result


def current() -> Strand | None:
    """The strand that is running, None in a thread's ordinary course."""
    found = getcurrent()
    return found if isinstance(found, Strand) else None


async def run(work: Callable[[], T], executor: Executor) -> T:
    """``work()`` as a strand of the running loop. Raises what it raises; a cancellation arrives where it waits."""
    strand = Strand(work, executor)
    asked: Any = strand.switch()
    while not strand.dead:
        try:
            value = await asked
        except BaseException as error:  # noqa: BLE001 (the strand's to judge)
            asked = strand.throw(error)
        else:
            asked = strand.switch(value)
    result: T = asked
    return result


def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``work(*args)``, which may block: here in a thread, of a strand in its executor."""
    strand = current()
    if strand is None:
        return work(*args, **kwargs)
    loop = asyncio.get_running_loop()
    return strand.wait(loop.run_in_executor(strand.executor, partial(work, *args, **kwargs)))
