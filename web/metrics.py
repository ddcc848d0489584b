"""Prometheus' figures: what this web did, over all its processes, and how the pipeline stands.

With PROMETHEUS_MULTIPROC_DIR set (an empty folder of this run), the processes' counters are files there and any of
them answers for all; without, each answers for itself. The pipeline's figures come from the buffer at each scrape, so
they are the same whichever process is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from models.pipeline.views import SaveResult

SAVES: Final = Counter("blotter_saves", "Saved items by outcome.", ["outcome"])
REQUESTS: Final = Histogram(
    "blotter_request_seconds",
    "Time from a request's arrival in Flask to its answer.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)

#: Figure of the pipeline -> name and meaning of its gauge.
GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "dirtyItems": ("blotter_dirty_items", "Items accepted and not yet committed in Postgres."),
    "oldestDirtyAgeSeconds": ("blotter_oldest_dirty_age_seconds", "Age of the oldest of them, since it was due."),
    "deadLetters": ("blotter_dead_letters", "Items Postgres rejected, set aside."),
    "blindConversations": ("blotter_blind_conversations", "Conversations saved without their base."),
    "hotConversations": ("blotter_hot_conversations", "Conversations in the buffer."),
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
        for figure, value in _numbers(self._figures or {}):
            name, meaning = GAUGES.get(figure, (f"blotter_{_snake(figure)}", "A figure of the pipeline."))
            gauge = GaugeMetricFamily(name, meaning)
            gauge.add_metric([], value)
            yield gauge


def _numbers(figures: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    return (
        (name, float(value))
        for name, value in figures.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    )


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
