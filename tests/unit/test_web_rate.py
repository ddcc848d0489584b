"""An owner's requests a minute, and preferences to wait."""

from __future__ import annotations

import pytest

from web.prefer import Waiters, wait_asked
from web.problems import Problem
from web.rate import OwnerRate


class Clock:
    now = 600.0

    def __call__(self) -> float:
        return self.now


def spent(rate: OwnerRate, owner: str = "ann", tries: int = 100) -> int:
    for count in range(tries):
        try:
            rate.spend(owner)
        except Problem:
            return count
    return tries


def test_an_owner_has_so_many_requests_and_others_have_their_own() -> None:
    rate = OwnerRate(10, Clock())
    assert spent(rate) == 10
    assert spent(rate, "bob") == 10


def test_zero_means_no_limit() -> None:
    assert spent(OwnerRate(0, Clock()), tries=1000) == 1000


def test_no_double_burst_around_the_turn_of_a_minute() -> None:
    clock = Clock()
    rate = OwnerRate(10, clock)
    clock.now = 659.0
    assert spent(rate) == 10
    clock.now = 660.1
    assert spent(rate) <= 1
    clock.now = 690.0
    assert spent(rate) <= 5
    clock.now = 781.0
    assert spent(rate) == 10


@pytest.mark.parametrize(("early", "late"), [(10, 0), (0, 10), (5, 5)])
def test_after_the_time_told_one_more_fits(early: int, late: int) -> None:
    clock = Clock()
    rate = OwnerRate(10, clock)
    for at, count in ((640.0, early), (661.0, late)):
        clock.now = at
        spent(rate, tries=count)
    clock.now = 662.5
    spent(rate)
    with pytest.raises(Problem) as refused:
        rate.spend("ann")
    assert (refused.value.kind.status, refused.value.extra["limit"]) == (429, 10)
    wait_s = int(refused.value.headers["Retry-After"])
    assert 1 <= wait_s <= 61
    clock.now += wait_s
    rate.spend("ann")


@pytest.mark.parametrize("sizes", [[10], [9, 30], [100], [1] * 10, [3, 3, 3, 3]])
def test_amounts_add_up_and_after_the_time_told_more_fits(sizes: list[int]) -> None:
    """The last may go beyond the limit; then longer is to be waited."""
    clock = Clock()
    rate = OwnerRate(10, clock, unit="bytes")
    for size in sizes:
        rate.spend("ann", size)
    with pytest.raises(Problem, match="rate-limited") as refused:
        rate.spend("ann", 1)
    assert refused.value.detail == "More than 10 bytes in a minute."
    clock.now += int(refused.value.headers["Retry-After"])
    rate.spend("ann", 1)


def test_who_stays_away_is_forgotten() -> None:
    clock = Clock()
    rate = OwnerRate(10, clock)
    for number in range(1000):
        rate.spend(str(number))
    for _ in range(3):
        clock.now += 60
        rate.spend("ann")
    assert len(rate._this) + len(rate._last) == 2


@pytest.mark.parametrize(("header", "ms"), [
    (None, 0), ("", 0), ("wait=3", 3000), ("Wait=3", 3000), ("wait=99", 10_000), ("wait=0", 0), ("wait=-1", 0),
    ("wait=1.5", 0), ("wait", 0), ("wait=x", 0), ('wait="4"', 4000), ("respond-async, wait=5", 5000),
    ("wait=5; foo=bar", 5000), ("wait = 5", 5000), ("waiting=5", 0), ("wait=٣", 0), ("wait=99999999999", 0),
])  # fmt: skip
def test_prefer_wait_is_read_as_rfc_7240_says(header: str | None, ms: int) -> None:
    assert wait_asked(header) == ms


def test_waiters_hold_no_more_than_their_places() -> None:
    waiters = Waiters(2)
    with waiters.place() as one, waiters.place() as two, waiters.place() as three:
        assert (one, two, three) == (True, True, False)
    with waiters.place() as again:
        assert again
    with Waiters(0).place() as none:
        assert not none
