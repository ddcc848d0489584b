"""Seeded runs of everything at once: the promise holds, a run can be had again, and what fails is shown short."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.history import Read, Save, tell
from tests.faults.planted import lua_bug
from tests.faults.simulate import actions_of, attempt, one
from tests.faults.simulation import LOSSES, WEIGHTS, Run, run
from tests.faults.world import World, world
from tests.servers import RunningPostgres, start_valkey

RUNS = 7


@pytest.fixture(scope="module")
def made(postgres_server: RunningPostgres, template_database: str) -> Iterator[World]:
    with (
        start_valkey(appendonly="no") as valkey,
        postgres_server.new_database(template_database) as database_url,
        world(valkey.url, database_url) as made,
    ):
        yield made


@pytest.mark.parametrize("seed", range(6))
def test_the_promise_holds(made: World, seed: int) -> None:
    for number in range(RUNS):
        failed = one(made, 1000 + seed, number)
        assert failed is None, failed.text if failed else ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_promise_holds_for_a_hundred_thousand_steps(made: World, seed: int) -> None:
    steps = number = 0
    while steps < 100_000:
        failed = one(made, seed, number)
        assert failed is None, failed.text if failed else ""
        steps += made.steps
        number += 1


def test_the_same_seed_gives_the_same_run(made: World) -> None:
    def told() -> list[str]:
        run(made, actions_of(5, 3))
        return [tell(entry) for entry in made.history.entries if isinstance(entry, (Save, Read))]

    first = told()
    assert first == told()
    assert len(first) > 10


def test_every_kind_of_action_can_be_carried_out(made: World) -> None:
    assert set(Run(made).acts) == {*WEIGHTS, *LOSSES}
    drawn = {action[0] for number in range(40) for action in actions_of(1, number)}
    assert drawn == {*WEIGHTS, *LOSSES}


def test_a_planted_bug_is_found_and_its_history_shrunk(made: World) -> None:
    with lua_bug("save", pattern=r"^  if r and r\.d then return outcome\(cmd, 'gone', r\) end$"):
        failed = next(found for number in range(200) if (found := one(made, 7, number, 80)) is not None)
    fewer = int(failed.text.split(" actions of ")[0])
    assert fewer <= 80 // 3, failed.text
    assert f"--seed 7 --run {failed.number}" in failed.text
    # And without it that run is green.
    assert attempt(made, actions_of(7, failed.number, 80)) == ""
