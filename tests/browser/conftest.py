"""A browser and a running Blotter for the tests of the demo chat.

The browser is the machine's own Chromium (BLOTTER_TEST_CHROMIUM, else /usr/bin/chromium and the like). Where there is
none, the tests skip with that reason; with BLOTTER_TEST_BROWSER=required, as in .ci/run, they fail. Screenshots:
BLOTTER_TEST_SCREENSHOTS names a folder.

One Blotter serves all modules; the browser's scope is a module's: Playwright's loop must not outlive it, for other tests run
loops of their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.up import Up
from tests.browser.blotter import Blotter
from tests.browser.tab import Browser
from tests.servers import private_directory
from web.cli.folder import free_port

NAMES = (
    "chromium", "chromium-browser", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)  # fmt: skip
FLAGS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip


def chromium() -> str:
    """The path of the machine's browser. Skips, or fails in CI, where there is none."""
    named = os.environ.get("BLOTTER_TEST_CHROMIUM")
    found = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is not None and Path(found).exists():
        return found
    reason = "no Chromium on this machine: install it, or name one with BLOTTER_TEST_CHROMIUM"
    if os.environ.get("BLOTTER_TEST_BROWSER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="package")
def blotter() -> Iterator[Blotter]:
    """One `blotter up` for this folder."""
    chromium()  # without a browser nothing is started
    with private_directory() as directory:
        up = Up(directory / "data", programs=None, arguments=("--workers", "1", "--port", str(free_port())))
        try:
            yield Blotter(up, up.wait_ready(within_s=60))
        finally:
            up.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=chromium(), headless=True, args=flags)
        yield Browser(made)
        made.close()
