"""The process' figures for Prometheus."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from web.events.queues import Batch

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One process' own registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.readers = Gauge("blotter_events_readers", "Connected readers.", ["live"], registry=registry)
        self.watchers = Gauge("blotter_events_watchers", "Watched conversations.", registry=registry)
        self.listening = Gauge("blotter_events_listening", "1 while hints arrive.", registry=registry)
        self.hints = Counter("blotter_events_hints", "Hints about watched conversations.", registry=registry)
        self.batches = Counter("blotter_events_batches", "Batches told to readers.", registry=registry)
        self.bytes = Counter("blotter_events_bytes", "Bytes of events handed to readers.", registry=registry)
        self.dropped = Counter(
            "blotter_events_dropped", "Readers that fell behind and were ended.", registry=registry
        )
        self.faults = Counter("blotter_events_faults", "Reads that failed.", ["error"], registry=registry)
        self.requests = Counter(
            "blotter_events_requests", "Answers by mode and status.", ["live", "status"], registry=registry
        )
        self.delay = Histogram(
            "blotter_events_delay_seconds", "From a save to its readers.", registry=registry, buckets=_BUCKETS
        )

    def sent(self, batch: Batch, readers: int) -> None:
        """Note a batch told to ``readers``."""
        self.batches.inc()
        self.bytes.inc(len(batch.events) * readers)
        # Versions are microseconds; only changes have them, commits keep theirs.
        if batch.start is not None and batch.end is not None and batch.start.version != batch.end.version:
            self.delay.observe(max(0.0, time.time() - batch.end.version / 1e6))

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
