"""The campaign's disk: what was fsynced is there after kill -9, what was not is gone. So it tells `appendfsync always` from
`everysec`, which a kill alone does not: the kernel still holds what a killed server wrote.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis

from tests.servers import private_directory, start_valkey
from tests.soak import disk
from tests.soak.__main__ import table
from tests.soak.campaign import Campaign
from tests.soak.disk import Disk
from tests.soak.stacks import blotter

pytestmark = pytest.mark.skipif(bool(disk.why_not()), reason=disk.why_not())


def written_and_killed(folder: Path, *, slow: bool, **directives: str) -> tuple[int, int, float]:
    """How many writes were acknowledged, how many are there after kill -9, and the longest that one took (s)."""
    floor = Disk(folder)
    with start_valkey(folder, environ=floor.environ, **directives) as server:
        told, longest = 0, 0.0
        if slow:
            floor.slow()
        with redis.Redis.from_url(server.url) as client:
            for n in range(1, 8 if slow else 200):
                began = time.monotonic()
                client.rpush("list", f"{n}:" + "x" * 1000)
                longest = max(longest, time.monotonic() - began)
                told = n
        server.kill()
        floor.quick()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            return told, client.llen("list"), longest


@pytest.mark.parametrize("slow", [False, True], ids=["quick", "slow"])
def test_what_was_fsynced_is_there(slow: bool) -> None:
    with private_directory() as folder:
        told, found, longest = written_and_killed(folder, slow=slow)
    assert found == told
    assert (longest >= 0.05) == slow or not slow


def test_what_was_not_is_gone() -> None:
    with private_directory() as folder:
        told, found, _ = written_and_killed(folder, slow=True, appendfsync="everysec")
    assert found < told


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_campaign_sees_what_is_acknowledged_before_its_fsync() -> None:
    """Planted: `appendfsync everysec`. Clients find their appends beyond the end, readers what was never a state."""
    with blotter(fsync="everysec") as stack:
        campaign = Campaign(stack, seconds=30, seed=1, only=("slow fsync with kill -9",), clients=8)
        campaign.run()
    assert not campaign.kept, table(campaign.document())
    assert {name for name, _ in campaign.anomalies} == {"slow fsync with kill -9"}
