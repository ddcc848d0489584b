"""Questions of many watchers, answered by few threads: what waits together goes to the buffer in one round trip.

Two threads do the quick ones (the buffer alone), four the others (catching up, Postgres, adoption), so that neither a
large conversation nor a Postgres that is away delays anybody's deltas.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from models.errors import BlotterError
from models.pipeline.follow import Changes, Follower, Question

QUICK_THREADS: Final = 2
SLOW_THREADS: Final = 4
#: Questions of one round trip.
TOGETHER: Final = 64

_Waiting = tuple[Question, "asyncio.Future[Changes]"]


class Reads:
    """Asks the follower. Belongs to one event loop."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._quick = ThreadPoolExecutor(QUICK_THREADS, thread_name_prefix="blotter-quick")
        self._slow = ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="blotter-slow")
        self._waiting: list[_Waiting] = []
        self._running = 0

    async def ask(self, question: Question) -> Changes:
        """The answer. Raises as Follower.answer."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Changes] = loop.create_future()
        self._waiting.append((question, future))
        self._go(loop)
        return await future

    async def ask_slowly(self, question: Question) -> Changes:
        """The same where much is to be expected: it keeps no quick ones waiting."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, self._follower.answer, question)

    def close(self) -> None:
        """Take no more questions."""
        for pool in (self._quick, self._slow):
            pool.shutdown(wait=False, cancel_futures=True)

    def _go(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting and self._running < QUICK_THREADS:
            batch, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
            self._running += 1
            done = loop.run_in_executor(self._quick, self._run, [question for question, _ in batch])
            done.add_done_callback(lambda done, batch=batch: self._settle(loop, batch, done))  # type: ignore[misc]

    def _run(self, questions: list[Question]) -> list[Changes | BlotterError | None]:
        return self._follower.quick(questions)

    def _settle(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting],
        done: asyncio.Future[list[Changes | BlotterError | None]],
    ) -> None:
        self._running -= 1
        if done.cancelled():
            for _, future in batch:
                future.cancel()
            return
        error = done.exception()
        answers = [error] * len(batch) if error is not None else done.result()
        for (question, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if answer is None:
                self._hand_over(loop, question, future)
            elif isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._go(loop)

    def _hand_over(
        self, loop: asyncio.AbstractEventLoop, question: Question, future: asyncio.Future[Changes]
    ) -> None:
        slow = loop.run_in_executor(self._slow, self._follower.answer, question)

        def settle(done: asyncio.Future[Changes]) -> None:
            if future.done() or done.cancelled():
                future.cancel()
                return
            error = done.exception()
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result())

        slow.add_done_callback(settle)
