"""A short campaign in each run of the tests, a long one at night, and the rivals' columns beside it.

`make soak` is the real thing; these show that it runs, that it finds what it should, and that Blotter stands it for a while.
"""

from __future__ import annotations

import random

import pytest

from tests.soak.__main__ import table
from tests.soak.campaign import Campaign, Injection
from tests.soak.nemesis import FAULTS, possible
from tests.soak.stacks import blotter, rival
from tests.soak.traffic import Fate, Snapshot

#: Four kinds, none of which needs a time-out to run out.
SHORT = ("kill -9 the buffer", "kill -9 the worker group", "kill -9 a web child", "a COMMIT's answer lost")


@pytest.mark.timeout(180)
def test_nothing_acknowledged_is_lost_whoever_dies() -> None:
    with blotter() as stack:
        campaign = Campaign(stack, seconds=12, seed=random.randrange(1000), only=SHORT, clients=8)
        campaign.run()
    said = campaign.document()
    assert campaign.kept, table(said)
    assert said["totals"]["acknowledged"] > 50, table(said)
    # How many of them fit in is for the machine to say.
    struck = {name for name, row in said["faults"].items() if row["times"]}
    assert struck, table(said)
    assert struck <= set(SHORT), table(said)


class Store:
    """In the place of a stack: what Postgres holds at the end."""

    name, port, pipeline = "store", 1, None

    def __init__(self, found: int) -> None:
        self.found = found

    def texts(self) -> dict[tuple[str, str, str], str]:
        return {("snap", "c", "m"): f"{self.found}:text"} if self.found else {}


def judged(found: int, saves: str, emptied: int | None = None, floor: int = 0) -> tuple[int, int, int]:
    """Lost, reverted, excused, for one message. ``saves``: a, r or u for each; ``emptied``: the buffer was, after so many."""
    campaign = Campaign(Store(found), seconds=0, seed=1)  # type: ignore[arg-type]
    fates: dict[str, Fate] = {"a": "acknowledged", "r": "refused", "u": "unknown"}
    mine = campaign.log.snapshots["snap", "c", "m"] = Snapshot()
    mine.saves = {n: (fates[letter], 10 * n, 10 * n + 5) for n, letter in enumerate(saves, 1)}
    if emptied is not None:
        texts = {("snap", "c", "m"): f"{floor}:text"} if floor else {}
        campaign.injections.append(Injection("emptied", 10 * emptied + 6, 10 * emptied + 8, floor=texts))
    campaign._ledger()
    lines = campaign.lines.values()
    lost, reverted = sum(line.lost for line in lines), sum(line.reverted for line in lines)
    assert campaign.kept == (lost + reverted == 0)
    return lost, reverted, sum(line.excused for line in lines)


@pytest.mark.parametrize(
    ("found", "saves", "emptied", "floor", "verdict"),
    [
        (3, "aaa", None, 0, (0, 0, 0)),
        (2, "aaa", None, 0, (0, 1, 0)),
        (0, "aaa", None, 0, (1, 0, 0)),
        # What nobody was told may have been kept or not.
        (2, "aau", None, 0, (0, 0, 0)),
        (3, "aau", None, 0, (0, 0, 0)),
        (0, "uru", None, 0, (0, 0, 0)),
        # A late one of an earlier save is no excuse.
        (2, "aua", None, 0, (0, 1, 0)),
        # The buffer came back empty after the third: what Postgres had, and what came later, is there all the same.
        (2, "aaa", 3, 2, (0, 0, 1)),
        (1, "aaa", 3, 2, (0, 1, 0)),
        (0, "aaa", 3, 0, (0, 0, 1)),
        (3, "aaaa", 3, 2, (0, 1, 0)),
        (4, "aaaa", 3, 2, (0, 0, 0)),
    ],
)
def test_the_ledger_names_what_is_lost_and_what_went_back(
    found: int, saves: str, emptied: int | None, floor: int, verdict: tuple[int, int, int]
) -> None:
    assert judged(found, saves, emptied, floor) == verdict


def test_there_are_faults_of_every_part() -> None:
    assert len(FAULTS) >= 25
    needed = {part for fault in FAULTS.values() for part in fault.needs}
    assert needed == {"web", "worker", "beat", "events", "buffer", "broker", "leases"}


@pytest.mark.slow
def test_it_finds_what_a_rival_loses() -> None:
    """A task for each save: what lies in the broker goes with it. A campaign that finds nothing here is blind."""
    with rival("celery") as stack:
        assert "kill -9 a worker child" in {fault.name for fault in possible(stack)}
        faults = (
            "Postgres half open",
            "Postgres refuses connections",
            "SIGSTOP a web child",
            "the broker emptied",
        )
        campaign = Campaign(stack, seconds=60, seed=1, only=faults, alike=True)
        campaign.run()
    totals = campaign.document()["totals"]
    assert totals["lost"] + totals["reverted"] > 0, table(campaign.document())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_acknowledged_is_lost_for_ten_minutes(seed: int) -> None:
    with blotter() as stack:
        campaign = Campaign(stack, seconds=600, seed=seed)
        campaign.run()
    said = campaign.document()
    assert campaign.kept, table(said)
    assert said["totals"]["recovery_s"] < 30, table(said)
