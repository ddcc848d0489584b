"""Pauses, patience and eviction as pure functions of time and chance."""

from __future__ import annotations

from hypothesis import given, strategies as st

from models.buffer.partitions import Look
from models.core.schedule import PAUSE_FIRST_MS, PAUSE_MOST_MS, backoff_ms, evict_after_ms
from models.pipeline.patrol import most_overdue


def test_pauses_double_up_to_the_longest() -> None:
    assert [backoff_ms(n, 0.0) for n in range(1, 8)] == [250, 500, 1000, 2000, 4000, 8000, 8000]


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_pause_lies_between_half_and_all_of_its_step(failures: int, chance: float) -> None:
    assert PAUSE_FIRST_MS // 2 <= backoff_ms(failures, chance) <= PAUSE_MOST_MS


def test_under_pressure_conversations_leave_sooner_but_none_at_once() -> None:
    times = {"evict_share": 0.6, "idle_ms": 900_000, "min_idle_ms": 60_000}
    assert evict_after_ms(0.6, **times) == 900_000
    assert evict_after_ms(0.61, **times) == 60_000
    assert evict_after_ms(0.1, evict_share=0.6, idle_ms=10, min_idle_ms=60_000) == 60_000


def test_the_patrol_takes_the_latest_of_the_free() -> None:
    def look(number: int, late_ms: int, *, free: bool = True) -> Look:
        return Look(number, rung=False, late_ms=late_ms, now_ms=0, laid_out=True, free=free)

    looks = [look(0, 1_999), look(1, 3_000), look(2, 9_000, free=False), look(3, 5_000), look(4, -1)]
    assert most_overdue(looks, 2_000) == looks[3]
    assert most_overdue(looks[:1], 2_000) is None
    assert most_overdue([], 2_000) is None
