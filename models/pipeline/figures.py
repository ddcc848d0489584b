"""The pipeline's figures, for /api/status, /metrics and the operators' page.

Gauges are counted in the buffer when asked for. What workers did (flushes, rows, seconds) they add to one hash in the
buffer, one script call a flush: worker processes come and go, serve no HTTP, and their figures would die with them in
files of the Prometheus client. An emptied buffer starts them at zero, which every reader of counters takes for a restart.
What web processes acknowledged they add to the same hash every few seconds (web/ops/tally.py), for the graphs; /metrics
has its own, exact counts of that.

Every ten seconds one sweep keeps a sample of the figures in the buffer, an hour of them (about 150 KB), so that every web
process draws the same graphs and a restart of all of them loses none. The write that takes the turn is timed: it is
answered after the append-only file has it, so its time is what the file costs every save just now.

``oldestDirtyAgeSeconds`` is the age of the oldest change accepted and not yet committed, looked up in the row that is most
overdue in each partition (rows due later may be a little older, at most by the autosave time), and of the oldest blind
save. Dead letters are not in it: they have a figure of their own and would hide everything else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from redis.exceptions import RedisError

from models.buffer import keys
from models.buffer.buffer import Buffer
from models.buffer.partitions import Partitions
from models.buffer.scripts import translate
from models.core import series
from models.core.series import Sample
from models.pipeline.pressure import memory_of

#: Upper bounds of the histogram of flushes, ms.
FLUSH_BUCKETS_MS: Final = (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
FLUSH_BOUNDS_S: Final = tuple(bound / 1000 for bound in FLUSH_BUCKETS_MS)
_FLUSH_FIELDS: Final = (*(f"flush_le_{bound}" for bound in FLUSH_BUCKETS_MS), "flush_le_inf")
#: Counters that are told as histograms, or only drawn.
_HIDDEN: Final = ("flush_", "ack_")


class Measured(NamedTuple):
    """The figures, and the same moment as a sample."""

    figures: dict[str, Any]
    sample: Sample


def ack_counters(saves: int, acks: Mapping[int, int]) -> dict[str, int]:
    """What a web process adds to the counters: items saved, and answers by bucket (series.bucket_of)."""
    return {"ack_saves": saves, **{f"ack_le_{bucket}": count for bucket, count in acks.items()}}


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
    return measure(buffer, Partitions(buffer)).figures


def keep(buffer: Buffer, partitions: Partitions) -> bool:
    """Take a sample and keep it, unless somebody did so lately. Raises BufferUnavailable."""
    began_s = time.perf_counter()
    # A little less than the interval: sweeps come every second, and the tenth must find the turn free.
    if not partitions.claim(keys.SAMPLED, series.EVERY_MS - 100):
        return False
    write_s = time.perf_counter() - began_s
    partitions.keep_sample(series.encode(measure(buffer, partitions, write_s).sample), series.KEPT)
    return True


def history(partitions: Partitions) -> list[Sample]:
    """The samples of the last hour, oldest first. Raises BufferUnavailable."""
    found = [series.decode(raw) for raw in partitions.samples(series.KEPT)]
    return [sample for sample in reversed(found) if sample is not None]


def measure(buffer: Buffer, partitions: Partitions, write_s: float | None = None) -> Measured:
    """Look at everything once. ``write_s``: how long a write just took, where one was timed; else the last sample's.

    Raises BufferUnavailable.
    """
    now_ms = partitions.now_ms()
    counts = partitions.counts()
    since = partitions.dirty_since({c.number: c.first for c in counts if c.first is not None})
    since_all = [*since.values(), *(c.blind_since_ms for c in counts if c.blind)]
    info = _info(buffer)
    memory = memory_of(info)
    counters = partitions.counters()
    beat_ms, sweep_ms, set_back_ms = partitions.said_ms(keys.BEAT, keys.SWEEP, keys.SET_BACK)
    if write_s is None:
        last = [series.decode(raw) for raw in partitions.samples(1)]
        write_s = last[0].buffer_write_seconds if last and last[0] is not None else 0.0
    late_s = {c.number: _seconds(now_ms - c.first_due_ms) if c.first is not None else 0.0 for c in counts}
    found: dict[str, Any] = {
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
        "beatAlive": beat_ms is not None,
        "sweepAlive": sweep_ms is not None,
        "storeSetBack": set_back_ms is not None,
        "beatAgeSeconds": None if beat_ms is None else _seconds(now_ms - beat_ms),
        "sweepAgeSeconds": None if sweep_ms is None else _seconds(now_ms - sweep_ms),
        "lateSeconds": max(late_s.values()),
        "bufferWriteSeconds": write_s,
        "aofWritable": info.get("aof_last_write_status", "ok") == "ok",
        "counters": {
            **{name: n for name, n in sorted(counters.items()) if not name.startswith(_HIDDEN)},
            "delayedFsyncs": int(info.get("aof_delayed_fsync", 0)),
        },
        "flushSeconds": flush_histogram(counters),
        "partitions": [
            {
                "partition": c.number,
                "due": c.due,
                "deadLetters": c.dead,
                "blind": c.blind,
                "hot": c.hot,
                "inFlight": c.open,
                "lateSeconds": late_s[c.number],
                "flushing": c.leased,
                "paused": c.paused,
            }
            for c in counts
        ],
    }
    sample = Sample(
        at_ms=now_ms,
        saves=counters.get("ack_saves", 0),
        rows=counters.get("rows", 0),
        acks=tuple(counters.get(f"ack_le_{i}", 0) for i in range(len(series.ACK_BOUNDS_S) + 1)),
        flushes=tuple(counters.get(name, 0) for name in _FLUSH_FIELDS),
        dirty_items=found["dirtyItems"],
        oldest_dirty_age_seconds=found["oldestDirtyAgeSeconds"],
        late_seconds=found["lateSeconds"],
        in_flight_items=found["inFlightItems"],
        hot_conversations=found["hotConversations"],
        blind_conversations=found["blindConversations"],
        dead_letters=found["deadLetters"],
        workers=len(found["workers"]),
        buffer_used_bytes=memory.used,
        buffer_write_seconds=write_s,
    )
    return Measured(found, sample)


def _info(buffer: Buffer) -> Mapping[str, Any]:
    try:
        found: dict[str, Any] = buffer.client.info("memory", "persistence")
    except RedisError as error:
        raise translate(error) from error
    return found


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
