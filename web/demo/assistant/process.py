"""The assistant's process: takes jobs from the spool, runs each as a task, and ends in order.

The end (SIGTERM) flushes what was said and then leaves without closing anything: the replies stay open, and the next
process goes on with them. Leaving them by exception would save them as interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping
from typing import Final

from blotter_client import AsyncBlotter
from blotter_client.errors import BlotterError
from blotter_client.retry import RetryPolicy

from models import logs
from models.settings import Settings
from web.auth import ACT_FOR
from web.demo import owners
from web.demo.assistant.openai import OpenAI
from web.demo.assistant.simulator import Simulator
from web.demo.assistant.turn import Turn
from web.demo.assistant.voice import Voice
from web.demo.place import Place
from web.demo.spool import Job, Spool

log = logging.getLogger("blotter.assistant")

#: How often the spool is looked at, s.
LOOK_S: Final = 0.1
#: Replies written at a time; more wait.
MOST: Final = 32
#: After a failure, s.
AGAIN_S: Final = 5.0
#: For the last words at the end, s.
LAST_WORDS_S: Final = 2.0
#: Characters a second, where the page asks for none.
SPEED: Final = 120
#: Web away for longer than this fails a turn, which is then begun anew, s.
PATIENCE_S: Final = 600.0


def voice(environ: Mapping[str, str]) -> Voice:
    """OpenAI's where address and key are given, else the simulator."""
    if environ.get("OPENAI_BASE_URL") and environ.get("OPENAI_API_KEY"):
        return OpenAI(environ)
    return Simulator()


class Assistant:
    """Jobs in, tasks out."""

    def __init__(self, client: AsyncBlotter, spool: Spool, speaker: Voice, speed: int = SPEED) -> None:
        self._client = client
        self._spool = spool
        self._voice = speaker
        self._speed = speed
        self._turns: dict[Job, Turn] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop``, then say the last words."""
        while not stop.is_set():
            self._begin_new()
            try:
                async with asyncio.timeout(LOOK_S):
                    await stop.wait()
            except TimeoutError:
                continue
        flushes = [asyncio.ensure_future(turn.flush()) for turn in self._turns.values()]
        if flushes:
            await asyncio.wait(flushes, timeout=LAST_WORDS_S)

    def _begin_new(self) -> None:
        if len(self._turns) >= MOST:
            return
        for job in self._spool.jobs():
            if job not in self._turns and len(self._turns) < MOST:
                self._turns[job] = turn = Turn(self._client, job, self._voice, self._speed)
                task = asyncio.create_task(self._write(job, turn))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    async def _write(self, job: Job, turn: Turn) -> None:
        try:
            await turn.run()
            self._spool.done(job)
        except BlotterError as error:
            log.warning("a reply could not be written: %s; again in %g s", type(error).__name__, AGAIN_S)
            await asyncio.sleep(AGAIN_S)
        except Exception as error:  # noqa: BLE001 (the boundary; its message, which might quote the chat, is not logged)
            log.error("a reply failed: %s", type(error).__name__)  # noqa: TRY400
            self._spool.done(job)
        finally:
            del self._turns[job]


def main(settings: Settings, environ: Mapping[str, str]) -> None:
    """Run until SIGTERM or SIGINT. Outside the embedded mode there is nothing to do, for as long."""
    logs.install(settings.log_level)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    place = Place.find(settings, environ)
    if place is None or settings.base_url is None:
        log.info("no demo here: the assistant has nothing to do")
        ends = {signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        signal.sigwait(ends)
        return
    asyncio.run(_main(settings, environ, place, settings.base_url))


async def _main(settings: Settings, environ: Mapping[str, str], place: Place, base_url: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def token() -> str:
        return owners.token(settings, place.secret, "assistant", int(time.time()), (ACT_FOR,))

    client = AsyncBlotter(base_url, token, retry=RetryPolicy(cap_s=1.0, patience_s=PATIENCE_S))
    speaker = voice(environ)
    log.info("the assistant speaks with the voice of %s", type(speaker).__name__)
    await Assistant(client, Spool.of(place.data), speaker).run(stop)
    logging.shutdown()
    os._exit(0)  # open replies stay open: see above
