"""`blotter import` of whole agent conversations, on the real web program and real servers: every message, result,
argument string and link identical, hot and cold, from the API and in Postgres; twice, and twice at once; and broken off.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from blotter_client import Blotter

from tests.acceptance import chats
from tests.acceptance.importing.stage import Stage, finished
from tests.acceptance.webserver import token
from tests.servers import eventually
from web.cli.importing import verify
from web.cli.importing.files import Chat
from web.cli.importing.replay import Stopped, Throttle, send

OWNER = "ann"

pytestmark = pytest.mark.timeout(120 + 10 * chats.COUNT)


def versions(view: dict[str, Any]) -> dict[tuple[str, str], tuple[int, str]]:
    """(kind, id) -> (version, updatedAt) of everything in a view."""
    items = {("conversation", ""): (view["conversation"]["version"], view["conversation"]["updatedAt"])}
    for kind in ("messages", "toolResults", "artifacts"):
        items |= {(kind, item["id"]): (item["version"], item["updatedAt"]) for item in view[kind]}
    return items


# ---------------------------------------------------------------------- the whole way
def test_everything_is_identical_hot_and_cold_from_the_api_and_in_postgres(
    stage: Stage, chat_file: Path, imported: list[Chat]
) -> None:
    began_s = time.monotonic()
    report = stage.run(str(chat_file), "--owner", OWNER, "--limit", str(chats.COUNT))
    took_s = time.monotonic() - began_s
    count = len(imported)
    assert (report["conversations"], report["verified"], report["errors"], report["mismatches"]) == (
        count,
        count,
        [],
        [],
    )
    assert report["messages"] == sum(len(chat.source) for chat in imported)
    assert report["toolResults"] == sum(
        message["role"] == "tool" for chat in imported for message in chat.source
    )
    assert took_s < 60, f"{count} conversations took {took_s:.0f} s"

    assert [d for chat in imported for d in verify.differences(chat, stage.view(OWNER, chat.id))] == [], "hot"
    hot = {chat.id: versions(stage.view(OWNER, chat.id)) for chat in imported}
    stage.cool(OWNER, [chat.id for chat in imported])
    for chat in imported:
        cold = stage.view(OWNER, chat.id)
        assert verify.differences(chat, cold) == [], "cold"
        assert versions(cold) == hot[chat.id], "going cold changes nothing"
        assert verify.differences(chat, stage.stored_view(OWNER, chat.id)) == [], "in Postgres"

    # Once more, now onto cold conversations: nothing doubled, nothing changed.
    again = stage.run(str(chat_file), "--owner", OWNER, "--limit", str(count))
    assert (again["conversations"], again["verified"]) == (count, count)
    for chat in imported:
        assert versions(stage.view(OWNER, chat.id)) == hot[chat.id], chat.place


def test_twice_at_once_under_eviction_is_like_once_and_a_reader_sees_nothing_older_than_acknowledged(
    stage: Stage, chat_file: Path, imported: list[Chat]
) -> None:
    owner, count = "twice", len(imported)
    arguments = (str(chat_file), "--owner", owner, "--limit", str(count))
    with stage.churning(), Witness(stage, owner, imported[0]) as witness:
        other = stage.command(*arguments)
        # The second one is this process, so that the witness hears what is acknowledged.
        with Blotter(stage.url, token(owner), transport=witness.hearing()) as blotter:
            for chat in imported:
                send(blotter, chat, Throttle(None, threading.Event()), lambda message: None)
        report = finished(other)
    assert (report["conversations"], report["verified"]) == (count, count)
    assert witness.reads > 3
    assert witness.heard > len(imported[0].source)
    stage.cool(owner, [chat.id for chat in imported])
    for chat in imported:
        assert verify.differences(chat, stage.view(owner, chat.id)) == []
        assert verify.differences(chat, stage.stored_view(owner, chat.id)) == []
    before = {chat.id: versions(stage.view(owner, chat.id)) for chat in imported}
    stage.run(*arguments)
    assert {chat.id: versions(stage.view(owner, chat.id)) for chat in imported} == before


class Witness:
    """Reads one conversation all the time, and holds what it sees against what was acknowledged before it asked."""

    def __init__(self, stage: Stage, owner: str, chat: Chat) -> None:
        self._chat = chat
        self._blotter = Blotter(stage.url, token(owner))
        self._acknowledged: dict[tuple[str, str], int] = defaultdict(int)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._fault: BaseException | None = None
        self.reads = self.heard = 0

    def hearing(self) -> httpx.BaseTransport:
        """The real transport; what it brings back is noted."""
        witness = self

        class Hearing(httpx.HTTPTransport):
            def handle_request(self, request: httpx.Request) -> httpx.Response:
                response = super().handle_request(request)
                response.read()
                witness.note(request, response)
                return response

        return Hearing()

    def note(self, request: httpx.Request, response: httpx.Response) -> None:
        parts = request.url.path.split("/")
        if request.method == "GET" or not response.is_success or parts[3] != self._chat.id or len(parts) < 5:
            return
        kind = {"messages": "messages", "tool-results": "toolResults"}[parts[4]]
        saved = response.json()
        with self._lock:
            name = (kind, saved["id"])
            self._acknowledged[name] = max(self._acknowledged[name], saved["version"])
            self.heard += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._blotter.close()
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        order = [message.id for message in self._chat.planned]
        try:
            while not self._stop.is_set():
                with self._lock:
                    acknowledged = dict(self._acknowledged)
                if acknowledged:
                    view = verify.read(self._blotter, self._chat.id)
                    self._check(view, acknowledged, order)
                    self.reads += 1
        except BaseException as fault:  # noqa: BLE001 (raised where the test looks)
            self._fault = fault

    @staticmethod
    def _check(view: dict[str, Any], acknowledged: dict[tuple[str, str], int], order: list[str]) -> None:
        shown = [message["id"] for message in view["messages"]]
        assert shown == order[: len(shown)], "a message is missing or misplaced"
        there = versions(view)
        for name, version in acknowledged.items():
            assert name in there, f"{name} was acknowledged and is not there"
            assert there[name][0] >= version, f"{name} fell back"
        assert view["version"] >= max(acknowledged.values())


# ---------------------------------------------------------------------- broken off
def test_an_import_that_was_broken_off_is_completed_by_the_next(stage: Stage, imported: list[Chat]) -> None:
    owner = "broken"
    chat = max(imported, key=lambda chat: len(chat.source))
    with Blotter(stage.url, token(owner)) as blotter:
        for messages in (1, 4, len(chat.source) // 2):
            stop, sent = threading.Event(), 0

            class Breaking(Throttle):
                """Breaks off in the middle of the message after so many."""

                def spend(self, characters: int) -> None:
                    if characters and sent >= messages:  # noqa: B023 (used within the round)
                        stop.set()  # noqa: B023
                    super().spend(characters)

            def count(message: object) -> None:
                nonlocal sent
                sent += 1

            with pytest.raises(Stopped):
                send(blotter, chat, Breaking(None, stop), count)
        broken = verify.differences(chat, verify.read(blotter, chat.id))
        assert broken, "it was broken off"
        send(blotter, chat, Throttle(None, threading.Event()), lambda message: None)
        assert verify.differences(chat, verify.read(blotter, chat.id)) == []


def test_ctrl_c_leaves_interrupted_replies_and_says_so_with_its_exit_code(
    stage: Stage, chat_file: Path, imported: list[Chat]
) -> None:
    owner = "ctrl-c"
    process = stage.command(str(chat_file), "--owner", owner, "--limit", "1", "--rate", "200", "--no-verify")
    with process, Blotter(stage.url, token(owner)) as blotter:

        def streaming() -> bool:
            for one in blotter.list_conversations()["conversations"]:
                messages = blotter.conversation(one["id"]).read()["messages"]
                return bool(messages) and messages[-1]["status"] == "streaming"
            return False

        try:
            eventually(streaming, within_s=60)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        view = verify.read(blotter, imported[0].id)
    assert process.returncode == 1
    assert view["messages"][-1]["status"] == "interrupted"
    assert view["inFlight"] is False


def test_a_lost_character_is_found_and_shown(stage: Stage, imported: list[Chat]) -> None:
    """The comparison itself: whatever is changed behind its back, it finds."""
    chat = next(chat for chat in imported if any(message.results for message in chat.planned))
    owner = "changed"
    with Blotter(stage.url, token(owner)) as blotter:
        send(blotter, chat, Throttle(None, threading.Event()), lambda message: None)
        view = verify.read(blotter, chat.id)
    assert verify.differences(chat, view) == []
    caller = next(index for index, message in enumerate(view["messages"]) if message["parts"])
    changes = {
        "content": lambda v: v["messages"][0].update(content=v["messages"][0]["content"][:-1]),
        "order": lambda v: v["messages"].insert(0, v["messages"].pop()),
        "missing": lambda v: v["messages"].pop(),
        "surplus": lambda v: v["messages"].append({**v["messages"][0], "id": "more"}),
        "argument": lambda v: v["messages"][caller]["parts"][-1].update(input={"other": 1}),
        "key order": lambda v: v["messages"][caller]["parts"].append(
            dict(reversed(v["messages"][caller]["parts"].pop().items()))
        ),
        "link": lambda v: v["messages"][caller]["toolResultIds"].pop(),
        "status": lambda v: v["messages"][0].update(status="interrupted"),
        "result": lambda v: v["toolResults"][0].update(output="other"),
        "result gone": lambda v: v["toolResults"].pop(),
        "result elsewhere": lambda v: v["toolResults"][0].update(messageId="m00001"),
        "artifact": lambda v: v["artifacts"].append({"id": "a"}),
        "title": lambda v: v["conversation"].update(title="other"),
    }
    for name, change in changes.items():
        changed = json.loads(json.dumps(view))
        change(changed)
        found = verify.differences(chat, changed)
        assert found, name
        assert all(str(one).startswith(chat.id) for one in found)
