"""The last hour as figures over time: what the operators' page draws. Pure; samples in, numbers out.

A sample is what one sweep found: gauges as they were, counters since the buffer was last empty. Rates and quantiles lie
between two samples. A counter that fell back (an emptied buffer) says nothing: there is no number for that interval.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import msgspec

#: How often a sample is taken, and how many are kept: an hour.
EVERY_MS: Final = 10_000
KEPT: Final = 360
#: The figures that stand beside the graphs look back this far.
RECENT_MS: Final = 60_000
#: Upper bounds of the acknowledgements' histogram, s; one count more for what is slower.
ACK_BOUNDS_S: Final = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
)  # fmt: skip


class Sample(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Counters: ``saves``, ``rows``, ``acks`` and ``flushes`` (by bucket, not cumulative). The rest are gauges.

    Every field has a default: while programs of two versions run, each reads the other's samples.
    """

    at_ms: int = 0
    saves: int = 0
    rows: int = 0
    acks: tuple[int, ...] = ()
    flushes: tuple[int, ...] = ()
    dirty_items: int = 0
    oldest_dirty_age_seconds: float = 0.0
    late_seconds: float = 0.0
    in_flight_items: int = 0
    hot_conversations: int = 0
    blind_conversations: int = 0
    dead_letters: int = 0
    workers: int = 0
    buffer_used_bytes: int = 0
    buffer_write_seconds: float = 0.0


class Between(msgspec.Struct, frozen=True, rename="camel"):
    """What happened between two samples; None where nothing did, or nobody can tell. Seconds."""

    saves_per_second: float | None = None
    rows_per_second: float | None = None
    coalescing: float | None = None
    ack_p50_seconds: float | None = None
    ack_p99_seconds: float | None = None
    flush_p99_seconds: float | None = None


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Sample)


def encode(sample: Sample) -> bytes:
    """As it is kept."""
    return _encode(sample)


def decode(raw: bytes) -> Sample | None:
    """None for what is no sample of ours: it is left out."""
    try:
        return _decoder.decode(raw)
    except msgspec.MsgspecError:
        return None


def bucket_of(seconds: float) -> int:
    """The index in ``acks`` of an acknowledgement that took so long."""
    return bisect_left(ACK_BOUNDS_S, seconds)


def between(first: Sample, last: Sample, flush_bounds_s: Sequence[float]) -> Between:
    """Rates and quantiles from ``first`` to ``last``."""
    seconds = (last.at_ms - first.at_ms) / 1000
    saves, rows = last.saves - first.saves, last.rows - first.rows
    if seconds <= 0 or saves < 0 or rows < 0:
        return Between()
    acks = _grown(first.acks, last.acks)
    flushes = _grown(first.flushes, last.flushes)
    return Between(
        saves_per_second=saves / seconds,
        rows_per_second=rows / seconds,
        coalescing=saves / rows if rows else None,
        ack_p50_seconds=quantile(ACK_BOUNDS_S, acks, 0.5),
        ack_p99_seconds=quantile(ACK_BOUNDS_S, acks, 0.99),
        flush_p99_seconds=quantile(flush_bounds_s, flushes, 0.99),
    )


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """The value below which ``share`` of all lie, straight between a bucket's bounds, as Prometheus' histogram_quantile.

    ``counts``: one for each bound and one for what lies above them all, which counts as the highest bound. None: empty.
    """
    total = sum(counts)
    if total <= 0 or min(counts) < 0:
        return None
    wanted, below, lower = share * total, 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below, lower = below + count, bound
    return bounds[-1]


def since(samples: Sequence[Sample], now_ms: int, span_ms: int = RECENT_MS) -> Sample | None:
    """The oldest sample of the last ``span_ms``; where there is none so young, the youngest. ``samples``: oldest first."""
    young = [sample for sample in samples if now_ms - span_ms <= sample.at_ms < now_ms]
    return young[0] if young else (samples[-1] if samples else None)


def _grown(first: Sequence[int], last: Sequence[int]) -> list[int]:
    if len(first) != len(last):
        return list(last) if not first else []
    return [b - a for a, b in zip(first, last, strict=True)]
