"""Prometheus' figures: what this web did, over all its processes, and how the pipeline stands.

With PROMETHEUS_MULTIPROC_DIR set (an empty folder of this run), the processes' counters are files there and any of
them answers for all; without, each answers for itself. The pipeline's figures come from the buffer at each scrape, so
they are the same whichever process is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from models.pipeline.views import SaveResult

# A series more for each, of no use here.
disable_created_metrics()  # type: ignore[no-untyped-call]

SAVES: Final = Counter("blotter_saves", "Saved items by outcome.", ["outcome"])
REQUESTS: Final = Histogram(
    "blotter_request_seconds",
    "Time from a request's arrival in Flask to its answer.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)

#: Figure of the pipeline -> name and meaning of its gauge. Others are shown under their own names.
GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "dirtyItems": ("blotter_dirty_items", "Items accepted and not yet committed in Postgres."),
    "oldestDirtyAgeSeconds": ("blotter_oldest_dirty_age_seconds", "Age of the oldest of them."),
    "deadLetters": ("blotter_dead_letters", "Items Postgres rejected, set aside."),
    "blindConversations": ("blotter_blind_conversations", "Conversations saved without their base."),
    "hotConversations": ("blotter_hot_conversations", "Conversations in the buffer."),
    "inFlightItems": ("blotter_in_flight_items", "Items pending or streaming, or with a tool pending."),
    "pausedPartitions": ("blotter_paused_partitions", "Partitions that wait after a transient error."),
    "bufferUsedBytes": ("blotter_buffer_used_bytes", "Memory the buffer uses."),
    "bufferMaxBytes": ("blotter_buffer_max_bytes", "Memory the buffer may use."),
    "workers": ("blotter_workers", "Worker processes alive."),
    "beatAlive": ("blotter_beat_alive", "1 if beat ticks."),
    "sweepAlive": ("blotter_sweep_alive", "1 if sweeps run."),
}
#: Counter of the workers -> name and meaning.
COUNTERS: Final[Mapping[str, tuple[str, str]]] = {
    "flushes": ("blotter_flushes", "Flushes begun."),
    "rows": ("blotter_flushed_rows", "Rows committed in Postgres."),
    "batches": ("blotter_flush_batches", "Transactions committed in Postgres."),
    "buried": ("blotter_dead_lettered", "Items set aside."),
    "healed": ("blotter_healed_rows", "Rows newer in Postgres than in the buffer, adopted again."),
    "replayed": ("blotter_replayed_saves", "Blind saves replayed on their base."),
    "superseded": (
        "blotter_superseded_saves",
        "Blind saves that lost to their base when they were replayed.",
    ),
    "failed": ("blotter_failed_flushes", "Flushes ended by a transient error."),
}


def count_saves(result: SaveResult) -> None:
    """Count each item's outcome."""
    for item in result.items:
        SAVES.labels(item.outcome).inc()


class _Figures(Collector):
    """The pipeline's figures as gauges, for one scrape."""

    def __init__(self, figures: Mapping[str, Any] | None) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("blotter_buffer_up", "1 if the buffer answered this scrape.")
        up.add_metric([], 0 if self._figures is None else 1)
        yield up
        figures = self._figures or {}
        yield from (
            _single(GaugeMetricFamily, *_named(GAUGES, name), number)
            for name, value in figures.items()
            if (number := _number(value)) is not None
        )
        for name, value in figures.get("counters", {}).items():
            yield _single(CounterMetricFamily, *_named(COUNTERS, name), value)
        if flushes := figures.get("flushSeconds"):
            histogram = HistogramMetricFamily("blotter_flush_seconds", "Time of a flush.")
            buckets = [(str(bound), count) for bound, count in flushes["buckets"]]
            histogram.add_metric([], [*buckets, ("+Inf", flushes["count"])], flushes["sum"])
            yield histogram


def _named(known: Mapping[str, tuple[str, str]], name: str) -> tuple[str, str]:
    return known.get(name, (f"blotter_{_snake(name)}", "A figure of the pipeline."))


def _single(family: Any, name: str, meaning: str, value: float) -> Metric:
    metric: Metric = family(name, meaning)
    metric.add_metric([], value)  # type: ignore[attr-defined]
    return metric


def _number(value: Any) -> float | None:
    """A figure as a number: lists count, truths are 0 or 1; None for what is none (`partitions` has its own labels)."""
    if isinstance(value, list):
        return len(value) if all(isinstance(one, str) for one in value) else None
    return float(value) if isinstance(value, (bool, int, float)) else None


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name)


def exposition(figures: Mapping[str, Any] | None) -> bytes:
    """Everything in Prometheus' text format; ``figures`` None where the buffer did not answer."""
    own = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        own = CollectorRegistry()
        MultiProcessCollector(own)  # type: ignore[no-untyped-call]
    scraped = CollectorRegistry()
    scraped.register(_Figures(figures))
    return generate_latest(own) + generate_latest(scraped)
