"""Readers while parts of Blotter die: nothing lost, nothing doubled, and saves that only the buffer knows."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest

from models.buffer.following import FollowRequest
from models.core import commands as c
from models.pipeline.follow import Changes, Follower, Question
from tests.flow.events import EventsProcess, Fold, Refused, Sse, bearer, events_process, follow, shown
from tests.flow.rig import Rig, rig
from tests.servers import Running, RunningPostgres, start_postgres, start_valkey
from web import render


class World(Rig):
    """A rig and the events process, on servers that a test may break."""

    events: EventsProcess
    valkey: Running
    postgres: RunningPostgres


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    from models.postgres.migrate import upgrade

    with start_valkey() as valkey, start_postgres(fsync="off") as postgres:
        upgrade(postgres.url)
        environ = {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": postgres.url,
            "BLOTTER_EVENTS_POLL_SECONDS": "1",
            "BLOTTER_EVENTS_OWNER_CONNECTIONS": "0",
        }
        with (
            rig(valkey.url, postgres.url) as made,
            events_process(tmp_path / "events.log", **environ) as process,
        ):
            world = World(made.pipeline)
            world.events, world.valkey, world.postgres = process, valkey, postgres
            yield world


def get(world: Rig, chat: str) -> dict[str, list[bytes]]:
    return shown(render.view(world.pipeline.read("ann", chat, branches=True, limit=5000)))


async def reconnecting(world: World, chat: str, fold: Fold, done: Callable[[], bool]) -> None:
    """An application's loop: come back with the last offset until ``done`` and up to date."""
    while True:
        try:
            goal = lambda fold, control: done() and bool(control.get("upToDate"))  # noqa: E731
            await follow(world.events.url, chat, fold, until=goal)
            if done():
                return
        except (OSError, asyncio.IncompleteReadError, ValueError):
            await asyncio.sleep(0.02)
        except Refused as refused:
            assert refused.args[0] == 503, refused.args  # noqa: PT017 (any other refusal is the test's end)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("victim", ["buffer", "both"])
def test_what_dies_under_a_reader_costs_it_nothing(world: World, victim: str) -> None:
    chat = "c"
    world.say(chat, "m1", "hi")
    world.save(chat, c.put("m", "r", {"role": "assistant", "content": ""}, status="streaming"))
    fold, finished = Fold(), False
    at = 0

    def grow(times: int) -> None:
        nonlocal at
        for n in range(times):
            text = f"word {n} "
            with contextlib.suppress(Exception):
                outcome = world.save(chat, c.Append("m", "r", at, text, len(text))).items[0].outcome
                at += len(text) if outcome in ("accepted", "duplicate") else 0

    async def main() -> None:
        nonlocal finished
        reader = asyncio.create_task(reconnecting(world, chat, fold, lambda: finished))
        for _ in range(2):
            await asyncio.to_thread(grow, 20)
            # On this thread: what another one starts dies with it.
            if victim in ("events", "both"):
                world.events.kill()
            if victim in ("buffer", "both"):
                world.valkey.kill()
                world.valkey.start()
                world.buffer.initialise()
            await asyncio.to_thread(grow, 20)
            if victim in ("events", "both"):
                world.events.start()
            await asyncio.to_thread(grow, 20)
        # The end is a change of its own, so that the reader sees one after everything else.
        await asyncio.to_thread(world.save, chat, c.put("m", "r", {}, status="complete"))
        await asyncio.to_thread(world.flush, chat)
        finished = True
        await asyncio.to_thread(world.say, chat, "last", "bye")
        async with asyncio.timeout(20):
            await reader

    asyncio.run(main())
    read = httpx.get(world.events.path(chat), params={"offset": fold.offset}, headers=bearer())
    assert read.status_code == 200, read.text
    fold.connect()
    fold.apply(read.content, read.headers["stream-next-offset"])
    assert fold.view() == get(world, chat)
    assert fold.items["message", "r"]["content"].endswith("word 19 ")
    if victim in ("buffer", "both"):
        assert len(set(fold.epochs)) > 1


def test_with_postgres_away_hot_conversations_are_followed_and_cold_ones_refused(world: World) -> None:
    world.say("hot", "m1", "hi")
    world.say("cold", "m1", "hi")
    world.evict("cold")
    fold = Fold()

    async def main() -> None:
        # A reader of the cold one, who came while Postgres was there, is kept.
        waiting = await Sse.open(world.events.url, "cold", "-1")
        world.postgres.stop()
        hot = asyncio.create_task(
            follow(world.events.url, "hot", fold, until=lambda fold, _: ("message", "m2") in fold.items)
        )
        await asyncio.to_thread(world.say, "hot", "m2", "still")
        async with asyncio.timeout(10):
            await hot
        answer = await asyncio.to_thread(httpx.get, world.events.path("cold"), headers=bearer(), timeout=10)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")

        # What is saved there meanwhile is shown as a layer, and moves no offset.
        offset, partial = "", []
        stream = waiting.batches()
        data, control = await anext(stream)
        offset = control["streamNextOffset"]
        put = c.put("m", "blind", {"role": "user", "content": "is anybody there?"})
        result = await asyncio.to_thread(world.save, "cold", put)
        assert result.base == "unknown"
        async with asyncio.timeout(15):
            async for data, now in stream:
                control = now
                partial = orjson.loads(data) if data else []
                if partial:
                    break
        assert [
            (event["item"]["id"], event["partial"]) for event in partial if event["kind"] == "message"
        ] == [("blind", True)]
        assert control["streamNextOffset"] == offset
        assert "upToDate" not in control
        for live in ("", "long-poll"):
            query = {"offset": offset, **({"live": live} if live else {})}
            answer = await asyncio.to_thread(
                httpx.get, world.events.path("cold"), params=query, headers=bearer(), timeout=10
            )
            assert answer.status_code == 503

        # It is back: the stream ends, and what was a layer comes whole from the same offset.
        world.postgres.start()
        async with asyncio.timeout(20):
            async for _ in stream:
                pass
        waiting.close()
        told = Fold(offset)
        read = await asyncio.to_thread(
            httpx.get, world.events.path("cold"), params={"offset": offset}, headers=bearer(), timeout=10
        )
        told.connect()
        told.apply(read.content, read.headers["stream-next-offset"])
        assert told.items["message", "blind"]["content"] == "is anybody there?"
        late = Fold()
        read = await asyncio.to_thread(httpx.get, world.events.path("cold"), headers=bearer(), timeout=10)
        late.connect()
        late.apply(read.content, read.headers["stream-next-offset"])
        assert late.view() == get(world, "cold")

    asyncio.run(main())


def test_hints_that_are_lost_are_made_up_for(world: World) -> None:
    """The process that listens is frozen out of its hints by a subscriber kill; the next look finds all."""
    world.say("c", "m1", "hi")
    fold = Fold()

    async def main() -> None:
        reader = asyncio.create_task(
            follow(world.events.url, "c", fold, until=lambda fold, _: ("message", "m9") in fold.items)
        )
        for n in range(2, 10):
            await asyncio.to_thread(world.buffer.client.execute_command, "CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.to_thread(world.say, "c", f"m{n}", "more")
        async with asyncio.timeout(10):
            await reader

    asyncio.run(main())
    assert {item_id for _, item_id in fold.items} >= {f"m{n}" for n in range(1, 10)}


def test_an_evicted_conversation_costs_its_watchers_no_reading(world: World) -> None:
    """A cold conversation is read once; then its partition's counter says that nothing can have changed."""
    world.say("c", "m1", "hi")
    world.evict("c")
    settings = world.pipeline.settings
    follower = Follower.connect(settings)
    try:
        place = world.place("c")
        first = follower.answer(Question(FollowRequest(place=place, since=0, census=True)))
        assert (first.state, first.unstored, first.cold >= 0) == ("whole", {}, True)
        world.postgres.stop()
        again = Question(FollowRequest(place=place, since=first.version), cold=first.cold)
        assert follower.quick([again])[0].state == "same"  # type: ignore[union-attr]
    finally:
        follower.close()


def test_what_was_lost_with_the_buffer_is_never_told_to_be_stored(world: World) -> None:
    world.save("c", c.put("m", "r", {"role": "assistant", "content": "half a"}, status="streaming"))
    result = world.say("c", "m2", "hi")
    reply = world.pipeline.item("ann", "c", "m", "r")[0].record.version
    world.flush("c")
    with psycopg.connect(world.pipeline.settings.database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM messages WHERE id = 'r'")
    awaited = {"m/r": reply, "m/m2": result.items[0].version}
    epoch = result.buffer_epoch
    follower = Follower.connect(world.pipeline.settings)

    def ask(cold: int = -1, *, census: bool = False) -> Changes:
        request = FollowRequest(
            place=world.place("c"), since=result.version, awaited=awaited, epoch=epoch, census=census
        )
        return follower.answer(Question(request, cold))

    try:
        world.buffer.client.flushall()
        epoch = world.buffer.initialise()
        first = ask()
        assert first.buffer_epoch != result.buffer_epoch
        assert first.stored == ("m/m2",)
        awaited.pop("m/m2")
        assert ask(first.cold).stored == (), "nothing can have changed"
        assert ask().stored == ask(census=True).stored == (), "nor for who comes anew"
        world.say("c", "m3", "hot again")
        assert ask().stored == ask(census=True).stored == ()
    finally:
        follower.close()


def test_two_hundred_readers_are_told_within_a_moment(world: World) -> None:
    chats = [f"c{n}" for n in range(20)]
    for chat in chats:
        world.say(chat, "m1", "hi")
        world.save(chat, c.put("m", "r", {"role": "assistant", "content": ""}, status="streaming"))
    folds = [(chat, Fold()) for chat in chats for _ in range(12)]
    headers = bearer()

    async def main() -> None:
        done: Any = lambda fold, _: fold.items.get(("message", "r"), {}).get("status") == "complete"  # noqa: E731
        readers = [
            asyncio.create_task(follow(world.events.url, chat, fold, until=done, headers=headers))
            for chat, fold in folds
        ]
        for n in range(10):
            for chat in chats:
                await asyncio.to_thread(world.save, chat, c.Append("m", "r", 5 * n, "word ", 5))
        # However many read: one subscription of the process to each partition's channel.
        channels = [keys.live for keys in world.buffer.partitions]
        told = world.buffer.client.execute_command("PUBSUB", "SHARDNUMSUB", *channels)
        assert told[1::2] == [1] * len(channels)
        for chat in chats:
            await asyncio.to_thread(world.save, chat, c.Append("m", "r", 0, "", 0, st="complete"))
        began = time.monotonic()
        async with asyncio.timeout(20):
            await asyncio.gather(*readers)
        assert time.monotonic() - began < 5

    asyncio.run(main())
    assert all(fold.items["message", "r"]["content"] == "word " * 10 for _, fold in folds)
