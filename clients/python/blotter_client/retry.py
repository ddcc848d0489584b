"""When to try again, as values: exponential backoff with full jitter, never sooner than Retry-After, patience in seconds.

Every save may be sent twice: an append names its offset, a heartbeat and a part say the same again, a put of equal
content is a duplicate. So "the outcome is unknown" is a reason to repeat, like a refusal that passes. Backoff as in
Marc Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from blotter_client.errors import ApiError, BlotterError, NotReached, Unreachable

#: Answers that say "later": timeouts, too early, too many. So do all above 499 (the server's troubles, or those of a proxy
#: before it, which has numbers of its own), but for what will never be done.
PASSING: Final = frozenset({408, 425, 429})
NEVER: Final = frozenset({501, 505})
#: Longest time a Retry-After is believed, s: more is a mistake or a siege.
LONGEST_WAIT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``patience_s``: from the first try to the start of the last; ``base_s`` doubles to ``cap_s``."""

    base_s: float = 0.1
    cap_s: float = 5.0
    patience_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.base_s <= self.cap_s or self.patience_s < 0:
            raise ValueError("RetryPolicy: 0 < base_s <= cap_s and patience_s >= 0")


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after ``wait_s`` seconds."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not; ``why``: `final` (another try changes nothing) or `patience` (time is up)."""

    why: str


def decide(
    policy: RetryPolicy, failure: BlotterError, *, tries: int, elapsed_s: float, chance: float
) -> Again | GiveUp:
    """What to do after the ``tries``-th try failed, ``elapsed_s`` after the first began. ``chance``: 0 … 1, random."""
    if isinstance(failure, ApiError):
        if failure.status not in PASSING and (failure.status < 500 or failure.status in NEVER):
            return GiveUp("final")
        least_s = min(failure.retry_after_s or 0.0, LONGEST_WAIT_S)
    elif isinstance(failure, NotReached):
        return GiveUp("final")
    elif isinstance(failure, Unreachable):
        least_s = 0.0
    else:
        return GiveUp("final")
    # 2^40 tenths of a second are beyond any cap; the exponent stays a number.
    jitter_s = chance * min(policy.cap_s, policy.base_s * 2.0 ** min(tries - 1, 40))
    wait_s = least_s + jitter_s
    return Again(wait_s) if elapsed_s + wait_s <= policy.patience_s else GiveUp("patience")


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds a Retry-After header asks for: a number, or a date seen from ``now`` (aware); None where it is neither."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())
