"""Node and the npm packages that tests of the JavaScript client and of the pages use."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from tests.acceptance.js_rig import CHECKOUT

CLIENT = CHECKOUT / "clients" / "js"
LEAST_NODE = 20
INSTALL_WITHIN_S = 240


def absent(reason: str) -> NoReturn:
    """CI fails, a laptop skips."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def find_node() -> str:
    """The path of Node.js."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        absent("the JavaScript client is tested by Node.js 20 or newer and npm; they are not on the PATH")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < LEAST_NODE:
        absent(f"the JavaScript client needs Node.js {LEAST_NODE} or newer; this is {version}")
    return found


def install_packages() -> Path:
    """The folder of packages, installed from the lock; nothing happens when that is done already."""
    wanted = hashlib.sha256((CLIENT / "package-lock.json").read_bytes()).hexdigest()
    mark = CLIENT / "node_modules" / ".installed"
    with (CLIENT / "package-lock.json").open("rb") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # several processes test at once: the second finds the work done
        if mark.exists() and mark.read_text() == wanted:
            return CLIENT / "node_modules"
        try:
            done = subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--loglevel=error"],
                cwd=CLIENT,
                capture_output=True,
                text=True,
                timeout=INSTALL_WITHIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            absent(f"npm ci did not finish within {INSTALL_WITHIN_S} s")
        if done.returncode != 0:
            absent(f"npm ci failed: {done.stderr.strip()[-1000:]}")
        mark.write_text(wanted)
    return CLIENT / "node_modules"
