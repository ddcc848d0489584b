"""What all commands do alike: exit code 2 and one sentence where nothing could be asked, whatever the reason."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import orjson
import pytest
from click.testing import CliRunner, Result

from tests.acceptance.console import Console
from tests.flow.crews import CrewRig
from web.cli import COMMANDS, main

#: Commands that speak to the servers, as somebody would call them.
ASKING = [
    ("drain",),
    ("sweep",),
    ("verify",),
    ("dead", "list"),
    ("dead", "replay", "--all"),
    ("dead", "purge", "--all", "--yes"),
    ("dead", "show", f"{0:032x}/m/m1"),
    ("export", "--owner", "ann"),
    ("erase", "ann", "--yes"),
    ("backfill", "EXPORT"),
    ("status",),
]
#: … and those that need an address or a key.
OTHERS = [
    ("db", "check"),
    ("db", "upgrade"),
    ("token", "ann"),
    ("import", "CHATS", "--owner", "ann"),
    ("openapi",),
]
AWAY = {
    "DATABASE_URL": "postgresql://127.0.0.1:1/none",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "CELERY_BROKER_URL": "redis://127.0.0.1:1/1",
    "BASE_URL": "http://127.0.0.1:1",
    "BLOTTER_JWT_SECRET": "a-secret-of-at-least-32-bytes-for-tests",
}
EXPORT = (
    '{"type":"blotter-export","format":1,"owner":"ann","exportedAt":"2026-01-01T00:00:00.000Z"}\n'
    '{"type":"end","conversations":0,"lines":2}\n'
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """What the words in capitals stand for."""
    (tmp_path / "chats.json").write_text('[{"role": "user", "content": "hi"}]')
    (tmp_path / "export.jsonl").write_text(EXPORT)
    return {"CHATS": str(tmp_path / "chats.json"), "EXPORT": str(tmp_path / "export.jsonl")}


def run(
    arguments: tuple[str, ...], files: Mapping[str, str], *more: str, environ: Mapping[str, str] = AWAY
) -> Result:
    argv = [files.get(word, word) for word in (*arguments, *more)]
    result = CliRunner().invoke(main, argv, env=dict(environ))
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("arguments", ASKING + OTHERS)
def test_wrong_usage(arguments: tuple[str, ...], files: dict[str, str]) -> None:
    assert run(arguments, files, "--no-such-option").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *((arguments, None) for arguments in ASKING if arguments[0] not in ("export", "status")),
        (("export", "--owner", "ann", "-o", "OUT"), None),
        (("export", "--owner", "ann"), "name a file with --output"),
        (("export",), "Missing option '--owner'"),
        (("repartition", "4"), None),
        (("restart", "--data", "/nowhere"), "no Blotter is running in /nowhere"),
        (("restart", "--no-such-option"), "--no-such-option"),
        (("drain", "--timeout", "soon"), "'soon' is not a valid float"),
        (("dead", "replay"), "name dead letters, or --all"),
        (("dead", "purge", "--all"), "broken off"),
        (("db", "check"), None),
        (("db", "upgrade"), None),
        (("import", "CHATS", "--owner", "ann"), None),
        (("no-such-command",), "No such command 'no-such-command'"),
    ],
)
def test_with_json_stdout_is_one_document_whatever_goes_wrong(
    arguments: tuple[str, ...], said: str | None, files: dict[str, str], tmp_path: Path
) -> None:
    result = run(arguments, {**files, "OUT": str(tmp_path / "out")}, "--json")
    assert result.exit_code == (1 if said == "broken off" else 2), result.output
    document = orjson.loads(result.stdout)
    assert set(document) == {"error"}
    assert (said or "") in document["error"]
    assert document["error"] in result.stderr or said == "broken off"


def test_with_json_and_watch_each_line_is_a_document(files: dict[str, str]) -> None:
    """Broken off after a look: what was printed stays, and nothing that is no document follows."""
    with patch.object(threading.Event, "wait", side_effect=KeyboardInterrupt):
        result = run(("status", "--watch"), files, "--json")
    assert result.exit_code == 2
    assert [orjson.loads(line)["level"] for line in result.stdout.splitlines()] == ["red"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--owner", ""),
        ("erase", "", "--yes"),
        ("backfill", "EXPORT", "--owner", " "),
        ("dead", "list", "--owner", "a\nb"),
        ("token", "ä" * 129),
        ("import", "CHATS", "--owner", ""),
    ],
)
def test_an_owner_whom_web_would_not_know(arguments: tuple[str, ...], files: dict[str, str]) -> None:
    result = run(arguments, files)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "must not be empty" in result.stderr or "must be 1 to 256 bytes" in result.stderr


@pytest.mark.parametrize("arguments", ASKING + OTHERS)
def test_a_folder_without_a_running_blotter(
    arguments: tuple[str, ...], files: dict[str, str], tmp_path: Path
) -> None:
    result = run(arguments, files, "--data", str(tmp_path))
    assert result.exit_code == 2, result.output
    assert f"no Blotter is running in {tmp_path}" in result.output


@pytest.mark.parametrize("arguments", ASKING + OTHERS[:-2])
def test_a_setting_that_is_wrong_is_named_with_the_place_where_it_stands(
    arguments: tuple[str, ...], files: dict[str, str]
) -> None:
    result = run(arguments, files, environ={**AWAY, "DATABASE_URL": "postgresql://u:SECRET@x@h/d"})
    assert result.exit_code == 2, result.output
    assert "DATABASE_URL: " in result.output
    assert "the environment" in result.output
    assert "SECRET" not in result.output


@pytest.mark.parametrize("arguments", ASKING + OTHERS[:-1])
def test_servers_that_are_away(arguments: tuple[str, ...], files: dict[str, str]) -> None:
    if arguments[0] == "token":
        return  # asks nobody
    result = run(arguments, files)
    assert result.exit_code == 2, result.output
    away = {"db": "Postgres is unreachable", "import": "cannot be reached"}.get(
        arguments[0], "the buffer did not answer"
    )
    assert away in result.output
    assert len(result.stderr.splitlines()) <= 2, "on which servers, and one sentence"


@pytest.mark.parametrize("arguments", ASKING)
def test_the_folder_of_a_running_one_is_enough(
    chat: CrewRig, blotter: Console, tmp_path: Path, arguments: tuple[str, ...], files: dict[str, str]
) -> None:
    names = ("REDIS_URL", "DATABASE_URL", "CELERY_BROKER_URL")
    (tmp_path / "env").write_text("".join(f"{name}={blotter.environ.pop(name)}\n" for name in names))
    exits = 1 if arguments[0] == "status" or arguments[1:2] == ("show",) else 0
    result = blotter(*(files.get(word, word) for word in arguments), "--data", str(tmp_path), exits=exits)
    assert "on the Blotter of" not in result.stderr, "whoever names it knows it"
    blotter.environ["BLOTTER_DATA"] = str(tmp_path)
    result = blotter(*(files.get(word, word) for word in arguments), exits=exits)
    assert result.stderr.startswith(f"on the Blotter of {tmp_path}\n")


@pytest.mark.parametrize(
    "name",
    [
        ("drain",),
        ("status",),
        ("verify",),
        ("sweep",),
        ("openapi",),
        ("import",),
        ("export",),
        ("backfill",),
        ("erase",),
        ("restart",),
        ("repartition",),
        ("token",),
        ("db", "upgrade"),
        ("db", "check"),
        *(("dead", action) for action in ("list", "show", "replay", "purge")),
    ],
)
def test_every_command_says_what_it_does_with_an_example(name: tuple[str, ...]) -> None:
    help_text = CliRunner().invoke(main, [*name, "--help"]).output
    assert "Example: blotter" in help_text
    assert "Exit code" in help_text
    assert "--data DIR" in help_text
    assert set(name[:1]) <= set(COMMANDS)
