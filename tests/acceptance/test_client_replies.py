"""The Python client against the real web program on real servers: replies in both worlds, faults on the way, the methods."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import blotter_client
import httpx
import pytest
import redis
from blotter_client import (
    AsyncBlotter,
    Blotter,
    Conversation,
    NotReached,
    NotSent,
    Pace,
    Reply,
    RetryPolicy,
    Unreachable,
)
from blotter_client.errors import (
    AppendMismatch,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Terminal,
    Unauthenticated,
)

from tests.acceptance.webserver import environment, token, web_process
from tests.servers import Running, RunningPostgres, eventually, start_valkey
from web.cli.folder import free_port

#: Emoji, a family of four joined, combining marks, right to left, characters beyond 16 bits.
TRICKY = "na\u0301ïve 👩‍👩‍👧‍👦 שלום \u202bمرحبا\u202c 𝔘𝔫𝔦 🇩🇪 e\u0301\u0323 "
STALE_S = 1.5


class Stage:
    """A running web, and what it stands on."""

    def __init__(self, url: str, buffer: Running, environ: dict[str, str]) -> None:
        self.url = url
        self.buffer = buffer
        self.environ = environ

    def client(self, owner: str = "ann", **how: Any) -> Blotter:
        return Blotter(self.url, token(owner), **how)


@pytest.fixture(scope="module")
def stage(postgres_server: RunningPostgres, template_database: str) -> Iterator[Stage]:
    with start_valkey() as buffer, postgres_server.new_database(template_database) as database_url:
        environ = environment(database_url, buffer.url, BLOTTER_STALE_SECONDS=str(STALE_S))
        with web_process(environ) as url:
            yield Stage(url, buffer, environ)


@pytest.fixture
def blotter(stage: Stage) -> Iterator[Blotter]:
    with stage.client() as made:
        yield made


@pytest.fixture
def chat(blotter: Blotter) -> Conversation:
    return blotter.conversation(f"c-{uuid4()}")


def words(seed: int, count: int = 120) -> list[str]:
    chance = random.Random(seed)
    return [chance.choice(TRICKY.split(" ")) + " " for _ in range(count)]


class Unreliable(httpx.BaseTransport):
    """The real transport; every answer may be lost after the request was carried out, or the request before it was."""

    def __init__(self, chance: random.Random, share: float) -> None:
        self._real = httpx.HTTPTransport()
        self._chance = chance
        self._share = share
        self.lost = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self._chance.random() < self._share / 2:
            self.lost += 1
            raise httpx.ConnectTimeout("never sent", request=request)
        response = self._real.handle_request(request)
        if self._chance.random() < self._share:
            response.close()
            self.lost += 1
            raise httpx.ReadError("the answer was lost", request=request)
        return response

    def close(self) -> None:
        self._real.close()


class AsyncUnreliable(httpx.AsyncBaseTransport):
    """The same, asynchronous."""

    def __init__(self, chance: random.Random, share: float) -> None:
        self._real = httpx.AsyncHTTPTransport()
        self._chance = chance
        self._share = share

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._real.handle_async_request(request)
        if self._chance.random() < self._share:
            await response.aclose()
            raise httpx.ReadError("the answer was lost", request=request)
        return response

    async def aclose(self) -> None:
        await self._real.aclose()


QUICK = RetryPolicy(base_s=0.005, cap_s=0.05, patience_s=30.0)


# ---------------------------------------------------------------------- a reply
def write_everything(reply: Reply, text: list[str]) -> None:
    for word in text:
        reply.append(word)
    part = reply.add_part({"type": "text", "text": ""})
    for word in text:
        reply.append_part(part, word)
    call = reply.tool_call("search", "call_1")
    reply.flush()
    call.input({"q": "é"})
    reply.flush()
    call.output({"hits": [1, 2.5, None]})


def assert_everything_is_there(chat: Conversation, text: list[str]) -> None:
    view = chat.read()
    message = view["messages"][-1]
    assert (message["id"], message["role"], message["status"], message["parentId"]) == (
        "m2",
        "assistant",
        "complete",
        "m1",
    )
    assert message["content"] == "".join(text)
    assert message["parts"] == [
        {"type": "text", "text": "".join(text)},
        {
            "type": "tool-search",
            "toolCallId": "call_1",
            "state": "output-available",
            "input": {"q": "é"},
            "output": {"hits": [1, 2.5, None]},
        },
    ]
    assert message["toolResultIds"] == ["m2.call_1"]
    (result,) = view["toolResults"]
    assert (result["messageId"], result["toolName"], result["state"]) == ("m2", "search", "output-available")
    assert view["inFlight"] is False


def test_a_reply_arrives_as_it_was_written(chat: Conversation) -> None:
    text = words(1)
    chat.save_user_message("m1", content="hello")
    with chat.reply("m2", parent_id="m1") as reply:
        write_everything(reply, text)
    assert_everything_is_there(chat, text)


def test_an_asynchronous_reply_is_readable_while_it_is_written(stage: Stage, chat: Conversation) -> None:
    text = words(2)

    async def write() -> None:
        async with (
            AsyncBlotter(stage.url, token("ann")) as blotter,
            blotter.reply(chat.id, "m2", parent_id="m1") as reply,
        ):
            seen = 0
            for number, word in enumerate(text):
                await reply.append(word)
                if number % 40 == 0:
                    await reply.flush()
                    message = await blotter.conversation(chat.id).get_message("m2")
                    assert message["status"] == "streaming"
                    assert message["content"] == "".join(text[: number + 1])
                    seen += 1
            assert seen == 3

    chat.save_user_message("m1", content="hello")
    asyncio.run(write())
    assert chat.get_message("m2")["content"] == "".join(text)
    assert chat.get_message("m2")["status"] == "complete"


def test_a_waiting_word_is_on_the_server_within_moments_without_another(chat: Conversation) -> None:
    with chat.reply("m") as reply:
        reply.append("one word")
        began = time.monotonic()
        eventually(lambda: chat.get_message("m")["content"] == "one word", within_s=5)
        assert time.monotonic() - began < 2, (
            "it waits for a quarter of a second, on a busy machine a little longer"
        )


def test_half_a_character_at_a_border_is_joined_with_its_other_half(chat: Conversation) -> None:
    with chat.reply("m") as reply:
        for piece in ("smile \ud83d", "\ude00", " and half \ud83d"):
            reply.append(piece)
            reply.flush()
    assert chat.get_message("m")["content"] == "smile 😀 and half \ufffd"


@pytest.mark.parametrize("seed", range(3))
def test_answers_that_are_lost_change_nothing(stage: Stage, chat: Conversation, seed: int) -> None:
    text = words(seed)
    transport = Unreliable(random.Random(seed), 0.3)
    chat.save_user_message("m1", content="hello")
    with stage.client(transport=transport, retry=QUICK) as unlucky:
        with unlucky.reply(chat.id, "m2", parent_id="m1", pace=Pace(batch=10, most=20)) as reply:
            write_everything(reply, text)
        assert transport.lost > 10
    assert_everything_is_there(chat, text)


def test_answers_that_are_lost_change_nothing_asynchronously(stage: Stage, chat: Conversation) -> None:
    text = words(9)

    async def write() -> int:
        transport = AsyncUnreliable(random.Random(9), 0.3)
        async with AsyncBlotter(stage.url, token("ann"), transport=transport, retry=QUICK) as blotter:
            async with blotter.reply(chat.id, "m", pace=Pace(batch=10, most=20)) as reply:
                for word in text:
                    await reply.append(word)
            return blotter.requests

    requests = asyncio.run(write())
    message = chat.get_message("m")
    assert (message["content"], message["status"]) == ("".join(text), "complete")
    assert requests > 30


# ---------------------------------------------------------------------- ends
def test_an_exception_ends_it_with_error_and_passes(chat: Conversation) -> None:
    with pytest.raises(ZeroDivisionError), chat.reply("m") as reply:  # noqa: PT012 (the whole block is meant)
        reply.append("so far")
        reply.append(str(1 / 0))
    message = chat.get_message("m")
    assert (message["content"], message["status"], message["statusReason"]) == (
        "so far",
        "error",
        "ZeroDivisionError",
    )


def test_a_reason_can_be_given(chat: Conversation) -> None:
    with chat.reply("m") as reply:
        reply.append("so far")
        reply.fail("The model refused.")
    message = chat.get_message("m")
    assert (message["status"], message["statusReason"]) == ("error", "The model refused.")


def test_a_reader_who_leaves_interrupts_a_generator(chat: Conversation) -> None:
    def stream() -> Iterator[str]:
        with chat.reply("m") as reply:
            for word in ("one ", "two ", "three "):
                reply.append(word)
                yield word

    reading = stream()
    assert [next(reading), next(reading)] == ["one ", "two "]
    reading.close()  # type: ignore[attr-defined]
    message = chat.get_message("m")
    assert (message["content"], message["status"]) == ("one two ", "interrupted")


def test_a_cancelled_task_interrupts_its_reply(stage: Stage, chat: Conversation) -> None:
    async def cancelled() -> None:
        async with AsyncBlotter(stage.url, token("ann")) as blotter:
            begun = asyncio.Event()

            async def write() -> None:
                async with blotter.reply(chat.id, "m") as reply:
                    await reply.append("so far")
                    begun.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(write())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())
    message = chat.get_message("m")
    assert (message["content"], message["status"], message["statusReason"]) == (
        "so far",
        "interrupted",
        "cancelled",
    )


def test_a_reply_is_written_inside_with(chat: Conversation) -> None:
    reply = chat.reply("m")
    for wrong in (lambda: reply.append("x"), lambda: reply.add_part({"type": "text"}), reply.complete):
        with pytest.raises(ValueError, match="inside"):
            wrong()
    with chat.reply("m2") as closed:
        closed.complete()
        with pytest.raises(ValueError, match="finished"):
            closed.append("late")


# ---------------------------------------------------------------------- silence
def test_heartbeats_keep_a_silent_reply_open_and_without_them_it_is_settled(chat: Conversation) -> None:
    with (
        chat.reply("quiet", pace=Pace(heartbeat_s=1000)) as quiet,
        chat.reply("alive", pace=Pace(heartbeat_s=0.2)) as alive,
    ):
        quiet.append("begun")
        alive.append("begun")

        def settled() -> bool:
            found = {message["id"]: message["status"] for message in chat.read()["messages"]}
            assert found["alive"] == "streaming"
            return found["quiet"] == "interrupted"

        eventually(settled, within_s=15)
        # A genuine late save brings it back.
        quiet.append(", gone on with")
        quiet.flush()
        assert chat.get_message("quiet")["status"] == "streaming"
    message = chat.get_message("quiet")
    assert (message["content"], message["status"]) == ("begun, gone on with", "complete")


# ---------------------------------------------------------------------- others interfere
def test_a_reader_who_presses_stop_ends_the_writer(chat: Conversation) -> None:
    with pytest.raises(Terminal) as stopped, chat.reply("m") as reply:  # noqa: PT012 (the whole block is meant)
        reply.append("so far")
        reply.flush()
        chat.save_or_update_message("m", status="interrupted", status_reason="stopped by the user")
        for _ in range(10):
            reply.append(" more")
            reply.flush()
    assert stopped.value.current is not None
    assert stopped.value.current["statusReason"] == "stopped by the user"
    message = chat.get_message("m")
    assert (message["content"], message["status"]) == ("so far", "interrupted")


def test_a_reply_that_ended_early_can_be_gone_on_with(chat: Conversation) -> None:
    with pytest.raises(KeyError), chat.reply("m") as first:  # noqa: PT012 (the whole block is meant)
        first.append("one two")
        raise KeyError
    with chat.reply("m", on_conflict="reopen") as second:
        for word in ("one", " two", " three"):
            second.append(word)
    message = chat.get_message("m")
    assert (message["content"], message["status"], message["revision"]) == ("one two three", "complete", 1)


def test_other_text_is_replaced_only_where_that_is_asked_for(chat: Conversation) -> None:
    chat.save_assistant_message("m", content="other text", status="streaming")
    with pytest.raises(AppendMismatch), chat.reply("m") as reply:
        reply.append("a fresh start")
    assert chat.get_message("m")["content"] == "other text"
    with chat.reply("m", on_conflict="replace") as reply:
        reply.append("a fresh start")
        reply.flush()
        reply.append(" and its end")
    message = chat.get_message("m")
    assert (message["content"], message["status"]) == ("a fresh start and its end", "complete")


def test_a_deleted_conversation_ends_the_reply(chat: Conversation) -> None:
    with pytest.raises(Gone), chat.reply("m") as reply:  # noqa: PT012 (the whole block is meant)
        reply.append("so far")
        reply.flush()
        chat.delete()
        reply.append(" more")
        reply.flush()
    with pytest.raises(Gone):
        chat.save_user_message("m2", content="late")


def test_a_buffer_that_lost_everything_is_told_everything_again(stage: Stage, chat: Conversation) -> None:
    with chat.reply("m", parent_id="m1") as reply:
        reply.append("a" * 150)
        reply.add_part({"type": "text", "text": "b" * 50})
        reply.flush()
        with redis.Redis.from_url(stage.buffer.url) as client:
            client.flushall()
        reply.append("c" * 150)
        reply.append_part(0, "d" * 150)
    message = chat.get_message("m")
    assert message["content"] == "a" * 150 + "c" * 150
    assert message["parts"] == [{"type": "text", "text": "b" * 50 + "d" * 150}]
    assert (message["status"], message["parentId"]) == ("complete", "m1")


def test_a_reply_goes_on_across_a_restart_of_web(stage: Stage) -> None:
    port, text = free_port(), words(5)
    conversation = f"c-{uuid4()}"
    with web_process(stage.environ, port=port) as url:
        blotter = Blotter(url, token("ann"), retry=RetryPolicy(base_s=0.02, cap_s=0.2, patience_s=40))
        writing = blotter.reply(conversation, "m")
        reply = writing.__enter__()
        for word in text[:60]:
            reply.append(word)
    with pytest.raises(Unreachable):
        Blotter(url, token("ann"), retry=RetryPolicy(patience_s=0)).list_conversations()
    for word in text[60:]:
        reply.append(word)
    with web_process(stage.environ, port=port):
        writing.__exit__(None, None, None)
        message = blotter.conversation(conversation).get_message("m")
    assert (message["content"], message["status"]) == ("".join(text), "complete")
    blotter.close()


def test_nobody_there_is_said_so_at_once() -> None:
    began = time.monotonic()
    with Blotter(f"http://127.0.0.1:{free_port()}", "t") as blotter:
        with pytest.raises(NotReached), blotter.reply("c", "m"):
            raise AssertionError("it cannot begin")
        assert time.monotonic() - began < 20, "far below a minute's patience"
        assert blotter.requests == 1


def test_an_error_while_leaving_does_not_hide_the_one_that_made_it_leave(
    stage: Stage, chat: Conversation
) -> None:
    with pytest.raises(KeyError) as raised, chat.reply("m") as reply:  # noqa: PT012 (the whole block is meant)
        reply.append("so far")
        reply.flush()
        chat.delete()
        raise KeyError
    assert any("not saved" in note for note in raised.value.__notes__)


# ---------------------------------------------------------------------- who
def test_a_backend_acts_for_its_users(stage: Stage) -> None:
    conversation = f"c-{uuid4()}"
    with Blotter(stage.url, token("backend", "blotter:act-for")) as backend:
        backend.conversation(conversation, owner="bøb").save_user_message("m1", content="hello")
        with backend.reply(conversation, "m2", owner="bøb") as reply:
            reply.append("hi")
        with pytest.raises(NotFound):
            backend.conversation(conversation).read()
    with stage.client("bøb") as bob:
        assert [m["content"] for m in bob.conversation(conversation).read()["messages"]] == ["hello", "hi"]
    with Blotter(stage.url, token("eve"), owner="bøb") as eve, pytest.raises(Forbidden):
        eve.conversation(conversation).read()


def test_a_token_that_expired_is_asked_for_again_once_for_all(stage: Stage) -> None:
    asked: list[str] = []

    def source() -> str:
        asked.append(token("ann", ttl_s=3600 if asked else -3600))
        return asked[-1]

    with Blotter(stage.url, source) as blotter:
        threads = [threading.Thread(target=blotter.list_conversations) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(asked) == 2
    with stage.client() as fixed, Blotter(stage.url, token("ann", ttl_s=-3600)) as expired:
        fixed.list_conversations()
        with pytest.raises(Unauthenticated):
            expired.list_conversations()
    with Blotter(stage.url, lambda: "") as none, pytest.raises(NotSent):
        none.list_conversations()


def test_a_token_function_may_be_asynchronous(stage: Stage) -> None:
    async def source() -> str:
        await asyncio.sleep(0)
        return token("ann")

    async def listed() -> list[str]:
        async with AsyncBlotter(stage.url, source) as blotter:
            created = await blotter.create_conversation(title="mine")
            return [one["id"] async for one in blotter.all_conversations() if one["id"] == created["id"]]

    assert len(asyncio.run(listed())) == 1


# ---------------------------------------------------------------------- the methods
def test_every_method_does_what_it_says(blotter: Blotter, chat: Conversation) -> None:
    assert (
        blotter.create_conversation(chat.id, title="A title", metadata={"b": 1, "a": 2})["outcome"]
        == "accepted"
    )
    assert chat.save_user_message("u", content="hi")["state"] == "buffered"
    assert chat.save_assistant_message("a", content="par", status="streaming")["length"] == 3
    assert chat.append_to_message("a", 3, "tial")["length"] == 7
    assert chat.set_message_part("a", 0, {"type": "text", "text": "x"})["outcome"] == "accepted"
    assert chat.save_or_update_message("a", status="complete", metadata=None)["outcome"] == "accepted"
    assert (
        chat.save_tool_result("a.1", message_id="a", tool_name="t", state="input-available", input={})[
            "outcome"
        ]
        == "accepted"
    )
    assert chat.update_tool_result("a.1", state="output-available", output=[1])["outcome"] == "accepted"
    assert (
        chat.save_artifact("doc", message_id="a", kind="text", content="one", status="streaming")["length"]
        == 3
    )
    assert chat.append_to_artifact("doc", 3, " two")["length"] == 7
    assert chat.update_artifact("doc", status="complete", title="Doc")["outcome"] == "accepted"
    synced = chat.sync_conversation_state(
        conversation={"archived": False},
        messages=[
            {"id": "u", "role": "user", "content": "hi"},
            {"id": "n", "role": "user", "content": "new", "parent_id": "a"},
        ],
        tool_results=[{"id": "a.1", "tool_name": "t"}],
        artifacts=[{"id": "doc", "title": "Doc"}],
    )
    assert [item["outcome"] for item in synced["items"]] == [
        "duplicate",
        "duplicate",
        "accepted",
        "duplicate",
        "duplicate",
    ]
    assert chat.update(title="Another", head_id="n", wait=0.1)["outcome"] == "accepted"

    assert chat.get_message("n")["parentId"] == "a"
    assert chat.get_tool_result("a.1")["output"] == [1]
    assert chat.get_artifact("doc")["content"] == "one two"
    assert [m["id"] for m in chat.list_messages()["messages"]] == ["u", "a", "n"]
    page = chat.list_messages(limit=1)
    assert [m["id"] for m in chat.list_messages(limit=1, after=page["after"])["messages"]] == ["a"]
    assert [t["id"] for t in chat.list_tool_results()["toolResults"]] == ["a.1"]
    assert [a["id"] for a in chat.list_artifacts()["artifacts"]] == ["doc"]
    assert [v["content"] for v in chat.list_artifact_versions("doc")["versions"]] == ["one two"]

    view = chat.read(branches=True)
    assert (view["conversation"]["title"], view["conversation"]["metadata"]) == ("Another", {"b": 1, "a": 2})
    assert [m["id"] for m in view["messages"]] == ["u", "a", "n"]
    assert [m["id"] for m in chat.read()["messages"]] == ["a", "n"], "the path to the head"
    chat.delete_tool_result("a.1")
    chat.delete_artifact("doc")
    chat.delete_message("n")
    changed = chat.read(since=view["version"])
    assert {item["id"] for name in ("messages", "toolResults", "artifacts") for item in changed[name]} == {
        "a.1",
        "doc",
        "n",
    }  # type: ignore[literal-required]
    assert chat.id in {one["id"] for one in blotter.all_conversations()}
    chat.delete()
    assert chat.id not in {one["id"] for one in blotter.list_conversations()["conversations"]}


def test_refusals_name_what_is_wrong(chat: Conversation) -> None:
    with pytest.raises(Invalid) as wrong:
        chat.save_user_message("no id!", content="x")
    assert [error["field"] for error in wrong.value.errors] == ["id"]
    with pytest.raises(NotFound):
        chat.get_message("nobody")
    for value in (float("nan"), "\ud83d", {1, 2}):
        with pytest.raises(NotSent):
            chat.save_user_message("m", content="x", metadata={"v": value})
    with pytest.raises(ValueError, match="wait"):
        chat.save_user_message("m", content="x", wait=11)


# ---------------------------------------------------------------------- refusals that pass
@contextmanager
def refusing(times: int, answer: Callable[[], httpx.Response]) -> Iterator[httpx.BaseTransport]:
    """The real transport, after so many refusals."""

    class Refusing(httpx.BaseTransport):
        left = times
        real = httpx.HTTPTransport()

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if self.left:
                self.left -= 1
                return answer()
            return self.real.handle_request(request)

        def close(self) -> None:
            self.real.close()

    yield Refusing()


def test_busy_answers_are_waited_for_and_other_refusals_are_not(stage: Stage) -> None:
    busy = [
        httpx.Response(503, headers={"Retry-After": "0"}),
        httpx.Response(429),
        httpx.Response(502, text="<html>"),
    ]
    for answer in busy:
        with (
            refusing(2, lambda answer=answer: answer) as transport,
            stage.client(transport=transport, retry=QUICK) as blotter,
        ):  # type: ignore[misc]
            blotter.list_conversations()
            assert blotter.requests == 3
    with (
        refusing(1, lambda: httpx.Response(200, text="<html>")) as transport,
        stage.client(transport=transport, retry=QUICK) as blotter,
    ):
        blotter.list_conversations()
        assert blotter.requests == 2
    with (
        refusing(1, lambda: httpx.Response(403)) as transport,
        stage.client(transport=transport, retry=QUICK) as blotter,
    ):
        with pytest.raises(Exception, match="403"):
            blotter.list_conversations()
        assert blotter.requests == 1


# ---------------------------------------------------------------------- bounds
def test_a_writer_that_is_faster_than_the_server_waits_and_one_request_is_under_way_at_a_time(
    stage: Stage, chat: Conversation
) -> None:
    async def write() -> None:
        held, opened = asyncio.Event(), asyncio.Event()
        under_way: list[int] = []

        class Gate(httpx.AsyncHTTPTransport):
            now = 0

            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                self.now += 1
                under_way.append(self.now)
                if request.method == "PATCH":
                    held.set()
                    await opened.wait()
                response = await super().handle_async_request(request)
                self.now -= 1
                return response

        async with (
            AsyncBlotter(stage.url, token("ann"), transport=Gate()) as blotter,
            blotter.reply(chat.id, "m", pace=Pace(waiting=1000)) as reply,
        ):
            for _ in range(100):
                await reply.append("0123456789")
            more = asyncio.create_task(reply.append("x"))
            await held.wait()
            for _ in range(10):  # every chance to be done
                await asyncio.sleep(0)
            assert not more.done()
            opened.set()
            await more
        assert max(under_way) == 1

    asyncio.run(write())
    assert chat.get_message("m")["content"] == "0123456789" * 100 + "x"


# ---------------------------------------------------------------------- the README
def test_the_example_of_the_readme_runs(stage: Stage) -> None:
    readme = Path(blotter_client.__file__).resolve().parent.parent / "README.md"
    code = readme.read_text().split("```python\n")[1].split("```")[0]

    class Model:
        async def stream(self, question: str) -> AsyncIterator[str]:
            for word in ("It ", "is ", "fine: ", question):
                yield word

    names: dict[str, Any] = {"token": token("backend", "blotter:act-for")}
    exec(code.replace("https://blotter.example", stage.url), names)
    conversation = f"c-{uuid4()}"
    asyncio.run(names["answer"](conversation, {"user": "zoe", "id": "q", "text": "and you?"}, Model()))
    with stage.client("zoe") as zoe:
        messages = zoe.conversation(conversation).read()["messages"]
    assert [(m["id"], m["role"], m["content"], m["status"], m["parentId"]) for m in messages] == [
        ("q", "user", "and you?", "complete", None),
        ("q-reply", "assistant", "It is fine: and you?", "complete", "q"),
    ]
