"""`blotter db`: the schema, from nothing and back to a clear answer."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from web.cli import main


def test_a_database_is_refused_by_check_until_it_was_upgraded(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)
    before = CliRunner().invoke(main, ["db", "check"])
    assert (before.exit_code, before.stderr.count("\n")) == (1, 2), before.output
    assert before.stderr.startswith("on DATABASE_URL 127.0.0.1:"), (
        "which database, in one line; then the answer"
    )
    for _ in range(2):
        upgraded = CliRunner().invoke(main, ["db", "upgrade"])
        assert upgraded.exit_code == 0, upgraded.output
    after = CliRunner().invoke(main, ["db", "check"])
    assert after.exit_code == 0, after.output


def test_with_json_it_names_the_schema_before_and_after(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database_url)

    def run(*arguments: str, exits: int = 0) -> dict[str, object]:
        done = CliRunner().invoke(main, ["db", *arguments, "--json"])
        assert done.exit_code == exits, done.output
        found: dict[str, object] = json.loads(done.stdout)
        return found

    before = run("check", exits=1)
    assert (before["ok"], before["schema"]) == (False, None)
    upgraded = run("upgrade")
    assert (upgraded["before"], upgraded["schema"]) == (None, upgraded["needed"])
    after = run("check")
    assert (after["ok"], after["schema"], after["reason"]) == (True, upgraded["needed"], None)


@pytest.mark.parametrize("action", ["check", "upgrade"])
def test_a_database_that_is_away_is_exit_code_2(action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    done = CliRunner().invoke(main, ["db", action])
    assert (done.exit_code, done.stderr.splitlines()[0]) == (2, "on DATABASE_URL 127.0.0.1:1/none"), (
        done.output
    )
    assert done.stderr.count("\n") == 2
