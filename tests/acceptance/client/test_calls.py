"""All other calls of the Python client against the real web program: who calls, every method, refusals, bounds, the README."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import blotter_client
import httpx
import pytest
from blotter_client import (
    AsyncBlotter,
    Blotter,
    Conversation,
    NotSent,
    Pace,
)
from blotter_client.errors import (
    Forbidden,
    Invalid,
    NotFound,
    Unauthenticated,
)

from tests.acceptance.client.stage import QUICK, Stage
from tests.acceptance.webserver import token


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
