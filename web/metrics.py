"""Prometheus' figures: what this web did, over all its processes, and how the pipeline stands.

With PROMETHEUS_MULTIPROC_DIR set (an empty folder of this run), the processes' counters are files there and any of
them answers for all; without, each answers for itself. The pipeline's figures come from the buffer at each scrape, so
they are the same whichever process is asked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flask import g, has_request_context
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

from models.core.series import ACK_BOUNDS_S
from models.pipeline.views import SaveResult

if TYPE_CHECKING:
    from web.ops.around import States

# A series more for each, of no use here.
disable_created_metrics()  # type: ignore[no-untyped-call]

#: Bytes on the disk for each file of a process's counts: a hundred routes and statuses. A process that ends leaves its files.
RESERVED: Final = 1 << 18


def _reserve(folder: str | None) -> None:
    """Give this process's files their room while there is some. They are written through memory: on a full disk, the first
    touch of a page that has no block yet would kill the process (SIGBUS) instead of raising an error.
    """
    for kind in ("counter", "histogram") if folder else ():
        with Path(str(folder), f"{kind}_{os.getpid()}.db").open("ab") as file:
            if file.tell() == 0:
                file.write(bytes(RESERVED))


_reserve(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))

SAVES: Final = Counter("blotter_saves", "Saved items by outcome.", ["outcome"])
REQUESTS: Final = Histogram(
    "blotter_request_seconds",
    "Time from a request's arrival in Flask to its answer.",
    ["method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
ACKS: Final = Histogram(
    "blotter_acknowledgement_seconds",
    "Time from a save's arrival in Flask to its acknowledgement from the buffer; without those that waited for Postgres.",
    buckets=ACK_BOUNDS_S,
)
#: Without labels, so it is there from the start: an alert on its growth sees the first fault.
FAULTS: Final = Counter("blotter_faults", "Requests that ended in a fault of ours.")

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
    "storeSetBack": (
        "blotter_store_set_back",
        "1 if Postgres was found to lack what it had committed, until `blotter verify --repair`.",
    ),
    "beatAgeSeconds": (
        "blotter_beat_age_seconds",
        "Since a sweep that beat asked for; absent while beat is away.",
    ),
    "sweepAgeSeconds": ("blotter_sweep_age_seconds", "Since the last sweep; absent while nobody sweeps."),
    "lateSeconds": ("blotter_late_seconds", "How long the most overdue row of any partition is overdue."),
    "bufferWriteSeconds": (
        "blotter_buffer_write_seconds",
        "Time of a small write to the buffer, until its append-only file has it; timed every ten seconds.",
    ),
    "aofWritable": ("blotter_buffer_aof_writable", "1 if the last write to the append-only file went well."),
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
    "rung": ("blotter_swept_bells", "Partitions that a sweep found overdue and rang."),
    "settled": ("blotter_settled_items", "Items that fell silent in flight, settled as interrupted."),
    "evicted": ("blotter_evicted_conversations", "Idle conversations that left the buffer."),
    "strays": ("blotter_stray_conversations", "Conversations adopted to settle what was left in flight."),
    "purged": ("blotter_purged_rows", "Old tombstones removed from Postgres."),
    "delayedFsyncs": (
        "blotter_buffer_delayed_fsyncs",
        "Writes that waited for an fsync under way (everysec).",
    ),
}
#: What stands around the buffer -> name and meaning of its gauge.
UP: Final[Mapping[str, tuple[str, str]]] = {
    "store": (
        "blotter_store_up",
        "1 if Postgres answered, at most three seconds ago, with this code's schema.",
    ),
    "broker": ("blotter_broker_up", "1 if the broker answered."),
    "faults": (
        "blotter_buffer_policy_faults",
        "Settings of the buffer's server that keep it from keeping things, and a layout that this web does not know.",
    ),
}
#: Gauge of each partition -> name and meaning.
OF_PARTITIONS: Final[Mapping[str, tuple[str, str]]] = {
    "due": ("blotter_partition_due_items", "Items of a partition not yet committed in Postgres."),
    "lateSeconds": ("blotter_partition_late_seconds", "How long its most overdue row is overdue."),
    "deadLetters": ("blotter_partition_dead_letters", "Items of a partition that Postgres rejected."),
}


def count_saves(result: SaveResult) -> None:
    """Count each item's outcome."""
    for item in result.items:
        SAVES.labels(item.outcome).inc()
    if has_request_context():
        g.saves = g.get("saves", 0) + sum(item.outcome == "accepted" for item in result.items)


def acknowledged(began: float | None) -> float:
    """Note that a save was acknowledged that began then (time.perf_counter); how long it took, s."""
    seconds = 0.0 if began is None else time.perf_counter() - began
    ACKS.observe(seconds)
    return seconds


class _Figures(Collector):
    """The pipeline's figures as gauges, for one scrape."""

    def __init__(self, figures: Mapping[str, Any] | None, states: States | None) -> None:
        self._figures = figures
        self._states = states

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("blotter_buffer_up", "1 if the buffer answered this scrape.")
        up.add_metric([], 0 if self._figures is None else 1)
        yield up
        if self._states is not None:
            yield _single(GaugeMetricFamily, *UP["store"], self._states.store == "ok")
            yield _single(GaugeMetricFamily, *UP["broker"], self._states.broker == "ok")
            yield _single(
                GaugeMetricFamily, *UP["faults"], len(self._states.faults) + (self._states.layout is not None)
            )
        figures = self._figures or {}
        yield from (
            _single(GaugeMetricFamily, *_named(GAUGES, name), number)
            for name, value in figures.items()
            if (number := _number(value)) is not None
        )
        # Those that never counted are zero, not absent: an alert on their growth must see the first step.
        counters = {name: 0 for name in COUNTERS if figures} | figures.get("counters", {})
        for name, value in counters.items():
            yield _single(CounterMetricFamily, *_named(COUNTERS, name), value)
        for name, (metric, meaning) in OF_PARTITIONS.items():
            if partitions := figures.get("partitions"):
                family = GaugeMetricFamily(metric, meaning, labels=["partition"])
                for one in partitions:
                    family.add_metric([str(one["partition"])], one[name])
                yield family
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


def exposition(figures: Mapping[str, Any] | None, states: States | None = None) -> bytes:
    """Everything in Prometheus' text format; ``figures`` None where the buffer did not answer."""
    own = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        own = CollectorRegistry()
        MultiProcessCollector(own)  # type: ignore[no-untyped-call]
    scraped = CollectorRegistry()
    scraped.register(_Figures(figures, states))
    return generate_latest(own) + generate_latest(scraped)
