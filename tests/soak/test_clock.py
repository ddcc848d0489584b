"""The buffer's clock goes back: what was to end in seconds must not hold a partition up for an hour."""

from __future__ import annotations

import pytest

from tests.flow.crews import CrewRig, crew_rig


@pytest.mark.parametrize("name", ["lease", "hold", "bell"])
def test_no_lease_pause_or_bell_outlives_the_clock_that_set_it(
    buffer_url: str, database_url: str, name: str
) -> None:
    """Found by the campaign, seed 1: killed, started with a clock an hour ahead, and again with the right one."""
    made: CrewRig
    with crew_rig(buffer_url, database_url) as made:
        made.say("c", "m1", "kept")
        key = getattr(made.place("c").keys, name)
        made.buffer.client.set(key, "1", px=3_600_000)
        made.crew.sweeper.sweep()
        assert not made.buffer.client.exists(key) or made.buffer.client.pttl(key) <= 10_000
        made.flush_once()
        assert made.stored_texts() == {"m1": "kept"}
