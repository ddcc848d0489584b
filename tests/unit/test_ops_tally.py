"""What a web process tells the graphs: everything once, later, and never at a save's cost."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from models.errors import BufferUnavailable
from tests.servers import eventually
from web.ops.tally import Tally


def test_what_was_added_by_many_threads_is_told_once() -> None:
    told: list[Mapping[str, int]] = []
    tally = Tally(told.append, every_s=0.01)
    threads = [threading.Thread(target=lambda: [tally.add(2, 0.004) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: sum(one.get("ack_saves", 0) for one in told) == 1600, within_s=5)
    assert sum(one.get("ack_le_4", 0) for one in told) == 800


def test_a_save_that_waited_counts_without_its_time() -> None:
    told: list[Mapping[str, int]] = []
    tally = Tally(told.append, every_s=60)
    tally.add(3, None)
    tally.push()
    assert told == [{"ack_saves": 3}]


def test_without_a_buffer_it_is_dropped_and_the_next_ones_are_told() -> None:
    told: list[Mapping[str, int]] = []

    def tell(counts: Mapping[str, int]) -> None:
        told.append(counts)
        if len(told) == 1:
            raise BufferUnavailable("away")

    tally = Tally(tell, every_s=0.01)
    tally.add(1, None)
    eventually(lambda: len(told) == 1, within_s=5)
    tally.add(5, None)
    eventually(lambda: told[1:] == [{"ack_saves": 5}], within_s=5)
