"""A reply written while it is generated, so that a closed tab, or a dead backend, loses nothing that was generated.

    async with chat.reply("m-2", parent_id="m-1") as reply:
        async for token in model:
            await reply.append(token)

Entering saves the stub (status "streaming"); from then on a task beside the caller sends what is added, one request at a
time, and a heartbeat where nothing is. Leaving sends the rest with the final status:

    the block ended             complete
    it raised                   error, with the exception's class as the reason (`reason=` of `fail` says more)
    it was cancelled            interrupted (also: its reader went away, Ctrl-C)

What is decided, is decided in `blotter_client.writer`, without I/O. Here it is carried out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from blotter_client import calls
from blotter_client.aio.runtime import Beside, Cancelled, Signal, guard
from blotter_client.errors import BlotterError, Unreachable
from blotter_client.steps import Done, Pace, Wait
from blotter_client.types import Json, Saved, Status
from blotter_client.writer import OnConflict, Writer

if TYPE_CHECKING:
    from blotter_client.aio.conversation import AsyncConversation

#: A caller that failed or was cancelled waits at most so long for the last request, s.
LEAVE_S = 5.0
#: A look at the clock at least so often, s; wakes come by signal.
LOOK_S = 60.0
_MOST_REASON = 1000


class AsyncReply:
    """One reply. Its methods may be called by several tasks; one request is in flight at a time.

    ``on_conflict``: "raise" (default): text that differs from what is stored, or a message that was finished meanwhile
    (a reader pressed Stop), ends the reply with AppendMismatch or Terminal. "reopen": a finished one is gone on with.
    "replace": what differs is replaced, too. Both under a higher revision.
    """

    def __init__(
        self,
        chat: AsyncConversation,
        message_id: str,
        stub: dict[str, Any],
        pace: Pace,
        on_conflict: OnConflict,
    ) -> None:
        self.chat = chat
        self.id = message_id
        self._on_conflict = on_conflict
        fields = calls.fields({"id": message_id, "role": "assistant", "status": "streaming", **stub})
        put_path = calls.conversation_path(chat.id, "messages")
        path = calls.conversation_path(chat.id, "messages", message_id)
        self._begin = str(fields.pop("content", ""))
        self._has_content = "content" in stub
        self._stub = fields
        self._put_path = put_path
        self._writer = Writer(
            path, put_path, {**fields, "content": ""} if self._has_content else fields, pace, on_conflict
        )
        self._guard = guard()
        self._changed = Signal()
        self._moved = Signal()
        self._failure: BaseException | None = None
        self._over = False
        self._beside: Beside | None = None

    # ------------------------------------------------------------------ begin and end
    async def __aenter__(self) -> Self:
        await self._start()
        self._beside = Beside(self._run, f"blotter reply {self.id}")
        if self._begin:
            await self.append(self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                await self.complete()
            except Cancelled as cancelled:
                await self._leave("complete", None, cancelled)
                raise
        elif isinstance(error, Cancelled):
            await self._leave("interrupted", "cancelled", error)
        else:
            await self._leave("error", type(error).__name__, error)

    async def complete(self) -> None:
        """Send the rest, then status "complete". Returns when acknowledged; raises what went wrong."""
        await self._finish("complete", None, None)
        self._check()

    async def fail(self, reason: str) -> None:
        """Send the rest, then status "error" with ``reason`` (readers see it)."""
        await self._finish("error", reason[:_MOST_REASON], None)
        self._check()

    async def interrupt(self, reason: str = "stopped") -> None:
        """Send the rest, then status "interrupted" with ``reason``."""
        await self._finish("interrupted", reason[:_MOST_REASON], None)
        self._check()

    # ------------------------------------------------------------------ what is written
    async def append(self, text: str) -> None:
        """Text for the end of the message's content. Returns at once, unless much more waits than the server takes."""
        await self._add(text, None)

    async def append_part(self, index: int, text: str) -> None:
        """Text for the end of part ``index``, which was set before and has a text."""
        await self._add(text, index)

    async def set_part(self, index: int, value: Mapping[str, Any]) -> None:
        """Set part ``index`` (0 … number of parts) to an AI SDK message part."""
        self._check()
        with self._guard:
            self._writer.put_part(index, value)
        self._changed.set()

    async def add_part(self, value: Mapping[str, Any]) -> int:
        """Set the next part; its index."""
        self._check()
        with self._guard:
            index = self._writer.parts
            self._writer.put_part(index, value)
        self._changed.set()
        return index

    async def tool_call(
        self,
        tool_name: str,
        tool_call_id: str,
        *,
        input: Json = None,  # noqa: A002 (the API's name)
        **extra: Json,
    ) -> AsyncToolCall:
        """Show a tool call as the next part: `input-available` where ``input`` is given, else `input-streaming`.

        ``extra``: further members of the part. The call's output is saved by what this returns.
        """
        part = {"type": f"tool-{tool_name}", "toolCallId": tool_call_id, **extra}
        state = (
            {"state": "input-streaming"} if input is None else {"state": "input-available", "input": input}
        )
        return AsyncToolCall(self, await self.add_part({**part, **state}), part, tool_name, input)

    async def flush(self) -> None:
        """Return when all that was written so far is acknowledged; raises what went wrong."""
        while True:
            seen = self._moved.turn
            self._check()
            with self._guard:
                if self._writer.idle:
                    return
                self._writer.hurry()
            self._changed.set()
            await self._moved.wait(seen, LOOK_S)

    # ------------------------------------------------------------------ inside
    async def _start(self) -> None:
        stub = {**self._stub, "content": ""} if self._has_content else self._stub
        saved = await self._post(stub)
        if saved["outcome"] == "noop" and self._on_conflict != "raise":
            # It is there already, and an older stub says nothing to it: where it had ended early, open it again.
            there = await self.chat.get_message(self.id)
            if there["status"] in ("interrupted", "error"):
                saved = await self._post({**self._stub, "revision": (there["revision"] or 0) + 1})
        with self._guard:
            self._writer.started(saved, time.monotonic())

    async def _post(self, body: Mapping[str, Any]) -> Saved:
        return cast(Saved, await self.chat.call(calls.request("POST", self._put_path, body)))

    async def _add(self, text: str, part: int | None) -> None:
        self._check()
        with self._guard:
            self._writer.add(text, time.monotonic(), part)
        self._changed.set()
        while True:
            seen = self._moved.turn
            self._check()
            with self._guard:
                if not self._writer.full:
                    return
            await self._moved.wait(seen, LOOK_S)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._beside is None:
            raise ValueError("a reply is written inside `with`")

    async def _run(self) -> None:
        try:
            while await self._step():
                self._moved.set()
        except BaseException as error:  # noqa: BLE001 (kept, and raised where the caller looks)
            self._failure = error
        finally:
            self._over = True
            self._moved.set()

    async def _step(self) -> bool:
        seen = self._changed.turn
        with self._guard:
            step = self._writer.next(time.monotonic())
        if isinstance(step, Done):
            return False
        if isinstance(step, Wait):
            await self._changed.wait(seen, min(step.seconds, LOOK_S))
            return True
        try:
            saved = await self.chat.call(step.request)
        except BlotterError as error:
            with self._guard:
                if not self._writer.refused(step, error):
                    raise
        else:
            with self._guard:
                self._writer.acknowledged(step, saved, time.monotonic())
        return True

    async def _finish(self, status: Status, reason: str | None, within_s: float | None) -> None:
        if self._beside is None:
            raise ValueError("a reply is written inside `with`")
        with self._guard:
            self._writer.finish(status, reason, time.monotonic())
        self._changed.set()
        until_s = None if within_s is None else time.monotonic() + within_s
        while not self._over:
            left_s = LOOK_S if until_s is None else until_s - time.monotonic()
            if left_s <= 0:
                await self._beside.abandon()
                self._failure = self._failure or Unreachable("the last save was not acknowledged in time")
                return
            await self._beside.join(left_s)

    async def _leave(self, status: Status, reason: str | None, error: BaseException) -> None:
        """End beside an exception that is on its way: what goes wrong now is a note to it."""
        if self._failure is None:
            await self._finish(status, reason, LEAVE_S)
        if self._failure is not None and self._failure is not error:
            error.add_note(f"the reply's end was not saved: {self._failure}")


class AsyncToolCall:
    """A tool call under way: its part in the message, and its result as an item of its own, linked into the message."""

    def __init__(
        self, reply: AsyncReply, index: int, part: Mapping[str, Any], tool_name: str, given: Json
    ) -> None:
        self._reply = reply
        self._index = index
        self._part = dict(part)
        self._name = tool_name
        self._input = given
        #: Of the tool result.
        self.id = f"{reply.id}.{part['toolCallId']}"

    async def input(self, value: Json) -> None:
        """The input is complete."""
        self._input = value
        await self._reply.set_part(self._index, {**self._part, "state": "input-available", "input": value})

    async def output(self, value: Json) -> None:
        """The tool answered."""
        await self._end("output-available", output=value)

    async def failed(self, error_text: str) -> None:
        """The tool failed; readers see the text."""
        await self._end("output-error", error_text=error_text)

    async def _end(self, state: str, **outcome: Json) -> None:
        result = {"state": state, "input": self._input, **outcome}
        body = {
            "id": self.id,
            "message_id": self._reply.id,
            "tool_call_id": self._part["toolCallId"],
            "tool_name": self._name,
        }
        chat = self._reply.chat
        path = calls.conversation_path(chat.id, "tool-results")
        await chat.call(calls.request("POST", path, calls.fields({**body, **result})))
        await self._reply.set_part(self._index, {**self._part, **calls.fields(result)})
