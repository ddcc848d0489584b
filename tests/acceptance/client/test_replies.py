"""Replies of the Python client, in both worlds, against the real web program on real servers; faults on the way."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis
from blotter_client import (
    AsyncBlotter,
    Blotter,
    Conversation,
    NotReached,
    Pace,
    Reply,
    RetryPolicy,
    Unreachable,
)
from blotter_client.errors import (
    AppendMismatch,
    Gone,
    Terminal,
)

from tests.acceptance.client.stage import QUICK, AsyncUnreliable, Recorder, Stage, Unreliable, words
from tests.acceptance.webserver import token, web_process
from tests.servers import eventually
from web.cli.folder import free_port


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


@pytest.mark.parametrize("seed", range(2))
def test_what_arrives_once_more_after_its_end_changes_nothing(
    stage: Stage, chat: Conversation, seed: int
) -> None:
    transport = Recorder()
    with stage.client(transport=transport) as blotter:
        with blotter.reply(chat.id, "m", pace=Pace(batch=10)) as reply:
            for done in range(3):
                reply.set_part(0, {"type": "data-progress", "id": "p", "data": done})
                reply.flush()
            reply.add_part({"type": "text", "text": "so "})
            for word in words(seed, 20):
                reply.append_part(1, word)
                reply.append(word)
            call = reply.tool_call("search", "call_1")
            reply.flush()
            call.input({"q": "é"})
            reply.flush()
            call.output({"hits": [1, 2.5, None]})
        before = chat.get_message("m")
        late = transport.sent[:]
        random.Random(seed).shuffle(late)
        for request in late:
            transport.handle_request(request).read()
    after = chat.get_message("m")
    shown = [(message["content"], message["parts"], message["status"]) for message in (before, after)]
    assert shown[0] == shown[1]


def test_what_arrives_once_more_while_it_is_open_changes_nothing(stage: Stage, chat: Conversation) -> None:
    transport = Recorder()
    with stage.client(transport=transport) as blotter:
        with blotter.reply(chat.id, "m") as reply:
            reply.add_part({"type": "data-progress", "id": "p", "data": 0})
            reply.add_part({"type": "text", "text": "so"})
            for done in range(1, 4):
                reply.set_part(0, {"type": "data-progress", "id": "p", "data": done})
                reply.append_part(1, f" {done}")
                reply.flush()
                send_again(transport)
                shown = chat.get_message("m")
                progress, text = shown["parts"] or []
                assert (progress["data"], text["text"]) == (done, "so 1 2 3"[: 2 + 2 * done])
                assert shown["status"] == "streaming"
            reply.set_part(1, {"type": "text", "text": "No"})
            reply.flush()
            reply.append_part(1, ": yes")
        send_again(transport)
    assert [part.get("text") for part in chat.get_message("m")["parts"] or []] == [None, "No: yes"]


def send_again(transport: Recorder) -> None:
    for request in transport.sent[:]:
        transport.handle_request(request).read()


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
