"""Row 13: live readers on one process, by the measurement of its own in events_readers.py, run as a program."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from tests.bench.frame import Bench, Figure, at_least, at_most, ratio
from tests.bench.stack import CHECKOUT

ROWS = (13,)
READERS = 1000


def run(bench: Bench, rows: set[int]) -> Iterator[Figure]:
    readers = bench.pick(10, READERS)
    rounds = bench.pick(1, 1, 3)
    command = [
        *(sys.executable, "-m", "tests.bench.events_readers", "--readers", str(readers)),
        *("--seconds", str(bench.pick(1.0, 10.0)), "--active", str(min(50, readers))),
    ]
    found = []
    for number in range(rounds):
        bench.say(f"row 13: {readers:,} readers, round {number + 1} of {rounds}")
        done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    delays = [one["delay_ms_paced"]["p99"] for one in found]
    notes = {
        "readers": readers,
        "saves a second while delays are measured": [one["paced_saves_per_s"] for one in found],
        "delay p50 ms": [one["delay_ms_paced"]["p50"] for one in found],
        "CPU of the events process": [one["events_cpu_paced"] for one in found],
        "its memory MB": [one["events_rss_mb"] for one in found],
    }
    yield Figure(
        13, f"delay from a save to {readers:,} readers on one process, p99", sorted(delays)[len(delays) // 2], "ms",
        at_most(250), samples={"ms": delays}, notes=notes,
    )  # fmt: skip
    yield ratio(
        13, "saves/s with the readers / without", [one["saves_per_s_with_readers"] for one in found],
        # Measured before and after: what else the machine did meanwhile counts half each.
        [(one["saves_per_s_without_readers"] + one["saves_per_s_without_readers_again"]) / 2 for one in found],
        labels=("with", "without"), target=at_least(0.8), notes=notes,
    )  # fmt: skip
