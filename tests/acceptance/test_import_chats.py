"""`blotter import` of whole agent conversations, on the real web program and real servers: every message, result,
argument string and link identical, hot and cold, from the API and in Postgres; twice, and twice at once; and broken off.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
import pytest
from blotter_client import Blotter
from psycopg.rows import dict_row

from models.identity import conversation_uid
from models.pipeline.crew import Crew
from models.settings import load
from tests.acceptance import chats
from tests.acceptance.webserver import environment, token, web_process
from tests.servers import RunningPostgres, eventually, start_valkey
from web.cli.folder import free_port
from web.cli.importing import files, verify
from web.cli.importing.files import Chat
from web.cli.importing.replay import Stopped, Throttle, send

BLOTTER = str(Path(sys.executable).with_name("blotter"))
OWNER = "ann"

pytestmark = pytest.mark.timeout(120 + 10 * chats.COUNT)


@pytest.fixture(scope="module")
def chat_file(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Real conversations, or a stand-in; which of them is said on the terminal."""
    path = chats.real_chats()
    said = f"{chats.COUNT} conversations of {chats.REAL}"
    if path is None:
        path = chats.write_stand_in(tmp_path_factory.mktemp("chats") / "made-up.json.gz")
        said = f"a stand-in: {chats.COUNT} made-up conversations (BLOTTER_TEST_DATA names no folder with {chats.REAL})"
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\n{Path(__file__).name} imports {said}")
    return path


class Stage:
    """A running web; its Postgres; and a crew that works when a test says so (no worker runs)."""

    def __init__(self, url: str, environ: dict[str, str], crew: Crew) -> None:
        self.url = url
        self.environ = environ
        self.crew = crew

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """`blotter import` as a process of its own."""
        argv = [BLOTTER, "import", "--url", self.url, "--json", *arguments]
        return subprocess.Popen(
            argv, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> dict[str, Any]:
        """`blotter import`, which must succeed; what it reports."""
        return finished(self.command(*arguments))

    def view(self, owner: str, conversation_id: str) -> dict[str, Any]:
        with Blotter(self.url, token(owner)) as blotter:
            return verify.read(blotter, conversation_id)

    def stored_view(self, owner: str, conversation_id: str) -> dict[str, Any]:
        """What Postgres holds, by SQL alone, shaped as the API shows it."""
        uid = conversation_uid(owner, conversation_id)
        with psycopg.connect(self.environ["DATABASE_URL"], row_factory=dict_row) as connection:

            def rows(table: str, columns: str) -> list[dict[str, Any]]:
                order = "" if table == "conversations" else " AND deleted_at IS NULL ORDER BY position, id"
                found = connection.execute(
                    f"SELECT {columns} FROM {table} WHERE conversation_uid = %s{order}", (uid,)
                ).fetchall()
                return [{camel(name): value for name, value in row.items()} for row in found]

            return {
                "conversation": rows("conversations", "id, title, metadata")[0],
                "messages": rows("messages", "id, role, status, content, parts, metadata, tool_result_ids"),
                "toolResults": rows(
                    "tool_results",
                    "id, message_id, coalesce(tool_call_id, id) AS tool_call_id, tool_name, state, status, input, output, error_text",
                ),
                "artifacts": rows("artifacts", "id"),
            }

    def cool(self, owner: str, conversation_ids: list[str]) -> None:
        """Flush everything, and evict it."""
        assert self.crew.drain(within_s=60).done

        def cold() -> bool:
            self.crew.settler.settle(self.crew.buffer.now_ms())
            self.crew.evictor.evict(self.crew.buffer.now_ms())
            places = [self.crew.buffer.place(owner, name) for name in conversation_ids]
            return all(self.crew.buffer.read(place, "names", names=()).head.s == "cold" for place in places)

        eventually(cold, within_s=60)

    @contextmanager
    def churning(self) -> Iterator[None]:
        """Flush and evict all the time: what is not in flight goes cold between two saves, and is adopted again."""
        stop = threading.Event()
        faults: list[BaseException] = []

        def churn() -> None:
            try:
                while not stop.wait(0.02):
                    for keys in self.crew.buffer.partitions:
                        self.crew.flusher.flush(keys.number)
                    self.crew.evictor.evict(self.crew.buffer.now_ms())
            except BaseException as error:  # noqa: BLE001 (raised where the test looks)
                faults.append(error)

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert faults == []


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, f"{out[-3000:]}\n{err[-3000:]}"
    report: dict[str, Any] = json.loads(out)
    return report


@pytest.fixture(scope="module")
def stage(postgres_server: RunningPostgres, template_database: str) -> Iterator[Stage]:
    with start_valkey() as buffer, postgres_server.new_database(template_database) as database_url:
        quick = {
            "BLOTTER_STREAM_FLUSH_SECONDS": "0.05",
            "BLOTTER_AUTOSAVE_SECONDS": "0.2",
            "BLOTTER_IDLE_SECONDS": "0.01",
            "BLOTTER_MIN_IDLE_SECONDS": "0",
            # A call that nobody answered keeps its conversation in flight, and so hot, for this long.
            "BLOTTER_STALE_TOOL_SECONDS": "5",
        }
        environ = environment(database_url, buffer.url, **quick)
        crew = Crew.connect(load(environ), role="worker", ring=lambda partition: None)
        crew.buffer.initialise()
        try:
            with web_process(environ) as url:
                yield Stage(url, environ, crew)
        finally:
            crew.close()


@pytest.fixture(scope="module")
def imported(chat_file: Path) -> list[Chat]:
    return list(files.read([chat_file]))[: chats.COUNT]


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
    process = stage.command(str(chat_file), "--owner", owner, "--limit", "1", "--rate", "4000", "--no-verify")
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


# ---------------------------------------------------------------------- other formats, other files
UI = [
    {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Where is 🇩🇪?"}], "metadata": {"z": 1, "a": [1.0, None]}},
    {
        "id": "a1",
        "role": "assistant",
        "parts": [
            {"type": "step-start"},
            {"type": "reasoning", "text": "x" * 450, "state": "done"},
            {"type": "tool-map", "toolCallId": "t/1", "state": "output-available", "input": {"q": "Ü"}, "output": {"at": [51, 9]}},
            {"type": "dynamic-tool", "toolName": "zoom", "toolCallId": "t2", "state": "output-error", "input": {}, "errorText": "no"},
            {"type": "tool-ask", "toolCallId": "t3", "state": "approval-requested", "input": {}, "approval": {"id": "x"}},
            {"type": "text", "text": "In the middle 👩‍👩‍👧‍👦 " * 20},
            {"type": "file", "mediaType": "image/png", "url": "data:,"},
            {"type": "data-note", "id": "n", "data": {"b": 1, "a": 2}},
            {"type": "text", "text": ""},
        ],
        "createdAt": "2026-01-01",
    },
]  # fmt: skip


@pytest.mark.parametrize(
    "shape", ["one list", "lists", "lines", "lines that hold line separators", "messages of lines", "objects"]
)
def test_ui_messages_and_every_shape_of_file_arrive(stage: Stage, tmp_path: Path, shape: str) -> None:
    openai = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "y" * 250, "refusal": None}]
    text, count = {
        "one list": (json.dumps(UI), 1),
        "lists": (json.dumps([UI, openai]), 2),
        "lines": (
            "\n".join(map(json.dumps, (UI, openai, {"messages": openai, "title": "T", "lang": "de"}))) + "\n",
            3,
        ),
        "lines that hold line separators": (
            f'{{"messages": [{{"role": "user", "content": "a\u2028b\x85c"}}]}}\n{json.dumps(UI)}\n',
            2,
        ),
        "messages of lines": ("\n".join(map(json.dumps, openai)), 1),
        "objects": (json.dumps({"messages": UI, "id": f"own-{time.time_ns()}", "title": "x" * 2000}), 1),
    }[shape]
    path = tmp_path / "chats.any"
    path.write_text(text)
    report = stage.run(str(path), "--owner", f"shapes-{time.time_ns()}")
    assert (report["conversations"], report["verified"]) == (count, count)


def test_what_cannot_be_kept_is_told_and_the_rest_arrives(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    good = [{"role": "user", "content": "hi"}]
    path.write_text(
        json.dumps(
            [
                good,
                [{"role": "user", "content": "NUL \0"}],
                [{"role": "assistant", "content": "half \ud83d."}],
            ]
        )
    )
    process = stage.command(str(path), "--owner", "odd")
    out, err = process.communicate(timeout=60)
    report = json.loads(out)
    assert (process.returncode, report["conversations"], report["verified"]) == (1, 2, 1), err
    ((error,), (mismatch, *_)) = report["errors"], report["mismatches"]
    assert "odd.json[1]" in error["error"]
    assert "content" in error["error"]
    assert mismatch["where"] == "messages[0].content"


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


def test_mistakes_are_one_sentence(stage: Stage, tmp_path: Path) -> None:
    line = json.dumps({"messages": UI})
    cases = {
        "": "bad.json is empty: it holds no conversations",
        "[]": "bad.json holds no conversations",
        "[1, 2]": "bad.json[0]: neither a list of messages with roles nor an object with",
        '{"text": "SECRET"}': "bad.json: neither a list of messages with roles nor an object with `messages` or `traj`, but an object with 'text'",
        f"{line}\n\n[1]": "bad.json:3[0]: neither a list of messages",
        "SECRET notes": "bad.json, line 1: neither JSON nor JSON a line: it begins with neither [ nor {",
        "{SECRET": "bad.json, line 1: neither JSON nor JSON a line",
        f"[{line},\n{line[:-9]}": "bad.json, line 2: the file is cut off",
        f"{line}\n\n{line[:-9]}": "bad.json, line 3: the last line is cut off",
        f"{line}\n{{SECRET\n{line}\n": "bad.json, line 2: no JSON",
    }
    for text, expected in cases.items():
        path = tmp_path / "bad.json"
        path.write_text(text)
        _, err = (process := stage.command(str(path), "--owner", "x")).communicate(timeout=60)
        assert process.returncode == 2
        assert expected in err
        assert err.count("\n") == 1
        assert "SECRET" not in err
    packed = gzip.compress(f"[{line}]".encode())
    for raw, expected in (
        (packed[:-20], "is cut off"),
        (packed[:-6] + b"xxxxxx", "is damaged"),
        (b"{}\n\xff", "line 2"),
    ):
        path.write_bytes(raw)
        _, err = (process := stage.command(str(path), "--owner", "x")).communicate(timeout=60)
        assert (process.returncode, expected in err, err.count("\n")) == (2, True, 1), err
    (tmp_path / "latin.json").write_bytes(b'["\xff"]')
    _, err = (process := stage.command(str(tmp_path / "latin.json"), "--owner", "x")).communicate(timeout=60)
    assert (process.returncode, "not UTF-8" in err) == (2, True)
    path.write_text(json.dumps([UI, UI]))
    strange = {**stage.environ, "BLOTTER_JWT_SECRET": "another-secret-that-nobody-ever-configured"}
    process = subprocess.Popen(
        [BLOTTER, "import", str(path), "--owner", "x", "--url", stage.url],
        env=strange, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "does not take this token" in err, err.count("\n")) == (2, True, 1), err
    empty = {name: value for name, value in os.environ.items() if name == "PATH"}
    process = subprocess.Popen(
        [BLOTTER, "import", str(path), "--owner", "x", "--data", str(tmp_path / "none")],
        env=empty, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "blotter up" in err, "--token" in err) == (2, True, True)


def test_an_address_where_nobody_answers_is_told_at_once(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(UI))
    for address, expected in (
        (f"http://127.0.0.1:{free_port()}", "cannot be reached"),
        ("localhost:8400", "is no address of Blotter: write it as http://"),
    ):
        argv = [BLOTTER, "import", str(path), "--owner", "x", "--url", address]
        began_s = time.monotonic()
        done = subprocess.run(
            argv, env=stage.environ, capture_output=True, text=True, timeout=50, check=False
        )
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert address in done.stderr
        assert expected in done.stderr
        assert time.monotonic() - began_s < 20, "no minute's patience with a wrong address"


def test_a_token_is_enough_and_the_report_says_how_to_read_what_was_imported(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"id": "with-token", "messages": UI}))
    bare = {"PATH": stage.environ["PATH"]}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [BLOTTER, "import", str(path), "--url", stage.url, *arguments]
        return subprocess.run(argv, env=bare, capture_output=True, text=True, timeout=60, check=False)

    done = run("--token", token("tom"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "with-token"
    assert "\r" not in done.stderr, "no progress bar where nobody watches"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("read one: ")]
    shown = printed(line, TOKEN=token("tom"))
    assert shown["conversation"]["id"] == "with-token"

    assert run("--token", token("tom"), "--owner", "eve").returncode == 2, "another's, and no scope for it"
    service = token("service", "blotter:act-for")
    acting = run("--token", service, "--owner", "eve")
    assert acting.stdout.splitlines()[0] == "with-token"
    assert printed(acting.stderr, TOKEN=service)["conversation"]["id"] == "with-token"
    assert stage.view("eve", "with-token")["conversation"]["id"] == "with-token"
    assert run("--token", "opaque").returncode == 2


def printed(said: str, **environ: str) -> Any:
    """The line that reads one, run as it was printed, from another folder and without anything on the PATH."""
    (line,) = [line for line in said.splitlines() if line.startswith("read one: ")]
    done = subprocess.run(
        line.removeprefix("read one: "), shell=True, cwd="/", env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_the_line_that_reads_one_runs_as_it_is_printed(stage: Stage, tmp_path: Path) -> None:
    path, folder = tmp_path / "one.json", tmp_path / "data with a blank"
    path.write_text(json.dumps({"id": "shown", "messages": UI}))
    folder.mkdir()
    names = ("DATABASE_URL", "REDIS_URL", "BLOTTER_JWT_SECRET")
    (folder / "env").write_text(
        "".join(f"{name}={stage.environ[name]}\n" for name in names) + f"BASE_URL={stage.url}\n"
    )
    argv = [BLOTTER, "import", str(path), "--owner", "o'ann", "--data", str(folder)]
    bare = {"PATH": stage.environ["PATH"]}
    done = subprocess.run(argv, env=bare, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert printed(done.stderr)["conversation"]["id"] == "shown"
