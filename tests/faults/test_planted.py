"""The checker is worth something: every planted bug is caught by a short schedule that is green without it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.checker import Verdict
from tests.faults.planted import lua_bug, once
from tests.faults.schedules import CASES, Case, Stage
from tests.faults.world import World, world
from tests.servers import RunningPostgres, start_valkey


@pytest.fixture(scope="module")
def stage(postgres_server: RunningPostgres, template_database: str) -> Iterator[World]:
    with (
        start_valkey(appendonly="no") as valkey,
        postgres_server.new_database(template_database) as database_url,
        world(valkey.url, database_url) as made,
    ):
        yield made


def play(stage: World, case: Case) -> Verdict:
    stage.reset()
    run = Stage(stage)
    case.schedule(run)
    return run.finish(run.answer_bells if case.bells_only else None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_planted_bug_is_caught(stage: World, case: Case) -> None:
    with case.bug():
        verdict = play(stage, case)
    assert verdict.names & case.caught, str(verdict)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_without_the_bug_the_same_schedule_is_green(stage: World, case: Case) -> None:
    verdict = play(stage, case)
    assert not verdict.anomalies, str(verdict)
    assert not verdict.undecided


def test_a_bug_whose_place_is_gone_is_no_bug() -> None:
    with pytest.raises(AssertionError, match="not planted"), lua_bug("ack", pattern="no such text"):
        pass
    with pytest.raises(AssertionError, match="not planted"):
        once("twice twice", "twice", "once")
