"""One reply, from the question to "all of it is in Postgres".

What is said is performed with the Python client: text as appends to the message's text parts, a tool call as a part
that grows and a result of its own, an artifact as an item that grows, with a part that marks its place.

What happens when …
- somebody presses Stop: the next save is refused as Terminal; the turn ends, the text stays
- the conversation is deleted: Gone or NotFound; the turn ends
- web is away: the client tries for ten minutes; after that the turn fails, and `process` begins it anew
- the assistant was killed: a new turn says all of it again without pausing where something is already; saves that say
  what is there change nothing
- the buffer was lost: the client states the open message once more; tool results and artifacts, and a message that was
  finished but not stored, are said again from memory when `_stored` misses them
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from blotter_client import AsyncBlotter
from blotter_client.aio.conversation import AsyncConversation
from blotter_client.aio.reply import AsyncReply
from blotter_client.errors import AppendGap, Gone, NotFound, Terminal
from blotter_client.steps import Pace
from blotter_client.text import units

from web.demo.assistant import voice as said
from web.demo.assistant.voice import Failed, Said, Voice
from web.demo.spool import Job

#: The page asks for a reply while its question is on its way; from an offline page it comes late, s.
QUESTION_WITHIN_S: Final = 60.0
#: How often something is looked for that is about to come, s: first, and at most.
LOOK_S: Final = 0.1
LOOK_MAX_S: Final = 5.0
#: Small steps: on the page, text shall flow.
PACE: Final = Pace(batch=60, linger_s=0.1)
#: Units of an artifact that make a step.
ARTIFACT_STEP: Final = 200
#: Silence below this is saved up: the clock is not that exact, s.
LEAST_SILENCE_S: Final = 0.01
#: Why a message was ended that only looked abandoned: its writer may go on with it.
STALE: Final = "stale"


class Turn:
    """Writes one message. ``run`` returns when nothing is left to do; BlotterError: try again later."""

    def __init__(self, client: AsyncBlotter, job: Job, voice: Voice, speed: int) -> None:
        self._chat = client.conversation(job.conversation_id, owner=job.owner)
        self._job = job
        self._voice = voice
        self._speed = job.speed or speed
        self._said: list[Said] = []
        self._reply: AsyncReply | None = None
        self._tools: set[str] = set()
        self._artifacts: set[str] = set()

    async def run(self) -> None:
        """All of it."""
        try:
            view = await self._question()
            if view is None:
                return
            message = _by_id(view["messages"], self._job.message_id)
            if not _ended(message):
                if message["status"] != "pending" and not self._voice.repeats:
                    await self._give_up(message)
                    return
                await self._write(view, message)
            await self._stored(view["bufferEpoch"], message["parentId"])
        except (NotFound, Gone):
            return  # deleted meanwhile

    async def flush(self) -> None:
        """Return when all that was said so far is acknowledged."""
        if self._reply is not None:
            await self._reply.flush()

    # ------------------------------------------------------------------ before
    async def _question(self) -> Mapping[str, Any] | None:
        """The conversation, once the message to write is in it; None where it does not come."""
        for wait_s in _looks(QUESTION_WITHIN_S):
            try:
                view: Mapping[str, Any] = await self._chat.read(branches=True)
            except NotFound:
                view = {"messages": []}
            if _by_id(view["messages"], self._job.message_id):
                return view
            await asyncio.sleep(wait_s)
        return None

    async def _give_up(self, message: Mapping[str, Any]) -> None:
        """A server cannot be asked for the rest of what it once began."""
        if _text(message):
            await self._chat.save_or_update_message(
                self._job.message_id, status="interrupted", status_reason="the assistant was restarted"
            )
        else:
            await self._chat.save_or_update_message(
                self._job.message_id, status="error", status_reason="The assistant was restarted: ask again."
            )

    # ------------------------------------------------------------------ the reply
    async def _write(self, view: Mapping[str, Any], message: Mapping[str, Any]) -> None:
        history = said.lines(_path(view["messages"], message["parentId"]))
        there = _text(message) + "".join(
            artifact["content"] or ""
            for artifact in view["artifacts"]
            if artifact["messageId"] == message["id"]
        )
        stream = self._voice.speak(self._job.message_id, history, self._speed)
        await self._perform(self._remembered(stream), message["parentId"], skip=units(there))

    async def _remembered(self, stream: AsyncIterator[Said]) -> AsyncIterator[Said]:
        async for one in stream:
            if not isinstance(one, said.Silence):
                self._said.append(one)
            yield one

    async def _perform(self, stream: AsyncIterator[Said], parent_id: str | None, *, skip: int) -> None:
        """Say it. ``skip``: units that are there already, which need no pauses."""
        try:
            async with self._chat.reply(self._job.message_id, parent_id=parent_id, pace=PACE) as reply:
                self._reply = reply
                try:
                    await _Performance(self, reply, self._chat, skip).perform(stream)
                except Failed as failure:
                    await reply.fail(str(failure))
        except Terminal:
            pass  # Stop
        finally:
            self._reply = None

    # ------------------------------------------------------------------ after
    async def _stored(self, epoch: str, parent_id: str | None) -> None:
        """Return when all of it is in Postgres; what a lost buffer took along is said again."""
        wait_s = LOOK_S
        while True:
            try:
                items = await self._items()
            except NotFound:
                if not self._said:
                    raise
                items = []
            if items and all(item["stored"] for item in items):
                return
            now = items[0]["bufferEpoch"] if items else ""
            if now != epoch and self._said:
                epoch = now or epoch
                await self._perform(_again(self._said), parent_id, skip=1 << 53)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LOOK_MAX_S)

    async def _items(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = [await self._chat.get_message(self._job.message_id)]
        found += [await self._chat.get_tool_result(one) for one in sorted(self._tools)]
        found += [await self._chat.get_artifact(one) for one in sorted(self._artifacts)]
        return found

    def note_tool(self, result_id: str) -> None:
        """A tool result that belongs to this reply."""
        self._tools.add(result_id)

    def note_artifact(self, artifact_id: str) -> None:
        """An artifact that belongs to this reply."""
        self._artifacts.add(artifact_id)


class _Performance:
    """What is being said, into a reply that is open."""

    def __init__(self, turn: Turn, reply: AsyncReply, chat: AsyncConversation, skip: int) -> None:
        self._turn = turn
        self._reply = reply
        self._chat = chat
        self._skip = skip
        self._silence_s = 0.0
        self._text: int | None = None
        self._calls: dict[str, tuple[int, said.ToolInput]] = {}
        self._artifact: _Growing | None = None

    async def perform(self, stream: AsyncIterator[Said]) -> None:
        async for one in stream:
            match one:
                case said.Silence(seconds):
                    await self._pause(seconds)
                case said.Text(text):
                    await self._say(text)
                case said.ToolInput():
                    await self._input(one)
                case said.ToolOutput(call_id, output):
                    await self._output(call_id, output)
                case said.Begin():
                    await self._begin(one)
                case said.Content(text):
                    assert self._artifact is not None
                    self._skip -= units(text)
                    await self._artifact.add(text)
                case said.End():
                    assert self._artifact is not None
                    await self._artifact.end()
                    self._artifact = None

    async def _pause(self, seconds: float) -> None:
        if self._skip > 0:
            return
        self._silence_s += seconds
        if self._silence_s >= LEAST_SILENCE_S:
            await asyncio.sleep(self._silence_s)
            self._silence_s = 0.0

    async def _say(self, text: str) -> None:
        self._skip -= units(text)
        if self._text is None:
            self._text = await self._reply.add_part({"type": "text", "text": text})
        else:
            await self._reply.append_part(self._text, text)

    async def _input(self, call: said.ToolInput) -> None:
        self._text = None
        state = "input-available" if call.complete else "input-streaming"
        part = {"type": f"tool-{call.name}", "toolCallId": call.call_id, "state": state, "input": call.input}
        known = self._calls.get(call.call_id)
        if known is None:
            index = await self._reply.add_part(part)
        else:
            index = known[0]
            await self._reply.set_part(index, part)
        self._calls[call.call_id] = (index, call)

    async def _output(self, call_id: str, output: Any) -> None:
        index, call = self._calls[call_id]
        result_id = f"{self._reply.id}.{call_id}"
        self._turn.note_tool(result_id)
        await self._chat.update_tool_result(
            result_id, message_id=self._reply.id, tool_call_id=call_id, tool_name=call.name,
            state="output-available", input=call.input, output=output,
        )  # fmt: skip
        part = {"type": f"tool-{call.name}", "toolCallId": call_id, "state": "output-available"}
        await self._reply.set_part(index, {**part, "input": call.input, "output": output})

    async def _begin(self, begin: said.Begin) -> None:
        self._text = None
        artifact_id = f"{self._reply.id}.{begin.name}"
        self._turn.note_artifact(artifact_id)
        fields = {
            "message_id": self._reply.id, "kind": begin.kind, "title": begin.title, "language": begin.language,
            "media_type": begin.media_type,
        }  # fmt: skip
        self._artifact = _Growing(self._chat, artifact_id, fields)
        await self._artifact.begin()
        await self._reply.add_part({"type": "data-artifact", "data": {"artifactId": artifact_id}})


class _Growing:
    """An artifact under way."""

    def __init__(self, chat: AsyncConversation, artifact_id: str, fields: dict[str, Any]) -> None:
        self._chat = chat
        self._id = artifact_id
        self._fields = fields
        self._sent = ""
        self._waiting = ""

    async def begin(self) -> None:
        await self._chat.update_artifact(self._id, status="streaming", **self._fields)

    async def add(self, text: str) -> None:
        self._waiting += text
        if units(self._waiting) >= ARTIFACT_STEP:
            await self._send("streaming")

    async def end(self) -> None:
        await self._send("complete")

    async def _send(self, status: Any) -> None:
        offset, text = units(self._sent), self._waiting
        self._sent, self._waiting = self._sent + text, ""
        try:
            await self._chat.append_to_artifact(self._id, offset, text, status=status)
        except (AppendGap, NotFound):  # the buffer was lost
            await self._chat.update_artifact(self._id, content=self._sent, status=status, **self._fields)


def _by_id(messages: Any, message_id: str | None) -> Any:
    return next((message for message in messages if message["id"] == message_id), None)


def _path(messages: Any, leaf_id: str | None) -> list[Mapping[str, Any]]:
    """From the first message to ``leaf_id``, along the parents."""
    path: list[Mapping[str, Any]] = []
    at = _by_id(messages, leaf_id)
    while at is not None and at not in path:
        path.insert(0, at)
        at = _by_id(messages, at["parentId"])
    return path


def _text(message: Mapping[str, Any]) -> str:
    parts = message["parts"] or []
    texts = [part.get("text") for part in parts if part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _ended(message: Mapping[str, Any]) -> bool:
    if message["status"] == "interrupted":
        return bool(message["statusReason"] != STALE)
    return message["status"] not in ("pending", "streaming")


async def _again(memory: list[Said]) -> AsyncIterator[Said]:
    for one in memory:
        yield one


def _looks(within_s: float) -> list[float]:
    """Waits between looks, ever longer, that add up to ``within_s``."""
    waits = [LOOK_S]
    while sum(waits) < within_s:
        waits.append(min(2 * waits[-1], LOOK_MAX_S))
    return waits
