"""The demo's assistant against the real web program: what is said is kept once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import redis
from blotter_client import AsyncBlotter, RetryPolicy
from blotter_client.aio.conversation import AsyncConversation

from tests.acceptance.webserver import environment, token, web_process
from tests.servers import Running, RunningPostgres, start_valkey
from web.auth import ACT_FOR
from web.demo.assistant import texts
from web.demo.assistant.openai import OpenAI
from web.demo.assistant.process import Assistant, voice
from web.demo.assistant.simulator import Simulator
from web.demo.assistant.voice import Line, Said, Silence, Text, Voice
from web.demo.spool import Job, Spool

FAST = 100_000


class Stage:
    """A running web, and what it stands on."""

    def __init__(self, url: str, buffer: Running, environ: dict[str, str]) -> None:
        self.url = url
        self.buffer = buffer
        self._environ = environ

    async def drain(self) -> None:
        """Everything to Postgres: there is no worker here."""
        blotter = str(Path(sys.executable).with_name("blotter"))
        process = await asyncio.create_subprocess_exec(blotter, "drain", "--timeout", "20", env=self._environ)
        assert await process.wait() == 0

    def lose_buffer(self) -> None:
        with redis.Redis.from_url(self.buffer.url) as client:
            client.flushall()


@pytest.fixture(scope="module")
def stage(postgres_server: RunningPostgres, template_database: str) -> Iterator[Stage]:
    with start_valkey() as buffer, postgres_server.new_database(template_database) as database_url:
        environ = environment(database_url, buffer.url)
        with web_process(environ) as url:
            yield Stage(url, buffer, environ)


class Wire(httpx.AsyncHTTPTransport):
    """The network, until it is cut."""

    cut = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.cut:
            raise httpx.ConnectError("cut", request=request)
        return await super().handle_async_request(request)


class Scene:
    """A chat with a question, and an assistant that may be started and ended."""

    def __init__(self, stage: Stage, client: AsyncBlotter, spool: Spool) -> None:
        self.stage = stage
        self.client = client
        self.spool = spool
        self.job = Job("ann", f"c-{uuid4()}", "r", None)
        self.chat: AsyncConversation = client.conversation(self.job.conversation_id, owner="ann")

    async def ask(self, question: str) -> None:
        await self.chat.save_user_message("q", content=question)
        await self.chat.save_assistant_message("r", content="", parent_id="q", status="pending")
        self.spool.put(self.job)

    @asynccontextmanager
    async def assistant(self, speaker: Voice, speed: int = FAST) -> AsyncIterator[None]:
        """An assistant with a line of its own, which is cut at the end: what it wants to say then is not heard."""
        stop, wire = asyncio.Event(), Wire()
        again = RetryPolicy(patience_s=0)
        async with AsyncBlotter(
            self.stage.url, token("assistant", ACT_FOR), retry=again, transport=wire
        ) as client:
            made = Assistant(client, self.spool, speaker, speed)
            running = asyncio.create_task(made.run(stop))
            try:
                yield
            finally:
                stop.set()
                await running
                wire.cut = True
                left = list(made.tasks)
                for task in left:
                    task.cancel()
                await asyncio.gather(*left, return_exceptions=True)

    async def until(
        self, holds: Callable[[dict[str, Any]], object], within_s: float = 15.0
    ) -> dict[str, Any]:
        """The reply, once it is so."""
        async with asyncio.timeout(within_s):
            while True:
                message: Any = await self.chat.get_message("r")
                if holds(message):
                    return message
                await asyncio.sleep(0.02)

    async def forgotten(self, within_s: float = 15.0) -> None:
        """Until the job is done."""
        async with asyncio.timeout(within_s):
            while list(self.spool.jobs()):  # noqa: ASYNC110 (another task, on files)
                await asyncio.sleep(0.02)


def play(stage: Stage, folder: Path, scene: Callable[[Scene], Any]) -> None:
    async def run() -> None:
        async with AsyncBlotter(stage.url, token("assistant", ACT_FOR)) as client:
            await scene(Scene(stage, client, Spool(folder / "replies")))

    asyncio.run(run())


def text_of(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] or [] if part["type"] == "text")


def complete(message: dict[str, Any]) -> bool:
    return bool(message["status"] == "complete")


# ---------------------------------------------------------------------- the simulator
def test_a_reply_is_written_stored_and_only_then_forgotten(stage: Stage, tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.ask("Draw me a lighthouse.")
        async with at.assistant(Simulator()):
            message = await at.until(complete)
            assert text_of(message) == texts.DRAWING.before + texts.DRAWING.after
            assert list(at.spool.jobs()) == [at.job], "nothing is stored yet"
            await stage.drain()
            await at.forgotten()
        view = await at.chat.read()
        assert [(one["id"], one["content"], one["status"]) for one in view["artifacts"]] == [
            ("r.work", texts.DRAWING.content, "complete")
        ]
        assert view["messages"][1]["artifactIds"] == ["r.work"]

    play(stage, tmp_path, scene)


def test_a_tool_call_is_shown_as_it_is_written_and_kept_with_its_result(stage: Stage, tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.ask("What will the weather be in Porto Novo?")
        async with at.assistant(Simulator()):
            message = await at.until(complete)
        tool = message["parts"][1]
        assert (tool["type"], tool["state"]) == ("tool-forecast", "output-available")
        result = await at.chat.get_tool_result("r.forecast")
        assert result["input"] == tool["input"] == {"place": "Porto Novo", "days": 4, "units": "metric"}
        assert result["output"] == tool["output"]
        assert message["toolResultIds"] == ["r.forecast"]

    play(stage, tmp_path, scene)


def test_stop_is_noticed_at_the_next_word(stage: Stage, tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.ask("Tell me a long story.")
        async with at.assistant(Simulator(), speed=400):
            await at.until(lambda message: len(text_of(message)) > 100)
            await at.chat.save_or_update_message("r", status="interrupted", status_reason="stopped")
            stopped = await at.chat.get_message("r")
            await stage.drain()
            await at.forgotten()
        after: Any = await at.chat.get_message("r")
        assert text_of(after) == text_of(dict(stopped))
        assert (after["status"], after["statusReason"]) == ("interrupted", "stopped")

    play(stage, tmp_path, scene)


def test_an_assistant_that_begins_again_goes_on_where_the_last_one_was(stage: Stage, tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.ask("Tell me a long story.")
        async with at.assistant(Simulator(), speed=500):
            await at.until(lambda message: len(text_of(message)) > 300)
        left = await at.chat.get_message("r")
        assert left["status"] == "streaming"
        async with at.assistant(Simulator()):
            assert text_of(await at.until(complete)) == texts.STORY

    play(stage, tmp_path, scene)


def test_what_a_lost_buffer_took_along_is_said_again(stage: Stage, tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.ask("What will the weather be in Lisbon? ")
        async with at.assistant(Simulator()):
            whole = await at.until(complete)
            before = await at.chat.get_tool_result("r.forecast")
            stage.lose_buffer()
            await at.chat.save_user_message("q", content="What will the weather be in Lisbon? ")

            async def again() -> dict[str, Any]:
                async with asyncio.timeout(15):
                    while True:
                        view = await at.chat.read(branches=True)
                        if len(view["messages"]) == 2 and view["messages"][1]["status"] == "complete":
                            return dict(view)
                        await asyncio.sleep(0.05)

            view = await again()
            await stage.drain()
            await at.forgotten()
        assert view["messages"][1]["parts"] == whole["parts"]
        assert [one["output"] for one in view["toolResults"]] == [before["output"]]

    play(stage, tmp_path, scene)


def test_a_deleted_conversation_ends_the_reply(stage: Stage, tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.ask("Tell me a long story.")
        async with at.assistant(Simulator(), speed=300):
            await at.until(lambda message: len(text_of(message)) > 20)
            await at.chat.delete()
            await at.forgotten()

    play(stage, tmp_path, scene)


def test_a_question_may_come_later_than_the_request_for_its_answer(stage: Stage, tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        at.spool.put(at.job)
        async with at.assistant(Simulator()):
            await asyncio.sleep(0)
            await at.ask("Tell me a long story.")
            await at.until(complete)

    play(stage, tmp_path, scene)


# ---------------------------------------------------------------------- an OpenAI-compatible server
class Model:
    """What the fake server does and was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.words = ["Well, ", "hello", " there", " 👋"]
        self.status = 200
        self.held = threading.Event()
        self.held.set()
        self.ending = "data: [DONE]\n\n"
        self.url = ""

    @property
    def environ(self) -> dict[str, str]:
        return {"OPENAI_BASE_URL": f"{self.url}/v1", "OPENAI_API_KEY": "key"}


@contextmanager
def model_server() -> Iterator[Model]:
    """A tiny server that speaks the streaming part of the chat completions API."""
    model = Model()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/models"
            body = json.dumps({"object": "list", "data": [{"id": "tiny"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            assert self.headers["Authorization"] == "Bearer key"
            model.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(model.status)
            self.send_header(
                "Content-Type", "text/event-stream" if model.status == 200 else "application/json"
            )
            self.end_headers()
            if model.status != 200:
                return
            deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
            deltas += [{"content": word} for word in model.words]
            self.wfile.write(b": thinking\n\n")
            for number, delta in enumerate(deltas):
                chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.flush()
                if number == 1:
                    model.held.wait(20)
            self.wfile.write(model.ending.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        model.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield model
        finally:
            model.held.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("ending", ["data: [DONE]\n\n", ""])
def test_a_models_answer_is_kept_as_it_streams(stage: Stage, tmp_path: Path, ending: str) -> None:
    with model_server() as model:
        model.ending = ending

        async def scene(at: Scene) -> None:
            await at.ask("Hello?")
            model.held.clear()
            async with at.assistant(OpenAI(model.environ)):
                await at.until(lambda message: text_of(message) == "Well, ")
                model.held.set()
                assert text_of(await at.until(complete)) == "Well, hello there 👋"

        play(stage, tmp_path, scene)
        assert model.asked == [
            {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "Hello?"}]}
        ]


def test_what_a_model_cannot_say_is_told_to_the_reader(stage: Stage, tmp_path: Path) -> None:
    with model_server() as model:
        model.status = 401

        async def scene(at: Scene) -> None:
            await at.ask("Hello?")
            async with at.assistant(OpenAI(model.environ)):
                message = await at.until(lambda message: message["status"] == "error")
            assert message["statusReason"] == "The model's server answered 401."

        play(stage, tmp_path, scene)


def test_a_models_half_answer_is_kept_when_the_assistant_begins_again(stage: Stage, tmp_path: Path) -> None:
    with model_server() as model:
        model.held.clear()

        async def scene(at: Scene) -> None:
            await at.ask("Hello?")
            async with at.assistant(OpenAI(model.environ)):
                await at.until(lambda message: text_of(message) == "Well, ")
            async with at.assistant(OpenAI(model.environ)):
                message = await at.until(lambda message: message["status"] == "interrupted")
            assert text_of(message) == "Well, "
            assert message["statusReason"] == "the assistant was restarted"
            assert len(model.asked) == 1

        play(stage, tmp_path, scene)


def test_the_model_is_asked_only_where_address_and_key_are_given() -> None:
    assert isinstance(voice({}), Simulator)
    assert isinstance(voice({"OPENAI_API_KEY": "key"}), Simulator)
    assert isinstance(voice({"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}), OpenAI)


# ---------------------------------------------------------------------- what is said
def said(question: str, message_id: str = "r", speed: int = FAST) -> list[Said]:
    async def listen() -> list[Said]:
        history: Sequence[Line] = [Line("user", question)]
        return [one async for one in Simulator().speak(message_id, history, speed)]

    return asyncio.run(listen())


def test_the_simulator_says_the_same_again() -> None:
    for question in ("Hello", "weather in Rome", "draw", "a page", "some code", "a long story", ""):
        assert said(question) == said(question)
    assert len({json.dumps([str(one) for one in said("Hello", str(number))]) for number in range(20)}) > 1


def test_the_simulator_keeps_to_its_speed() -> None:
    heard = said("a long story", speed=100)
    characters = sum(len(one.text) for one in heard if isinstance(one, Text))
    seconds = sum(one.seconds for one in heard if isinstance(one, Silence))
    assert 0.9 < characters / seconds / 100 < 1.1
