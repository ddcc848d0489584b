"""The pipeline's figures, for /api/status, /metrics and the operators' page.

Gauges are counted in the buffer when asked for. What workers did (flushes, rows, seconds) they add to one hash in the
buffer, one script call a flush: worker processes come and go, serve no HTTP, and their figures would die with them in
files of the Prometheus client. An emptied buffer starts them at zero, which every reader of counters takes for a restart.

``oldestDirtyAgeSeconds`` is the age of the oldest change accepted and not yet committed, looked up in the row that is most
overdue in each partition (rows due later may be a little older, at most by the autosave time), and of the oldest blind
save. Dead letters are not in it: they have a figure of their own and would hide everything else.
"""

from __future__ import annotations

from typing import Any, Final

from models.buffer import keys
from models.buffer.buffer import Buffer
from models.buffer.partitions import Partitions
from models.pipeline import pressure

#: Upper bounds of the histogram of flushes, ms.
FLUSH_BUCKETS_MS: Final = (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)


def flush_counters(
    micros: int, *, rows: int, batches: int, buried: int, healed: int, replayed: int, failed: int
) -> dict[str, int]:
    """What one flush adds to the counters."""
    counts = {
        "flushes": 1,
        "flush_micros": micros,
        "rows": rows,
        "batches": batches,
        "buried": buried,
        "healed": healed,
        "replayed": replayed,
        "failed": failed,
    }
    bound = next((bound for bound in FLUSH_BUCKETS_MS if micros <= bound * 1000), None)
    counts[f"flush_le_{bound if bound is not None else 'inf'}"] = 1
    return {name: count for name, count in counts.items() if count}


def figures(buffer: Buffer) -> dict[str, Any]:
    """All figures, camelCase; numbers at the top level are gauges. Raises BufferUnavailable."""
    partitions = Partitions(buffer)
    now_ms = partitions.now_ms()
    counts = partitions.counts()
    since = partitions.dirty_since({c.number: c.first for c in counts if c.first is not None})
    since_all = [*since.values(), *(c.blind_since_ms for c in counts if c.blind)]
    memory = pressure.memory(buffer.client)
    counters = partitions.counters()
    return {
        "dirtyItems": sum(c.due + c.dead for c in counts),
        "oldestDirtyAgeSeconds": _seconds(now_ms - min(since_all)) if since_all else 0.0,
        "deadLetters": sum(c.dead for c in counts),
        "blindConversations": sum(c.blind for c in counts),
        "hotConversations": sum(c.hot for c in counts),
        "inFlightItems": sum(c.open for c in counts),
        "pausedPartitions": sum(c.paused for c in counts),
        "bufferUsedBytes": memory.used,
        "bufferMaxBytes": memory.most,
        "workers": partitions.workers(now_ms),
        "beatAlive": partitions.stands(keys.BEAT),
        "sweepAlive": partitions.stands(keys.SWEEP),
        "counters": {name: n for name, n in sorted(counters.items()) if not name.startswith("flush_")},
        "flushSeconds": flush_histogram(counters),
        "partitions": [
            {
                "partition": c.number,
                "due": c.due,
                "deadLetters": c.dead,
                "blind": c.blind,
                "hot": c.hot,
                "inFlight": c.open,
                "lateSeconds": _seconds(now_ms - c.first_due_ms) if c.first is not None else 0.0,
                "flushing": c.leased,
                "paused": c.paused,
            }
            for c in counts
        ],
    }


def flush_histogram(counters: dict[str, int]) -> dict[str, Any]:
    """``buckets``: [upper bound in s, flushes up to it], cumulative as Prometheus has them; ``sum`` in s; ``count``."""
    total, buckets = 0, []
    for bound in FLUSH_BUCKETS_MS:
        total += counters.get(f"flush_le_{bound}", 0)
        buckets.append([bound / 1000, total])
    return {
        "buckets": buckets,
        "sum": counters.get("flush_micros", 0) / 1_000_000,
        "count": counters.get("flushes", 0),
    }


def _seconds(ms: int) -> float:
    return max(0, ms) / 1000
