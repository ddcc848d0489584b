"""A short campaign in each run of the tests, a long one at night, and the rivals' columns beside it.

`make soak` is the real thing; these show that it runs, that it finds what it should, and that Blotter stands it for a while.
"""

from __future__ import annotations

import random

import pytest

from tests.soak.__main__ import table
from tests.soak.campaign import Campaign
from tests.soak.nemesis import FAULTS, possible
from tests.soak.stacks import blotter, rival

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
    assert {name for name, row in said["faults"].items() if row["times"]} == set(SHORT), table(said)


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
            "the broker emptied",
            "kill -9 a worker child",
            "SIGSTOP a worker child",
            "SIGSTOP Postgres",
        )
        campaign = Campaign(stack, seconds=60, seed=1, only=faults)
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
