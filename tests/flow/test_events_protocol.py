"""The events process by the letter of the protocol: modes, offsets, headers, ends, refusals."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from models.core import commands as c
from tests.flow.events import EventsProcess, Fold, Refused, Sse, bearer, events_process, follow, shown
from tests.flow.rig import Rig, rig
from tests.servers import RunningPostgres, eventually, start_valkey
from web import render
from web.auth import LEEWAY_S

PAGE = "https://chat.example.com"
_numbers = itertools.count(1)


class World(Rig):
    """A rig, and the events process on its servers."""

    events: EventsProcess


@pytest.fixture(scope="module")
def world(
    postgres_server: RunningPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    log = tmp_path_factory.mktemp("events") / "events.log"
    environ = {
        "BLOTTER_EVENTS_LONG_POLL_SECONDS": "0.5",
        "BLOTTER_EVENTS_SSE_SECONDS": "2",
        "BLOTTER_EVENTS_OWNER_CONNECTIONS": "8",
        "BLOTTER_CORS_ORIGINS": PAGE,
        "BASE_URL": "http://127.0.0.1:8400",
    }
    with (
        start_valkey() as valkey,
        postgres_server.new_database(template_database) as database_url,
        rig(valkey.url, database_url) as made,
        events_process(log, REDIS_URL=valkey.url, DATABASE_URL=database_url, **environ) as process,
    ):
        world = World(made.pipeline)
        world.events = process
        yield world


@pytest.fixture
def chat(world: World) -> str:
    """A conversation with an open reply "r"."""
    conversation = f"chat-{next(_numbers)}"
    world.say(conversation, "m1", "hi")
    world.save(conversation, c.put("m", "r", {"role": "assistant", "content": ""}, status="streaming"))
    return conversation


def append(world: World, chat: str, offset: int, text: str, **more: Any) -> None:
    command = c.Append("m", "r", offset, text, c.utf16_units(text), st=more.get("status"))
    assert world.save(chat, command).items[0].outcome == "accepted"


def read(world: World, chat: str, **query: Any) -> httpx.Response:
    return httpx.get(world.events.path(chat), params=query, headers=bearer(), timeout=10)


def get(world: World, chat: str) -> dict[str, list[bytes]]:
    return shown(render.view(world.pipeline.read("ann", chat, branches=True, limit=5000)))


def test_a_long_reply_costs_its_reader_its_length(world: World, chat: str) -> None:
    fold = Fold()
    words = [f"word{n} " for n in range(300)]
    length = sum(map(len, words))

    async def main() -> None:
        ends = asyncio.create_task(
            follow(
                world.events.url,
                chat,
                fold,
                until=lambda fold, _: (
                    fold.items.get(("message", "r"), {}).get("status") == "complete"
                    and fold.items["message", "r"]["stored"]
                ),
            )
        )
        at = 0
        for word in words:
            await asyncio.to_thread(append, world, chat, at, word)
            at += len(word)
        await asyncio.to_thread(append, world, chat, at, "", status="complete")
        await asyncio.to_thread(world.flush, chat)
        async with asyncio.timeout(10):
            await ends

    asyncio.run(main())
    assert fold.view() == get(world, chat)
    assert fold.items["message", "r"]["content"] == "".join(words)
    # Once the items, then each word in an event of its own at most.
    assert fold.bytes < length + 300 * 330 + 5000
    assert fold.bytes > length


def test_catching_up_tells_where_the_stream_stands(world: World, chat: str) -> None:
    first = read(world, chat)
    assert first.status_code == 200
    assert first.headers["content-type"] == "application/json"
    assert first.headers["cache-control"] == "private, no-store"
    assert first.headers["stream-up-to-date"] == "true"
    assert "stream-closed" not in first.headers
    assert first.headers["blotter-buffer-epoch"] == first.json()[-1]["bufferEpoch"]
    offset = first.headers["stream-next-offset"]
    assert read(world, chat, offset="-1").content == first.content
    unchanged = httpx.get(
        world.events.path(chat), headers={**bearer(), "If-None-Match": first.headers["etag"]}
    )
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert read(world, chat, offset=offset).json() == []
    now = read(world, chat, offset="now")
    assert (now.json(), now.headers["stream-next-offset"], now.headers["stream-up-to-date"]) == (
        [],
        offset,
        "true",
    )
    assert "etag" not in now.headers
    head = httpx.head(world.events.path(chat), headers=bearer())
    assert (head.status_code, head.headers["stream-next-offset"], head.content) == (200, offset, b"")
    append(world, chat, 0, "x")
    later = read(world, chat, offset=offset)
    assert [event["type"] for event in later.json()] == ["item", "epoch"]
    assert later.headers["stream-next-offset"] > offset
    assert later.headers["etag"] != first.headers["etag"]


def test_commits_move_the_offset_on_and_are_told_once(world: World, chat: str) -> None:
    before = read(world, chat).headers["stream-next-offset"]
    world.flush(chat)
    told = read(world, chat, offset=before)
    assert [event["type"] for event in told.json()] == ["epoch"]
    assert told.json()[0]["unstored"] == []
    assert told.headers["stream-next-offset"] > before
    assert read(world, chat, offset=told.headers["stream-next-offset"]).json() == []


def test_the_version_of_a_conversation_that_was_read_is_an_offset(world: World, chat: str) -> None:
    version = world.pipeline.read("ann", chat).version
    answer = read(world, chat, offset=version)
    assert [event["type"] for event in answer.json()] == ["epoch"]
    append(world, chat, 0, "later")
    assert [event["type"] for event in read(world, chat, offset=version).json()] == ["item", "epoch"]


@pytest.mark.parametrize(
    "query",
    [
        {"offset": "abc"},
        {"offset": "-2"},
        {"offset": "1,2"},
        {"offset": ""},
        {"live": "sse"},
        {"live": "long-poll"},
        {"offset": "-1", "live": "poll"},
        {"offset": "12_1"},
    ],
)
def test_what_the_protocol_does_not_know_is_refused(world: World, chat: str, query: dict[str, str]) -> None:
    answer = read(world, chat, **query)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_poll_with_nothing_to_tell_is_answered_204_with_its_offset(world: World, chat: str) -> None:
    offset = read(world, chat).headers["stream-next-offset"]
    for asked in (offset, "now"):
        began = time.monotonic()
        answer = read(world, chat, offset=asked, live="long-poll")
        assert time.monotonic() - began >= 0.4
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["stream-next-offset"] == offset
        assert answer.headers["stream-up-to-date"] == "true"
        assert int(answer.headers["stream-cursor"]) > 3_000_000


def test_a_poll_is_answered_as_soon_as_something_is_saved_or_stored(world: World, chat: str) -> None:
    offset = read(world, chat).headers["stream-next-offset"]

    async def main() -> None:
        async with httpx.AsyncClient(headers=bearer(), timeout=10) as client:

            async def poll(asked: str) -> httpx.Response:
                while True:
                    query = {"offset": asked, "live": "long-poll", "cursor": "99999999"}
                    answer = await client.get(world.events.path(chat), params=query)
                    if answer.status_code == 200:
                        assert int(answer.headers["stream-cursor"]) > 99999999
                        return answer

            waiting = asyncio.create_task(poll(offset))
            await asyncio.to_thread(append, world, chat, 0, "quick")
            answer = await waiting
            assert [
                (event["type"], event["kind"]) for event in answer.json() if event["type"] != "epoch"
            ] in (
                [("append", "message")],
                [("item", "message")],
            )
            waiting = asyncio.create_task(poll(answer.headers["stream-next-offset"]))
            await asyncio.to_thread(world.flush, chat)
            stored = (await waiting).json()
            assert {event["type"] for event in stored} <= {"stored", "epoch"}
            assert answer.headers["stream-next-offset"] < (await poll("-1")).headers["stream-next-offset"]

    asyncio.run(main())


def test_a_poll_that_comes_back_goes_on_with_deltas(world: World, chat: str) -> None:
    append(world, chat, 0, "known ")
    fold = Fold()

    async def main() -> None:
        async with httpx.AsyncClient(headers=bearer(), timeout=10) as client:
            at = len("known ")
            kinds = set()
            for n in range(20):
                query = {"offset": fold.offset, "live": "long-poll"}
                answer = await client.get(world.events.path(chat), params=query)
                fold.connect()
                fold.apply(answer.content, answer.headers["stream-next-offset"])
                if n:
                    kinds |= {event["type"] for event in (answer.json() if answer.content else [])}
                await asyncio.to_thread(append, world, chat, at, "more ")
                at += 5
            assert kinds == {"append"}

    asyncio.run(main())


def test_a_stream_begins_with_a_checkpoint_and_pairs_data_with_control(world: World, chat: str) -> None:
    async def main() -> list[tuple[str, Any]]:
        connection = await Sse.open(world.events.url, chat, "now", cursor="99999999")
        found = []
        async for event, data in connection.events():
            found.append((event, orjson.loads(data)))
            if len(found) == 3:
                break
        connection.close()
        return found

    found = asyncio.run(main())
    assert [event for event, _ in found] == ["control", "data", "control"]
    assert found[0][1] == found[2][1]
    assert found[0][1]["upToDate"] is True
    assert int(found[0][1]["streamCursor"]) > 99999999
    assert [event["type"] for event in found[1][1]] == ["epoch"]


def test_a_stream_ends_after_its_time_and_when_the_token_is_refused_from_then_on(
    world: World, chat: str
) -> None:
    async def life(headers: dict[str, str]) -> float:
        began = time.monotonic()
        connection = await Sse.open(world.events.url, chat, "-1", headers)
        async for _ in connection.batches():
            pass
        connection.close()
        return time.monotonic() - began

    assert 1.5 < asyncio.run(life(bearer())) < 4
    spent = bearer(seconds=1.2 - LEEWAY_S)
    assert 1.0 < asyncio.run(life(spent)) < 1.6
    with pytest.raises(Refused) as refused:
        asyncio.run(life(spent))
    assert refused.value.args[0] == 401


def test_whoever_polls_on_with_a_token_that_ran_out_waits_until_it_is_refused(
    world: World, chat: str
) -> None:
    offset = read(world, chat).headers["stream-next-offset"]
    spent = bearer(seconds=1.9 - LEEWAY_S)
    statuses = []
    while 401 not in statuses:
        query = {"offset": offset, "live": "long-poll"}
        statuses.append(
            httpx.get(world.events.path(chat), params=query, headers=spent, timeout=10).status_code
        )
    # 0.5 s each, and a last one that is shorter.
    assert len(statuses) <= 5, statuses


def test_deleting_the_conversation_is_the_last_event_and_closes_the_stream(world: World, chat: str) -> None:
    fold, old = Fold(), read(world, chat).headers["stream-next-offset"]

    async def main() -> dict[str, Any]:
        begun = asyncio.Event()
        ends = asyncio.create_task(follow(world.events.url, chat, fold, until=lambda *_: begun.set()))
        await begun.wait()
        await asyncio.to_thread(world.save, chat, c.Delete("c", ""))
        return await ends

    control = asyncio.run(main())
    assert control["streamClosed"] is True
    assert list(fold.items) == [("conversation", chat)]
    assert fold.items["conversation", chat]["deletedAt"]

    for where in ("hot", "cold"):
        for asked in (old, "-1"):
            answer = read(world, chat, offset=asked)
            assert (answer.status_code, len(answer.json())) == (200, 1), where
            assert answer.headers["stream-closed"] == "true"
        tail = answer.headers["stream-next-offset"]
        for asked in (tail, "now"):
            assert read(world, chat, offset=asked).json() == []
            assert read(world, chat, offset=asked).headers["stream-closed"] == "true"
            polled = read(world, chat, offset=asked, live="long-poll")
            assert (polled.status_code, polled.headers["stream-closed"]) == (204, "true")
            assert asyncio.run(follow(world.events.url, chat, Fold(tail)))["streamClosed"] is True
        assert httpx.head(world.events.path(chat), headers=bearer()).headers["stream-closed"] == "true"
        if where == "hot":
            world.evict(chat)


def test_offsets_below_the_purge_horizon_and_beyond_the_end_are_gone(world: World, chat: str) -> None:
    old = read(world, chat).headers["stream-next-offset"]
    world.save(chat, c.Delete("m", "m1"))
    world.save(chat, c.put("m", "r", {"content": "done"}, status="complete"))
    world.evict(chat)
    while world.pipeline.store.purge(_tomorrow(), 1000):
        pass
    for live in ({}, {"live": "long-poll"}, {"live": "sse"}):
        assert read(world, chat, offset=old, **live).status_code == 410
        assert read(world, chat, offset="9999999999999999", **live).status_code == 410
    world.say(chat, "m9", "hot again")
    assert read(world, chat, offset=old).status_code == 410
    assert read(world, chat).status_code == 200


def _tomorrow() -> Any:
    from datetime import UTC, datetime, timedelta

    return datetime.now(UTC) + timedelta(days=1)


def test_pages_of_allowed_origins_may_read_and_no_others(world: World, chat: str) -> None:
    for origin, allowed in (
        (PAGE, PAGE),
        ("http://127.0.0.1:8400", "http://127.0.0.1:8400"),
        ("https://evil.example", None),
    ):
        preflight = httpx.options(
            world.events.path(chat),
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "authorization",
            },
        )
        assert preflight.headers.get("access-control-allow-origin") == allowed
        answer = httpx.get(world.events.path(chat), headers={**bearer(), "Origin": origin})
        assert answer.headers.get("access-control-allow-origin") == allowed
        if allowed:
            assert "stream-next-offset" in answer.headers["access-control-expose-headers"].lower()


def test_an_owner_has_a_limited_number_of_live_readers(world: World, chat: str) -> None:
    async def main() -> None:
        open_ = [await Sse.open(world.events.url, chat, "-1") for _ in range(8)]
        with pytest.raises(Refused) as refused:
            await Sse.open(world.events.url, chat, "-1")
        assert refused.value.args[0] == 429
        for connection in open_:
            connection.close()

    asyncio.run(main())
    eventually(lambda: read(world, chat, offset="-1", live="long-poll").status_code == 200)


def test_the_process_tells_how_it_is(world: World) -> None:
    assert httpx.get(f"{world.events.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{world.events.url}/readyz").status_code == 200
    assert "blotter_events_listening 1.0" in httpx.get(f"{world.events.url}/metrics").text
    assert httpx.post(world.events.path("c"), headers=bearer()).status_code == 405
    missing = httpx.get(f"{world.events.url}/nowhere")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


def test_the_log_holds_no_id_and_no_token(world: World, chat: str) -> None:
    read(world, chat, offset="-1")
    text = Path(world.events.log).read_text()
    assert '"route":"events"' in text
    assert chat not in text
    assert bearer()["Authorization"].split(".")[1][:20] not in text


def test_offsets_of_others_and_nonsense_tell_nothing_and_are_no_fault(world: World, chat: str) -> None:
    """Another owner's conversation is one that is not there, live or not, with an offset that was its own, or none."""
    own = read(world, chat).headers["stream-next-offset"]
    other = f"c{next(_numbers)}"
    world.say(other, "m", "younger")
    beyond = read(world, other).headers["stream-next-offset"]
    for live in ({}, {"live": "long-poll"}, {"live": "sse"}):
        for offset in ("-1", own, "now", "0", "9" * 16, f"{'9' * 16}_00000"):
            answer = httpx.get(
                world.events.path(chat), params={"offset": offset, **live}, headers=bearer("eve")
            )
            assert answer.status_code == 404, (live, offset, answer.text)
            assert chat not in answer.text
        # One of a younger conversation lies beyond the end of this one.
        assert read(world, chat, offset=beyond, **live).status_code == 410
        for offset in ("9" * 17, "1_123456", "-0", "0x1", "٣", "1\n", "%00", "1e3", "now ", "1" * 5000):
            assert read(world, chat, offset=offset, **live).status_code == 400, (live, offset)
    twice = httpx.get(f"{world.events.path(chat)}?offset=-1&offset=now", headers=bearer())
    assert twice.status_code == 400
    assert (
        httpx.get(f"{world.events.path(chat)}?offset=-1&token={bearer()['Authorization'][7:]}").status_code
        == 401
    )
    assert httpx.get(world.events.path("a b"), headers=bearer()).status_code == 422
