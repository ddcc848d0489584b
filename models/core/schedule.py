"""When things happen: back-off after errors, what counts as overdue, when to evict. Times in ms; chance is passed in."""

from __future__ import annotations

from typing import Final

#: First pause of a partition after a transient error; it doubles with each further one.
PAUSE_FIRST_MS: Final = 250
#: Longest pause: how long Postgres may be back before the last partition notices.
PAUSE_MOST_MS: Final = 8_000
#: Work that lies this long past its due time was missed by bells and beat: workers fetch it themselves.
PATROL_LATE_MS: Final = 2_000
#: A look for such work.
PATROL_EVERY_MS: Final = 1_000
#: Partitions looked at a time; more are sampled, so that a look costs the same with 16 and with 1,024.
PATROL_SAMPLE: Final = 32
#: Chores of the sweep that are due once a day.
DAY_MS: Final = 86_400_000
#: How often the sweep checks the buffer's policy.
POLICY_EVERY_MS: Final = 60_000


def backoff_ms(failures: int, chance: float) -> int:
    """Pause after the ``failures``-th transient error in a row (1 …): doubled each time, then cut by up to a half.

    ``chance`` in [0, 1): partitions that failed together do not come back together.
    """
    full = min(PAUSE_MOST_MS, PAUSE_FIRST_MS << min(max(failures, 1) - 1, 16))
    return round(full * (1 - chance / 2))


def evict_after_ms(share: float, *, evict_share: float, idle_ms: int, min_idle_ms: int) -> int:
    """How long a conversation must have idled to leave, at ``share`` of maxmemory used."""
    return min_idle_ms if share > evict_share else max(idle_ms, min_idle_ms)


def sweep_claim_ms(sweep_ms: int) -> int:
    """How long a sweep counts as the latest one before a worker sweeps in beat's place."""
    return 3 * sweep_ms + 2_000


def beat_alive_ms(sweep_ms: int) -> int:
    """How long beat counts as alive after a sweep it asked for."""
    return 5 * sweep_ms + 10_000
