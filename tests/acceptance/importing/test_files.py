"""`blotter import`: every shape of file, what cannot be kept, mistakes in one sentence, tokens and the line it prints."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.importing.stage import BLOTTER, Stage
from tests.acceptance.webserver import token
from web.cli.folder import free_port

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
