"""The JavaScript client: its own tests run by Node, against a whole Blotter where they need one.

Without Node 20, or with no way to install what the tests use from npm, these are skipped on a laptop; CI fails.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from tests.acceptance.js_packages import CLIENT, find_node, install_packages
from tests.acceptance.js_rig import Rig, rig


@pytest.fixture(scope="session")
def node() -> str:
    return find_node()


@pytest.fixture(scope="session")
def packages(node: str) -> Path:
    return install_packages()


@pytest.fixture(scope="module")
def blotter() -> Iterator[Rig]:
    with rig() as running:
        yield running


def run_node(node: str, *tests: str, environ: Mapping[str, str] | None = None, within_s: float = 240) -> None:
    """`node --test` on those files; fails with what it says of the failures."""
    argv = [node, "--test", "--test-reporter=spec", *(str(CLIENT / "test" / test) for test in tests)]
    done = subprocess.run(
        argv,
        cwd=CLIENT,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    if done.returncode != 0:
        _, _, failures = done.stdout.partition("failing tests:")
        pytest.fail(f"{(failures or done.stdout)[:6000]}\n{done.stderr[-2000:]}", pytrace=False)


@pytest.mark.timeout(400)
def test_what_needs_no_server(node: str, packages: Path) -> None:
    run_node(node, *sorted(f"unit/{path.name}" for path in (CLIENT / "test" / "unit").glob("*.test.js")))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["basics", "follow", "ai-sdk", "assistant-ui", "readme"])
def test_against_a_running_blotter(node: str, packages: Path, blotter: Rig, name: str) -> None:
    run_node(node, f"live/{name}.test.js", environ=blotter.environ)


@pytest.mark.timeout(400)
def test_bad_networks_and_killed_pages(node: str, packages: Path, blotter: Rig) -> None:
    seeds = {"BLOTTER_TEST_SEEDS": os.environ.get("BLOTTER_TEST_SEEDS", "2")}
    run_node(node, "live/chaos.test.js", environ={**blotter.environ, **seeds})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bad_networks_and_killed_pages_at_length(node: str, packages: Path, blotter: Rig) -> None:
    seeds = {"BLOTTER_TEST_SEED": "1000", "BLOTTER_TEST_SEEDS": "150"}
    run_node(node, "live/chaos.test.js", environ={**blotter.environ, **seeds}, within_s=800)


@pytest.mark.timeout(400)
def test_parts_of_blotter_die(node: str, packages: Path, blotter: Rig) -> None:
    run_node(node, "live/faults.test.js", environ=blotter.environ)


@pytest.mark.timeout(300)
def test_types_agree_with_those_of_the_sdks(node: str, packages: Path) -> None:
    done = subprocess.run(
        [node, str(packages / "typescript" / "bin" / "tsc"), "--noEmit", "-p", "test/types"],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_package_holds_the_modules_and_their_types_alone(node: str) -> None:
    done = subprocess.run(
        ["npm", "pack", "--dry-run", "--json"],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [package] = json.loads(done.stdout)
    modules = {
        f"{name}{ending}" for name in ("blotter", "ai-sdk", "assistant-ui") for ending in (".js", ".d.ts")
    }
    parts = {f"blotter/{path.name}" for path in (CLIENT / "blotter").glob("*.js")}
    assert {file["path"] for file in package["files"]} == {"package.json", "README.md", *modules, *parts}


@pytest.mark.timeout(200)
def test_the_package_works_where_it_is_installed(node: str, tmp_path: Path) -> None:
    packed = subprocess.run(
        ["npm", "pack", "--json", "--pack-destination", str(tmp_path)],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    [package] = json.loads(packed.stdout)
    folder = tmp_path / "node_modules" / "blotter-client"
    folder.mkdir(parents=True)
    subprocess.run(
        ["tar", "-xzf", tmp_path / package["filename"], "-C", folder, "--strip-components=1"], check=True
    )
    script = """
        import { createBlotter, LIMITS, foldEvent } from "blotter-client";
        import { historyAdapter } from "blotter-client/assistant-ui";
        const blotter = createBlotter({ baseUrl: "http://127.0.0.1:1", token: "t" });
        blotter.saveUserMessage("c", { id: "m", content: "kept" });
        console.log(blotter.unsaved, LIMITS.appendChars, typeof foldEvent, typeof historyAdapter);
        await blotter.dispose();
    """
    done = subprocess.run(
        [node, "--input-type=module", "-e", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["1", "100", "function", "function"], "")


def test_web_serves_the_modules_as_they_are(blotter: Rig) -> None:
    modules = ["blotter.js", *(f"blotter/{path.name}" for path in (CLIENT / "blotter").glob("*.js"))]
    assert len(modules) > 1
    for module in modules:
        answer = httpx.get(f"{blotter.environ['BASE_URL']}/static/{module}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].split(";")[0] in ("text/javascript", "application/javascript")
        assert answer.content == (CLIENT / module).read_bytes()
