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
