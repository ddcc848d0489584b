"""The simulation from the command line: many runs, or one again.

    python -m tests.faults.simulate --steps 100000 --seed 1 2 3      until so many steps each; what fails is shrunk
    python -m tests.faults.simulate --seed 1 --run 417               that run again

Starts its own Valkey and Postgres. Progress goes to stderr. Exit 1 when a run failed: then the shortest history, what is
wrong with it, and the command that repeats it were printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from tests.faults.history import tell_all
from tests.faults.simulation import Action, program, run, shrink
from tests.faults.world import World, world
from tests.servers import start_postgres, start_valkey

#: Actions of one run.
LENGTH: Final = 250


class Failed(NamedTuple):
    """``text``: the shortest history and what is wrong with it."""

    number: int
    text: str


def actions_of(seed: int, number: int, length: int = LENGTH) -> list[Action]:
    """The program of run ``number`` of a campaign."""
    return program(seed * 1_000_003 + number, length)


def attempt(made: World, actions: Sequence[Action]) -> str:
    """What is wrong with a run; empty: nothing."""
    try:
        verdict = run(made, actions)
    except Exception as error:  # noqa: BLE001 (whatever it is, this run fails for it)
        return f"{type(error).__name__}: {error}"
    return "" if not verdict.anomalies else f"{sorted(verdict.names)}\n{verdict}"


def one(made: World, seed: int, number: int, length: int = LENGTH) -> Failed | None:
    """One run; if it fails, shrunk to what still fails alike."""
    actions = actions_of(seed, number, length)
    wrong = attempt(made, actions)
    if not wrong:
        return None
    kind = wrong.split("\n", 1)[0]

    def fails(fewer: list[Action]) -> bool:
        return attempt(made, fewer).split("\n", 1)[0] == kind

    least = shrink(fails, actions)
    wrong = attempt(made, least)
    lines = [f"{len(least)} actions of {len(actions)}:", *(f"  {action}" for action in least)]
    lines += ["", "what happened:", tell_all(made.history.entries), "", "what is wrong:", wrong, ""]
    again = "" if length == LENGTH else f" --length {length}"
    lines += ["again:", f"  .venv/bin/python -m tests.faults.simulate --seed {seed} --run {number}{again}"]
    return Failed(number, "\n".join(lines))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulate", description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--run", type=int, default=None)
    parser.add_argument("--length", type=int, default=LENGTH)
    chosen = parser.parse_args(arguments)
    with ExitStack() as stack:
        postgres = stack.enter_context(
            start_postgres(fsync="off", full_page_writes="off", shared_buffers="64MB")
        )
        valkey = stack.enter_context(start_valkey(appendonly="no"))
        from models.postgres.migrate import upgrade

        upgrade(postgres.url)
        made = stack.enter_context(world(valkey.url, postgres.url))
        for seed in chosen.seed:
            started, steps, number = time.monotonic(), 0, chosen.run or 0
            while True:
                failed = one(made, seed, number, chosen.length)
                if failed is not None:
                    print(failed.text)
                    return 1
                steps += made.steps
                number += 1
                if chosen.run is not None or steps >= chosen.steps:
                    break
                if number % 50 == 0:
                    print(f"seed {seed}: {number} runs, {steps} steps", file=sys.stderr)
            took = time.monotonic() - started
            print(
                f"seed {seed}: {number - (chosen.run or 0)} runs, {steps} steps, {took:.0f} s: no violation"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
