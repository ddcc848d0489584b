"""The connection that strands share: order, errors, and a server that stops, hangs or comes back as another."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvloop
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)

from models.buffer.buffer import Buffer
from models.buffer.lane import MOST
from models.core import commands as c, strands
from models.settings import load
from tests.servers import Running, start_valkey

TIMEOUT_MS = 400


@pytest.fixture
def server() -> Iterator[Running]:
    with start_valkey() as running:
        yield running


@pytest.fixture
def buffer(server: Running) -> Buffer:
    made = Buffer.connect(load({"REDIS_URL": server.url, "BLOTTER_BUFFER_TIMEOUT_MS": str(TIMEOUT_MS)}))
    made.initialise()
    return made


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest, buffer: Buffer) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as made:
        yield made
        buffer.close()
        made.run(asyncio.sleep(0))


executor = ThreadPoolExecutor(2)


def strand(work: Callable[[], Any]) -> Any:
    return strands.run(work, executor)


async def ask(buffer: Buffer, *command: Any) -> Any:
    return await strand(lambda: buffer.wire.execute_command(*command))


def clients(buffer: Buffer) -> int:
    return len(buffer.client.client_list(_type="normal"))


def test_each_gets_its_own_reply_over_one_connection(buffer: Buffer, runner: asyncio.Runner) -> None:
    async def main() -> list[Any]:
        texts = [f"{number}-" + "x" * (number % 7) * 10_000 for number in range(300)]
        replies = await asyncio.gather(*[ask(buffer, "ECHO", text) for text in texts])
        assert [reply.decode() for reply in replies] == texts
        return replies

    before = clients(buffer)
    runner.run(main())
    assert clients(buffer) == before + 1


def test_an_error_reply_is_one_askers_error(buffer: Buffer, runner: asyncio.Runner) -> None:
    async def main() -> list[Any]:
        asked = [ask(buffer, "ECHO", "a"), ask(buffer, "NO-SUCH"), ask(buffer, "ECHO", "b")]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = runner.run(main())
    assert (first, third) == (b"a", b"b")
    assert isinstance(second, ResponseError)


def test_who_gives_up_shifts_nobodys_reply(buffer: Buffer, runner: asyncio.Runner) -> None:
    async def main() -> list[Any]:
        await ask(buffer, "PING")
        tasks = [asyncio.ensure_future(ask(buffer, "ECHO", str(number))) for number in range(9)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[4].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = runner.run(main())
    assert [reply for reply in found if isinstance(reply, bytes)] == [
        b"1",
        b"2",
        b"3",
        b"5",
        b"6",
        b"7",
        b"8",
    ]


def test_a_server_that_ends_with_commands_on_the_way(
    buffer: Buffer, server: Running, runner: asyncio.Runner
) -> None:
    async def main() -> list[Any]:
        await ask(buffer, "PING")
        waiting = [asyncio.ensure_future(ask(buffer, "BLPOP", f"k{number}", 0)) for number in range(3)]
        await asyncio.sleep(0)
        await asyncio.to_thread(server.kill)
        return await asyncio.gather(*waiting, return_exceptions=True)

    for error in runner.run(main()):
        assert isinstance(error, RedisConnectionError), error
    server.start()
    assert runner.run(ask(buffer, "ECHO", "again")) == b"again", "a new connection is opened by itself"


def test_one_that_the_server_closed_meanwhile_is_noticed_before_anything_is_sent(
    buffer: Buffer, server: Running, runner: asyncio.Runner
) -> None:
    assert runner.run(ask(buffer, "PING"))
    server.kill()
    server.start()
    # The loop has not run since: it cannot know of the end but by looking.
    assert runner.run(ask(buffer, "ECHO", "here")) == b"here"


def test_a_server_that_falls_silent(buffer: Buffer, server: Running, runner: asyncio.Runner) -> None:
    async def main() -> None:
        await ask(buffer, "SET", "k", "old")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            found = await asyncio.gather(*[ask(buffer, "GET", "k") for _ in range(3)], return_exceptions=True)
            assert all(isinstance(error, RedisTimeoutError) for error in found), found
        finally:
            os.kill(server.pid, signal.SIGCONT)
        # What it answers now is for those who gave up.
        assert await ask(buffer, "ECHO", "mine") == b"mine"

    runner.run(main())


def test_an_ask_in_time_is_not_ended_by_the_clock_of_an_earlier_one(
    buffer: Buffer, runner: asyncio.Runner
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 3 * TIMEOUT_MS / 1000
        while loop.time() < end:
            assert await ask(buffer, "ECHO", "x") == b"x"

    runner.run(main())


def test_a_burst_is_answered_however_long_it_takes_all_together(
    buffer: Buffer, runner: asyncio.Runner
) -> None:
    """Sent at once, all that the server could not answer in time was carried out for nobody, and the rest failed with it."""
    slow = "local n = 0 for i = 1, 60000 do n = n + i % 7 end return redis.call('INCR', KEYS[1])"

    async def main() -> list[Any]:
        await ask(buffer, "PING")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await ask(buffer, "EVAL", slow, 1, "k")
        number = 1 + int(2 * TIMEOUT_MS / 1000 / (loop.time() - begun))
        return await asyncio.gather(*[ask(buffer, "EVAL", slow, 1, "k") for _ in range(number)])

    found = runner.run(main())
    assert found == list(range(2, len(found) + 2)), "in the order in which they were asked"


def test_who_gives_up_before_it_was_sent_is_not_sent(buffer: Buffer, runner: asyncio.Runner) -> None:
    async def main() -> None:
        await ask(buffer, "PING")
        tasks = [asyncio.ensure_future(ask(buffer, "INCR", "k")) for _ in range(MOST + 10)]
        await asyncio.sleep(0)
        tasks[-1].cancel()
        await asyncio.wait(tasks)
        assert await ask(buffer, "GET", "k") == str(MOST + 9).encode()

    runner.run(main())


def test_a_server_that_came_back_as_another_is_met_before_a_save(
    buffer: Buffer, server: Running, runner: asyncio.Runner
) -> None:
    """As `tests/flow/test_set_back.py`, for strands: the buffer has its new epoch before the first save after it."""

    def save(item: str) -> str:
        place = buffer.place("ann", "c")
        return buffer.save(place, [c.put("m", item, {"role": "user", "content": item})], fresh=True).e

    async def saved(item: str) -> str:
        epoch: str = await strand(lambda: save(item))
        return epoch

    first = runner.run(saved("m1"))
    server.kill()
    server.start()

    assert runner.run(saved("m2")) != first


def test_nothing_is_lost_of_what_strands_save_together(buffer: Buffer, runner: asyncio.Runner) -> None:
    place = buffer.place("ann", "c")

    def save(number: int) -> str:
        body = {"role": "user", "content": "é" * number}
        (item,) = buffer.save(place, [c.put("m", f"m{number}", body)], fresh=True).items
        return item.outcome

    async def main() -> list[str]:
        return await asyncio.gather(*[strand(lambda n=number: save(n)) for number in range(100)])

    assert set(runner.run(main())) == {"accepted"}
    found = {
        item.id: len((item.bodies or {}).get("content", ""))
        for item in buffer.read(place).items
        if item.kind == "m"
    }
    assert found == {f"m{number}": number for number in range(100)}
