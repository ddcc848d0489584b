"""Strands: what they hand to the loop, what they hand to threads, and what becomes of errors and cancellations."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.core import strands
from models.core.strands import aside


@pytest.fixture
def executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="aside")


def waited(awaitable: asyncio.Future[str]) -> str:
    strand = strands.current()
    assert strand is not None
    return strand.wait(awaitable)


def test_in_a_thread_nobody_waits() -> None:
    assert strands.current() is None
    assert aside(threading.get_ident) == threading.get_ident()


def test_what_may_block_runs_in_a_thread_of_the_executor(executor: ThreadPoolExecutor) -> None:
    def work() -> tuple[str, str]:
        return aside(lambda: threading.current_thread().name), threading.current_thread().name

    there, here = asyncio.run(strands.run(work, executor))
    assert there.startswith("aside")
    assert here == "MainThread"


def test_while_one_waits_others_run(executor: ThreadPoolExecutor) -> None:
    async def main() -> list[str]:
        said: list[str] = []
        loop = asyncio.get_running_loop()
        answers = [loop.create_future() for _ in range(3)]

        def work(number: int) -> None:
            said.append(f"{number} asks")
            said.append(f"{number} got {waited(answers[number])}")

        tasks = [asyncio.ensure_future(strands.run(lambda n=n: work(n), executor)) for n in range(3)]  # type: ignore[misc]
        await asyncio.sleep(0)
        for number in (2, 0, 1):
            answers[number].set_result("it")
            await tasks[number]
        return said

    assert asyncio.run(main()) == [
        "0 asks", "1 asks", "2 asks", "2 got it", "0 got it", "1 got it",
    ]  # fmt: skip


def test_an_error_is_raised_where_the_strand_waits_and_its_own_where_it_is_awaited(
    executor: ThreadPoolExecutor,
) -> None:
    async def main() -> str:
        answer = asyncio.get_running_loop().create_future()
        answer.set_exception(KeyError("asked"))

        def work() -> None:
            with pytest.raises(KeyError):
                waited(answer)
            with pytest.raises(ZeroDivisionError):
                aside(lambda: 1 // 0)
            raise OSError("its own")

        with pytest.raises(OSError, match="its own"):
            await strands.run(work, executor)
        return "done"

    assert asyncio.run(main()) == "done"


def test_a_cancellation_unwinds_the_strand(executor: ThreadPoolExecutor) -> None:
    async def main() -> list[str]:
        left: list[str] = []

        def work() -> None:
            try:
                waited(asyncio.get_running_loop().create_future())
            finally:
                left.append("unwound")

        task = asyncio.ensure_future(strands.run(work, executor))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return left

    assert asyncio.run(main()) == ["unwound"]
