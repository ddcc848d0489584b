"""Readers under random saves, flushes, evictions and broken connections end with what the API shows, nothing doubled."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from jsonschema import Draft202012Validator

from models.core import commands as c
from tests.flow.events import EventsProcess, Fold, Refused, bearer, events_process, follow, shown
from tests.flow.rig import Rig, rig
from tests.servers import RunningPostgres, start_valkey
from web import render
from web.openapi import document

#: More of them: BLOTTER_TEST_SEEDS=100.
SEEDS = range(int(os.environ.get("BLOTTER_TEST_SEEDS", "4")))
TEXTS = ("a", " word", "äö", "😀", "𝕏y", "\n", "\r\n", '"\\', "\u2028", "日本")


class World(Rig):
    """A rig, and the events process on its servers."""

    events: EventsProcess


@pytest.fixture(scope="module")
def world(
    postgres_server: RunningPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    log = tmp_path_factory.mktemp("events") / "events.log"
    with (
        start_valkey() as valkey,
        postgres_server.new_database(template_database) as database_url,
        rig(valkey.url, database_url) as made,
        events_process(
            log, REDIS_URL=valkey.url, DATABASE_URL=database_url, BLOTTER_EVENTS_LONG_POLL_SECONDS="0.5"
        ) as process,
    ):
        world = World(made.pipeline)
        world.events = process
        yield world


def get(world: Rig, conversation: str) -> dict[str, list[bytes]]:
    """What GET /api/conversations/{id}?branches=all shows."""
    view = world.pipeline.read("ann", conversation, branches=True, limit=5000)
    return shown(render.view(view))


def conforming(events: list[Any]) -> None:
    """They have the shapes that the OpenAPI document gives."""
    components = orjson.loads(orjson.dumps(document()["components"]))
    Draft202012Validator({"$ref": "#/components/schemas/Events", "components": components}).validate(events)


class Writer:
    """Saves at random, as chats do: replies that grow, parts, tools, artifacts, edits, deletions."""

    def __init__(self, world: World, conversation: str, seed: int) -> None:
        self.world, self.conversation = world, conversation
        self.random = random.Random(seed)
        self.lengths: dict[tuple[str, int | None], int] = {}
        self.count = 0

    def save(self, *commands: c.Command) -> Any:
        return self.world.save(self.conversation, *commands)

    def step(self) -> None:
        choices = [self.user, self.reply, self.result, self.artifact, self.title, self.finish, self.delete]
        if self.lengths and self.random.random() < 0.7:
            self.grow()
        else:
            self.random.choice(choices)()

    def text(self) -> str:
        return "".join(self.random.choices(TEXTS, k=self.random.randint(1, 4)))

    def user(self) -> None:
        self.count += 1
        self.save(
            c.put(
                "m",
                f"u{self.count % 5}",
                {"role": "user", "content": self.text(), "metadata": {"n": self.count}},
            )
        )

    def reply(self) -> None:
        self.count += 1
        name = f"r{self.count}"
        parts = [
            {"type": "text", "text": "", "state": "streaming"},
            {"type": "step-start"},
            {"type": "reasoning", "text": ""},
        ]
        self.save(c.put("m", name, {"role": "assistant", "content": "", "parts": parts}, status="streaming"))
        self.lengths[name, None] = self.lengths[name, 0] = self.lengths[name, 2] = 0

    def grow(self) -> None:
        (name, part), length = self.random.choice(list(self.lengths.items()))
        text = self.text()
        kind: Any = "a" if name.startswith("a") else "m"
        units = c.utf16_units(text)
        status = "streaming" if self.random.random() < 0.3 else None
        result = self.save(c.Append(kind, name, length, text, units, part, None, status))
        if result.items[0].outcome in ("accepted", "duplicate"):
            self.lengths[name, part] = length + units
        else:
            del self.lengths[name, part]

    def artifact(self) -> None:
        self.count += 1
        name = f"a{self.count}"
        owner = next((name for name, _ in self.lengths if name.startswith("r")), "r1")
        self.save(c.put("a", name, {"message_id": owner, "kind": "code", "content": "x"}, status="streaming"))
        self.lengths[name, None] = 1

    def result(self) -> None:
        self.count += 1
        owner = next((name for name, _ in self.lengths if name.startswith("r")), "r1")
        self.save(
            c.put(
                "t",
                f"t{self.count}",
                {
                    "message_id": owner,
                    "tool_name": "look",
                    "state": "output-available",
                    "output": {"b": self.count, "a": [1.0]},
                },
            )
        )

    def title(self) -> None:
        self.save(c.put("c", "", {"title": self.text(), "archived": self.random.random() < 0.1}))

    def finish(self) -> None:
        names = {name for name, _ in self.lengths}
        if names:
            name = self.random.choice(sorted(names))
            kind: Any = "a" if name.startswith("a") else "m"
            status = self.random.choice(["complete", "error", "interrupted"])
            self.save(c.Append(kind, name, 0, "", 0, None, None, status))
            self.lengths = {key: value for key, value in self.lengths.items() if key[0] != name}

    def delete(self) -> None:
        self.save(c.Delete("m", f"u{self.random.randint(0, 6)}"))


async def wander(world: World, conversation: str, fold: Fold, seed: int, done: asyncio.Event) -> None:
    """Read by SSE, broken off at random points, until ``done`` and then once up to date."""
    chance = random.Random(seed)
    while True:
        finishing = done.is_set()
        goal = (lambda _, control: bool(control.get("upToDate"))) if finishing else None
        batches = None if finishing else chance.randint(1, 12)
        try:
            async with asyncio.timeout(chance.uniform(0.02, 0.6) if not finishing else 20):
                await follow(world.events.url, conversation, fold, until=goal, batches=batches)
        except TimeoutError:
            assert not finishing
        if finishing:
            return


async def poll(world: World, conversation: str, fold: Fold, done: asyncio.Event) -> None:
    """Read by long polls, catching up first."""
    async with httpx.AsyncClient(timeout=30, headers=bearer(seconds=600)) as client:
        live = False
        while True:
            finishing = done.is_set()
            query = {"offset": fold.offset, **({"live": "long-poll"} if live and not finishing else {})}
            if query.get("live"):
                query["cursor"] = "12"
            answer = await client.get(world.events.path(conversation), params=query)
            assert answer.status_code in (200, 204), answer.text
            fold.connect()
            fold.apply(answer.content, answer.headers["stream-next-offset"])
            live = answer.headers.get("stream-up-to-date") == "true"
            if query.get("live"):
                assert int(answer.headers["stream-cursor"]) > 12
            if finishing and live:
                return


@pytest.mark.parametrize("seed", SEEDS)
def test_readers_from_any_offset_end_with_what_the_api_shows(world: World, seed: int) -> None:
    conversation = f"random-{seed}"
    writer = Writer(world, conversation, seed)
    writer.user()
    folds = [Fold() for _ in range(4)]

    async def main() -> None:
        done = asyncio.Event()
        readers = [
            asyncio.create_task(wander(world, conversation, fold, seed * 10 + n, done))
            for n, fold in enumerate(folds[:3])
        ]
        readers.append(asyncio.create_task(poll(world, conversation, folds[3], done)))
        for n in range(150):
            await asyncio.to_thread(writer.step)
            if writer.random.random() < 0.05:
                await asyncio.to_thread(world.flush, conversation)
            if n % 50 == 30:
                for name in {name for name, _ in writer.lengths}:
                    kind: Any = "a" if name.startswith("a") else "m"
                    await asyncio.to_thread(
                        writer.save, c.Append(kind, name, 0, "", 0, None, None, "complete")
                    )
                writer.lengths.clear()
                await asyncio.to_thread(world.evict, conversation)
        await asyncio.to_thread(world.flush, conversation)
        done.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*readers)

    asyncio.run(main())
    expected = get(world, conversation)
    assert len(expected["messages"]) > 3
    for fold in folds:
        assert fold.view() == expected

    for fold in folds:
        assert fold.examples.keys() >= {"item", "append", "epoch"}
        conforming(list(fold.examples.values()))

    # Whoever begins now, or catches up without a live connection, sees the same.
    late = Fold()
    answer = httpx.get(world.events.path(conversation), headers=bearer())
    conforming(answer.json())
    late.connect()
    late.apply(answer.content, answer.headers["stream-next-offset"])
    assert late.view() == expected
    again = httpx.get(world.events.path(conversation), params={"offset": late.offset}, headers=bearer())
    assert (again.content, again.headers["stream-up-to-date"]) == (b"[]", "true")


def test_a_stranger_gets_the_same_404_as_for_an_unknown_conversation(world: World) -> None:
    world.say("mine", "m1", "hi")
    refusals = set()
    for conversation, owner in (("mine", "bob"), ("nobodys", "bob")):
        for live in ("", "&live=long-poll", "&live=sse"):
            answer = httpx.get(f"{world.events.path(conversation)}?offset=-1{live}", headers=bearer(owner))
            refusals.add((answer.status_code, answer.content))
    assert len(refusals) == 1
    assert refusals.pop()[0] == 404
    assert httpx.get(world.events.path("mine"), headers=bearer("ann")).status_code == 200
    acting = {**bearer("backend", scope="blotter:act-for"), "Blotter-Owner": "ann"}
    assert httpx.get(world.events.path("mine"), headers=acting).status_code == 200
    assert (
        httpx.get(world.events.path("mine"), headers={**bearer("bob"), "Blotter-Owner": "ann"}).status_code
        == 403
    )
    token = bearer()["Authorization"].split()[1]
    assert httpx.get(f"{world.events.path('mine')}?access_token={token}&token={token}").status_code == 401

    async def stream() -> None:
        with pytest.raises(Refused) as refused:
            await follow(world.events.url, "nobodys", Fold())
        assert refused.value.args[0] == 404

    asyncio.run(stream())
