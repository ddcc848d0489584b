"""What README says of settings and calls is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from models.settings import Settings, markdown_table

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_settings_table_is_the_settings() -> None:
    written = README.split("<!-- settings -->\n")[1].split("<!-- /settings -->")[0]
    assert written == markdown_table()


def test_every_setting_has_a_name_and_a_meaning() -> None:
    for field in Settings.model_fields.values():
        assert field.alias
        assert field.description


def test_every_call_in_the_table_exists() -> None:
    from web.routes import OPERATIONS

    paths = {re.sub(r"\{\w+\}", "{id}", operation.path) for operation in OPERATIONS}
    for path in re.findall(r"`[A-Z/, `]*(/[a-z][\w/{}-]*)", README):
        if path.startswith("/api/"):
            assert path in paths, path


def test_every_command_it_names_exists_and_every_command_is_named() -> None:
    from web.cli import COMMANDS

    named = set(re.findall(r"`(?:\.venv/bin/)?blotter ([a-z]+)", README))
    assert named <= set(COMMANDS), named - set(COMMANDS)
    assert set(COMMANDS) <= named, set(COMMANDS) - named


def test_every_option_it_names_is_one_that_the_command_has() -> None:
    from click.testing import CliRunner

    from web.cli import main

    for line in re.findall(r"`(?:\.venv/bin/)?(blotter [^`]+)`", README):
        options = re.findall(r"--[a-z][a-z-]*|(?<= )-o\b", line)
        if options:
            words = [word for word in line.split()[1:3] if re.fullmatch(r"[a-z]+", word)]
            words = words[:2] if words[0] in ("dead", "db") else words[:1]
            help_text = CliRunner().invoke(main, [*words, "--help"]).output
            for option in options:
                assert option in help_text, (line, option)
