"""Every command in README that is marked as run is run here, as it stands, against a real `blotter up`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.up import CHECKOUT, Up
from tests.servers import private_directory

README = (CHECKOUT / "README.md").read_text()
MARKED = re.compile(
    r"<!-- run by tests/acceptance/test_readme_runs\.py(?: as (?P<file>\S+))? -->\n```(?P<kind>\w+)\n(?P<text>.*?)```",
    re.DOTALL,
)
BLOCKS = [(found["kind"], found["file"], found["text"]) for found in MARKED.finditer(README)]
#: Needed by a block: the programs without which it is left out.
NEEDS = {"psql": "psql ", "npm": "npm ", "node": "node "}

pytestmark = pytest.mark.timeout(240)


class Reader:
    """Somebody who types README's blocks into one shell after the other, in the clone, with a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.data = home / ".local" / "share" / "blotter"
        self.scratch = home / "kept"
        self.scratch.mkdir()
        # The clone; what builds in place has a copy.
        for entry in CHECKOUT.iterdir():
            if entry.name == "clients":
                left_out = shutil.ignore_patterns("node_modules", "__pycache__")
                shutil.copytree(entry, self.scratch / entry.name, ignore=left_out)
            else:
                (self.scratch / entry.name).symlink_to(entry)
        site = next(Path(sys.prefix).glob("lib/python*/site-packages"))
        self.environ = {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            # pip and npm fetch nothing: what they would fetch is here already.
            "PYTHONPATH": str(site),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it the wrong way round: this turns it off
            "PIP_PROGRESS_BAR": "off",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "npm_config_offline": "true",
            "npm_config_audit": "false",
            "npm_config_fund": "false",
            "npm_config_update_notifier": "false",
        }
        self.state = home / "state.sh"
        self.state.write_text("")

    def type(self, text: str) -> str:
        """Run a block; what it prints. Variables and exports are kept for the next one, as in one shell."""
        script = f"set -e\n. {self.state}\nset -o allexport\n{text}\nexport -p > {self.state}\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.scratch, env=self.environ, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def printed() -> Iterator[list[tuple[str, str]]]:
    """(block, what it printed) of all blocks, in the order of the README."""
    with private_directory() as home:
        reader = Reader(home)
        running = Up(reader.data, programs=None, environ={"HOME": str(home)})
        try:
            running.wait_ready(within_s=90)
            out = []
            for kind, file, text in BLOCKS:
                if file is not None:
                    path = Path(file.replace("~", str(home)))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text)
                elif kind == "sh" and all(
                    shutil.which(name) or mark not in text for name, mark in NEEDS.items()
                ):
                    out.append((text, reader.type(text)))
            yield out
        finally:
            running.close()


def output_of(printed: list[tuple[str, str]], mark: str) -> str:
    found = [said for text, said in printed if mark in text]
    if not found:
        pytest.skip(f"no program for it: {mark}")
    return found[0]


def test_every_block_of_commands_is_marked_but_those_that_start_and_test_it() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    marked = {text for kind, _, text in BLOCKS if kind == "sh"}
    left = [block for block in blocks if block not in marked]
    assert len(left) == 1
    assert left[0].startswith("make run")
    assert {kind for kind, _, _ in BLOCKS} == {"sh", "python", "js"}


def test_the_curl_lines_save_append_wait_and_read(printed: list[tuple[str, str]]) -> None:
    said = output_of(printed, "Prefer: wait=5")
    answers = []
    decoder, at = json.JSONDecoder(), 0
    while at < len(said.rstrip()):
        answer, at = decoder.raw_decode(said, at)
        answers.append(answer)
        at += len(said[at:]) - len(said[at:].lstrip())
    assert [answer["state"] for answer in answers[:4]] == ["buffered", "buffered", "buffered", "stored"]
    assert [(m["id"], m["status"], m["content"]) for m in answers[4]["messages"]] == [
        ("m1", "complete", "Hello"),
        ("m2", "complete", "Hi. How can I help?"),
    ]


def test_postgres_shows_what_is_stored(printed: list[tuple[str, str]]) -> None:
    assert "Hi. How can I help?" in output_of(printed, "psql ")


def test_the_python_client_installs_from_the_clone_and_saves_a_reply(printed: list[tuple[str, str]]) -> None:
    assert output_of(printed, "backend.py").strip() == "complete"


def test_the_js_client_packs_installs_saves_and_follows(printed: list[tuple[str, str]]) -> None:
    kinds = output_of(printed, "page.mjs").split()
    assert "item" in kinds


def test_one_owner_goes_and_comes_back(printed: list[tuple[str, str]]) -> None:
    proof = output_of(printed, "blotter erase")
    rows = {line.split()[0]: line.split()[1:] for line in proof.splitlines() if line.startswith("  ")}
    assert int(rows["messages"][0]) >= 4
    assert {after for _, after in rows.values()} == {"0"}
