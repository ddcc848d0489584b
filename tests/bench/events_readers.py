"""How live readers and saves get along: delay from a save to its readers, and saves a second with and without them.

    .venv/bin/python -m tests.bench.events_readers [--readers 1000] [--active 50] [--seconds 6] [--rate 300]

Runs `blotter up` on a folder of its own (web, worker, beat, events, embedded servers). Every reader follows a
conversation of its own by SSE; `--active` of these conversations stream replies of 10 characters an append. Four times
`--seconds`: as many saves as 8 connections can make without readers, the same with them, `--rate` saves a second with them,
and as many as can be without them again, for others may be at work on the machine. With `--rate` the delay counts (clock
of the reader against the version, which is the buffer's clock in µs). The last line is one JSON document; below a minute in all. Its
`quiet` says whether the machine was otherwise idle at the start: figures of a busy one are not final.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import orjson

from tests.acceptance.up import up
from tests.flow.events import Sse
from tests.servers import private_directory

#: Most that the readers' process may take to connect all, or to report, s.
ANSWER_S = 60.0
#: Load average of the last minute, for each core, up to which a machine counts as quiet.
QUIET = 0.25


class Saver:
    """One keep-alive connection that appends."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._parts = urlsplit(url)
        self._head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def append(self, chat: str, offset: int) -> None:
        body = orjson.dumps({"append": {"offset": offset, "text": "ten chars "}})
        self._writer.write(
            f"PATCH /api/conversations/{chat}/messages/r HTTP/1.1\r\nHost: {self._parts.netloc}\r\n{self._head}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        assert b" 202 " in head[:20], answer


class Load:
    """Appends to the active conversations, each by one connection at a time."""

    def __init__(self, url: str, headers: dict[str, str], chats: list[str]) -> None:
        self.url, self.headers = url, headers
        self.offsets = dict.fromkeys(chats, 0)

    async def run(self, seconds: float, rate: float | None, connections: int = 8) -> float:
        """Saves a second."""
        chats = list(self.offsets)
        ends, count = time.monotonic() + seconds, 0
        began = time.monotonic()

        async def work(mine: list[str]) -> None:
            nonlocal count
            turn = 0
            async with Saver(self.url, self.headers) as saver:
                while time.monotonic() < ends:
                    chat = mine[turn % len(mine)]
                    turn += 1
                    await saver.append(chat, self.offsets[chat])
                    self.offsets[chat] += 10
                    count += 1
                    if rate is not None:
                        ahead = began + turn * connections / rate - time.monotonic()
                        await asyncio.sleep(max(0.0, ahead))

        await asyncio.gather(*(work(chats[n::connections]) for n in range(connections)))
        return count / (time.monotonic() - began)


def read_all(url: str, headers: dict[str, str], chats: list[str], pipe: Connection) -> None:
    """A process of readers: says "ready", then answers "reset" and "report"."""
    asyncio.run(_read_all(url, headers, chats, pipe))


async def _read_all(url: str, headers: dict[str, str], chats: list[str], pipe: Connection) -> None:
    delays: list[float] = []
    ready = 0

    async def read(chat: str) -> None:
        nonlocal ready
        offset, first = "-1", True
        while True:
            connection = await Sse.open(url, chat, offset, headers)
            try:
                async for event, data in connection.events():
                    if event == "control":
                        offset = orjson.loads(data)["streamNextOffset"]
                        if first:
                            first, ready = False, ready + 1
                    elif b'"append"' in data:
                        now = time.time()
                        delays.extend(
                            now - one["version"] / 1e6
                            for one in orjson.loads(data)
                            if one["type"] == "append"
                        )
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                connection.close()

    gate = asyncio.Semaphore(50)

    async def gated(chat: str) -> None:
        async with gate:
            await asyncio.sleep(0.01)
        await read(chat)

    tasks = [asyncio.create_task(gated(chat)) for chat in chats]
    while ready < len(chats):
        await asyncio.sleep(0.1)
        for task in tasks:
            if task.done():
                task.result()
    pipe.send("ready")
    while True:
        if await asyncio.to_thread(pipe.recv) == "reset":
            delays.clear()
        else:
            delays.sort()
            pipe.send(
                {
                    "events": len(delays),
                    **{
                        f"p{p}": round(delays[int(len(delays) * p / 100)] * 1000, 1)
                        for p in (50, 95, 99)
                        if delays
                    },
                    "max": round(delays[-1] * 1000, 1) if delays else None,
                }
            )


def rss_mb(pid: int) -> float:
    import psutil

    main = psutil.Process(pid)
    return round(sum(one.memory_info().rss for one in (main, *main.children(recursive=True))) / 1e6, 1)


def cpu_s(pid: int) -> float:
    import psutil

    main = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in (main, *main.children(recursive=True)))


def hear(pipe: Connection) -> Any:
    """What the readers' process says; an error where it died or says nothing."""
    if not pipe.poll(ANSWER_S):
        raise TimeoutError(f"the readers said nothing for {ANSWER_S} s")
    return pipe.recv()  # EOFError: it died


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--active", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rate", type=float, default=300.0)
    wish = parser.parse_args()
    load_before = os.getloadavg()[0]
    with private_directory() as folder, up(folder / "data", None) as running:
        environ = running.wait_ready(60)
        blotter = str(Path(sys.executable).with_name("blotter"))
        token = subprocess.run(
            [blotter, "token", "ann", "--data", str(folder / "data")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        headers = {"Authorization": f"Bearer {token}"}
        chats = [f"c{n}" for n in range(wish.readers)]
        with httpx.Client(base_url=environ["BASE_URL"], headers=headers) as client:
            for n, chat in enumerate(chats):
                path = f"/api/conversations/{chat}/messages"
                status = "streaming" if n < wish.active else "complete"
                client.post(
                    path, json={"id": "r", "role": "assistant", "content": "", "status": status}
                ).raise_for_status()
        load = Load(environ["BASE_URL"], headers, chats[: wish.active])
        figures: dict[str, Any] = {"machine": f"{os.cpu_count()} cores", **vars(wish)}
        figures["load_average_before"] = round(load_before, 2)
        figures["quiet"] = load_before <= QUIET * (os.cpu_count() or 1)
        events = running.pid("events")
        asyncio.run(load.run(3, None))
        figures["saves_per_s_without_readers"] = round(asyncio.run(load.run(wish.seconds, None)))
        ours, theirs = multiprocessing.Pipe()
        readers = multiprocessing.get_context("spawn").Process(
            target=read_all, args=(environ["EVENTS_URL"], headers, chats, theirs), daemon=True
        )
        readers.start()
        theirs.close()  # the readers' own end alone is left: if they die, it is noticed
        assert hear(ours) == "ready"
        figures["events_rss_mb"] = rss_mb(events)
        before, began = cpu_s(events), time.monotonic()
        time.sleep(3)
        figures["events_cpu_idle"] = round((cpu_s(events) - before) / (time.monotonic() - began), 3)
        ours.send("reset")
        figures["saves_per_s_with_readers"] = round(asyncio.run(load.run(wish.seconds, None)))
        ours.send("report")
        figures["delay_ms_at_most_saves"] = hear(ours)
        time.sleep(2)
        ours.send("reset")
        before, began = cpu_s(events), time.monotonic()
        figures["paced_saves_per_s"] = round(asyncio.run(load.run(wish.seconds, wish.rate)))
        figures["events_cpu_paced"] = round((cpu_s(events) - before) / (time.monotonic() - began), 3)
        time.sleep(0.5)
        ours.send("report")
        figures["delay_ms_paced"] = hear(ours)
        figures["events_rss_mb_after"] = rss_mb(events)
        figures["load_average"] = os.getloadavg()
        readers.kill()
        readers.join()
        time.sleep(2)
        figures["saves_per_s_without_readers_again"] = round(asyncio.run(load.run(wish.seconds, None)))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
