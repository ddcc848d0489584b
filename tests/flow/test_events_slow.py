"""Readers that do not read: they cost a fixed sum for a fixed time, and the others nothing.

What stands between a reader and its queue, on Linux' defaults: 4 MB of the kernel's (tcp_wmem), the reader's own receive
buffer (64 KB here), half a megabyte of the server's and a few pieces of 64 KB; then sending waits, and the queue fills up
to its megabyte. Twelve megabytes are more than all that, and a reader behind by a megabyte is ended before that, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from models.core import commands as c
from tests.flow.events import EventsProcess, Fold, Refused, Sse, bearer, events_process, follow, shown
from tests.flow.rig import Rig, rig
from tests.servers import RunningPostgres, eventually, start_valkey
from web import render

TEXT = "x" * 400_000
READERS = 12
MB = 1024 * 1024


class World(Rig):
    """A rig, and the events process on its servers."""

    events: EventsProcess

    def figure(self, name: str) -> float:
        """One of the process' metrics."""
        text = httpx.get(f"{self.events.url}/metrics").text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    def serving(self) -> psutil.Process:
        """The process that serves: granian's worker."""
        assert self.events._process is not None
        return psutil.Process(self.events._process.pid).children()[0]

    def connections(self) -> int:
        """Connections of readers that stand, granian's side."""
        return sum(
            1
            for one in self.serving().net_connections("tcp")
            if one.laddr.port == self.events.port and one.status == psutil.CONN_ESTABLISHED
        )


@pytest.fixture
def world(postgres_server: RunningPostgres, template_database: str, tmp_path: Path) -> Iterator[World]:
    """Streams that last, so that nothing but its slowness ends one."""
    environ = {
        "BLOTTER_EVENTS_SSE_SECONDS": "600",
        "BLOTTER_EVENTS_STALL_SECONDS": "2",
        "BLOTTER_EVENTS_OWNER_CONNECTIONS": "0",
    }
    with (
        start_valkey() as valkey,
        postgres_server.new_database(template_database) as database_url,
        rig(valkey.url, database_url) as made,
        events_process(
            tmp_path / "events.log", REDIS_URL=valkey.url, DATABASE_URL=database_url, **environ
        ) as process,
    ):
        world = World(made.pipeline)
        world.events = process
        yield world


def get(world: Rig, chat: str) -> dict[str, list[bytes]]:
    return shown(render.view(world.pipeline.read("ann", chat, branches=True, limit=5000)))


async def idle_reader(world: World, chat: str) -> Sse:
    """One that was let in, and reads no further."""
    reader = await Sse.open(world.events.url, chat, "-1", kernel_bytes=65_536)
    reader._reader._transport.pause_reading()  # type: ignore[attr-defined]
    return reader


async def rest(reader: Sse, fold: Fold | None = None) -> None:
    """Read to the end."""
    async for data, control in reader.batches():
        if fold is not None:
            fold.apply(data, control["streamNextOffset"])


async def read_on(world: World, chat: str, fold: Fold, last: str) -> None:
    """As an application does: come back where the stream ended, until there is the message ``last``."""
    while ("message", last) not in fold.items:
        await follow(world.events.url, chat, fold, until=lambda fold, _: ("message", last) in fold.items)


def test_readers_that_do_not_read_are_cut_off_and_cost_the_others_nothing(world: World) -> None:
    world.say("c", "m1", "hi")
    fold = Fold()

    async def main() -> None:
        idle = [await idle_reader(world, "c") for _ in range(READERS)]
        reading = asyncio.create_task(read_on(world, "c", fold, "big29"))
        before = world.serving().memory_info().rss
        for n in range(30):
            put = c.put("m", f"big{n}", {"role": "user", "content": TEXT})
            await asyncio.to_thread(world.save, "c", put)
        async with asyncio.timeout(30):
            await reading
        # 12 MB for each of them, had all been taken for them.
        grown = world.serving().memory_info().rss - before
        assert grown < 6 * MB * READERS, f"{grown / MB:.0f} MB"
        await asyncio.to_thread(eventually, lambda: world.connections() == 0, 30)
        # One that reads may fall behind as well where the machine is busy; it comes back.
        assert world.figure("blotter_events_dropped_total") >= READERS
        assert world.figure("blotter_events_readers") == 0
        # What they were sent is gone: not even the kernel keeps it.
        for one in idle:
            one._reader._transport.resume_reading()  # type: ignore[attr-defined]
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(rest(one), 10)
            one.close()

    asyncio.run(main())
    world.flush("c")
    asyncio.run(follow(world.events.url, "c", fold, until=lambda _, control: control.get("upToDate")))
    assert fold.view() == get(world, "c")


def test_a_reader_that_was_cut_off_goes_on_where_it_stood(world: World) -> None:
    world.say("c", "m1", "hi")
    fold = Fold()

    async def main() -> None:
        slow = await idle_reader(world, "c")
        for n in range(30):
            put = c.put("m", f"big{n}", {"role": "user", "content": TEXT})
            await asyncio.to_thread(world.save, "c", put)
        await asyncio.to_thread(eventually, lambda: world.figure("blotter_events_dropped_total") == 1, 30)
        slow._reader._transport.resume_reading()  # type: ignore[attr-defined]
        fold.connect()
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await rest(slow, fold)
        slow.close()
        assert ("message", "big29") not in fold.items
        async with asyncio.timeout(30):
            await follow(world.events.url, "c", fold, until=lambda _, control: control.get("upToDate"))

    asyncio.run(main())
    assert fold.view() == get(world, "c")


def test_a_reader_that_reads_slowly_is_told_all_on_one_connection(world: World) -> None:
    """A megabyte of a conversation, a little at a time, for longer than a reader may take nothing at all."""
    world.say("c", "m1", "hi")
    for n in range(20):
        world.save("c", c.put("m", f"big{n}", {"role": "user", "content": TEXT}))
    fold = Fold()

    async def main() -> float:
        began = asyncio.get_running_loop().time()
        slow = await Sse.open(world.events.url, "c", "-1", kernel_bytes=65_536)
        plain = slow._reader.readexactly

        async def readexactly(size: int) -> bytes:
            await asyncio.sleep(0.04)
            return await plain(size)

        slow._reader.readexactly = readexactly  # type: ignore[method-assign]
        fold.connect()
        async for data, control in slow.batches():
            fold.apply(data, control["streamNextOffset"])
            if control.get("upToDate"):
                break
        slow.close()
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(main()) > 4
    assert fold.view() == get(world, "c")
    assert world.figure("blotter_events_dropped_total") == 0


def test_readers_that_come_and_go_leave_nothing_behind(world: World) -> None:
    """Hundreds of connections: streams broken off at any point, polls given up, refusals."""
    world.say("c", "m1", "hi")
    headers = bearer()

    async def one(n: int) -> None:
        match n % 4:
            case 0:
                (await Sse.open(world.events.url, "c", "-1", headers)).close()
            case 1:
                reader = await Sse.open(world.events.url, f"c{n}" if n % 8 == 1 else "c", "now", headers)
                await anext(reader.events())
                reader.close()
            case 2:
                # Gone before the answer.
                _, writer = await asyncio.open_connection("127.0.0.1", world.events.port)
                lines = [f"{name}: {value}" for name, value in headers.items()]
                ask = [
                    "GET /api/conversations/c/events?offset=now&live=long-poll HTTP/1.1",
                    "Host: x",
                    *lines,
                ]
                writer.write(("\r\n".join(ask) + "\r\n\r\n").encode())
                await writer.drain()
                writer.transport.abort()
            case _:
                await Sse.open(world.events.url, "c", "12_1", headers)

    async def main(times: int) -> None:
        few = asyncio.Semaphore(50)

        async def within(n: int) -> None:
            async with few:
                with contextlib.suppress(Refused):
                    await one(n)

        await asyncio.gather(*(within(n) for n in range(times)))

    def quiet() -> bool:
        return world.figure("blotter_events_readers") == 0 and world.connections() == 0

    asyncio.run(main(200))
    eventually(quiet, 30)
    serving = world.serving()
    descriptors = len(os.listdir(f"/proc/{serving.pid}/fd"))
    asyncio.run(main(600))
    eventually(quiet, 30)
    assert len(os.listdir(f"/proc/{serving.pid}/fd")) <= descriptors + 10
    assert serving.num_threads() < 60
