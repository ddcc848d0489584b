"""Samples over time: rates, quantiles, and what says nothing."""

from __future__ import annotations

import pytest

from models.core import series
from models.core.series import ACK_BOUNDS_S, Between, Sample, between, quantile, since

FLUSH_BOUNDS_S = (0.1, 1.0)


def acks(**by_bucket: int) -> tuple[int, ...]:
    return tuple(by_bucket.get(f"b{i}", 0) for i in range(len(ACK_BOUNDS_S) + 1))


def test_rates_and_coalescing_lie_between_two_samples() -> None:
    first = Sample(at_ms=10_000, saves=100, rows=10, acks=acks(b3=50), flushes=(1, 0, 0))
    last = Sample(at_ms=20_000, saves=600, rows=60, acks=acks(b3=50, b5=100), flushes=(1, 4, 0))
    found = between(first, last, FLUSH_BOUNDS_S)
    assert (found.saves_per_second, found.rows_per_second, found.coalescing) == (50.0, 5.0, 10.0)
    assert found.ack_p50_seconds == pytest.approx((ACK_BOUNDS_S[4] + ACK_BOUNDS_S[5]) / 2)
    assert found.flush_p99_seconds == pytest.approx(0.1 + 0.9 * 0.99)


def test_nothing_is_said_of_an_idle_interval_nor_of_one_in_which_the_buffer_was_emptied() -> None:
    idle = between(Sample(at_ms=1, saves=5, rows=5), Sample(at_ms=10_001, saves=5, rows=5), FLUSH_BOUNDS_S)
    assert idle == Between(saves_per_second=0.0, rows_per_second=0.0)
    emptied = between(Sample(at_ms=1, saves=5, rows=5), Sample(at_ms=10_001, saves=1), FLUSH_BOUNDS_S)
    assert emptied == Between()
    assert between(Sample(at_ms=7, saves=1), Sample(at_ms=7, saves=2), FLUSH_BOUNDS_S) == Between()


def test_counters_that_began_within_the_interval_count_from_zero() -> None:
    found = between(Sample(at_ms=1), Sample(at_ms=10_001, saves=2, acks=acks(b0=2)), FLUSH_BOUNDS_S)
    assert found.ack_p99_seconds == pytest.approx(0.0005 * 0.99)


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ((0, 0, 0), 0.5, None),
        ((), 0.5, None),
        ((10, 0, 0), 0.5, 0.5),
        ((0, 10, 0), 1.0, 2.0),
        ((5, 5, 0), 0.5, 1.0),
        ((0, 0, 3), 0.5, 2.0),
        ((3, -1, 0), 0.5, None),
    ],
)
def test_quantiles_are_prometheus_own(counts: tuple[int, ...], share: float, expected: float | None) -> None:
    assert quantile((1.0, 2.0), counts, share) == expected


def test_a_time_on_a_bound_belongs_below_it_as_le_says() -> None:
    assert [series.bucket_of(s) for s in (0.0, 0.0005, 0.0006, 10.0, 11.0)] == [0, 0, 1, 15, 16]


def test_recent_is_the_last_minute_or_what_there_is() -> None:
    samples = [Sample(at_ms=at) for at in (10_000, 20_000, 90_000)]
    assert since(samples, 100_000) == samples[2]
    assert since(samples, 75_000) == samples[1]
    assert since(samples[:2], 500_000) == samples[1]
    assert since([], 5) is None


def test_samples_of_another_version_are_read_as_far_as_they_go_and_rubbish_is_left_out() -> None:
    kept = Sample(at_ms=5, saves=3, acks=(1, 2), buffer_write_seconds=0.25)
    assert series.decode(series.encode(kept)) == kept
    assert series.decode(b'{"atMs":7,"of tomorrow":[]}') == Sample(at_ms=7)
    assert series.decode(b"{") is None
    assert series.decode(b'{"atMs":"x"}') is None


def test_an_hour_of_busy_samples_takes_little_of_the_buffer() -> None:
    most = Sample(
        at_ms=1 << 41, saves=1 << 50, rows=1 << 50, acks=(1 << 45,) * 17, flushes=(1 << 45,) * 12,
        dirty_items=1 << 30, oldest_dirty_age_seconds=12345.678, late_seconds=12345.678, in_flight_items=1 << 30,
        hot_conversations=1 << 30, blind_conversations=1 << 30, dead_letters=1 << 30, workers=1 << 20,
        buffer_used_bytes=1 << 45, buffer_write_seconds=0.0123456,
    )  # fmt: skip
    assert len(series.encode(most)) * series.KEPT < 400_000
