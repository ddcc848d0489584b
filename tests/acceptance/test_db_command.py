"""`blotter db`: the schema, from nothing and back to a clear answer."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from web.cli import main


def test_a_database_is_refused_by_check_until_it_was_upgraded(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    before = CliRunner().invoke(main, ["db", "check"])
    assert (before.exit_code, before.stderr.count("\n")) == (1, 1), before.output
    for _ in range(2):
        upgraded = CliRunner().invoke(main, ["db", "upgrade"])
        assert upgraded.exit_code == 0, upgraded.output
    after = CliRunner().invoke(main, ["db", "check"])
    assert after.exit_code == 0, after.output
