"""Computes deploy/SCALING.md, and its plots, from the figures of `make bench`.

    python -m deploy.scaling                 write SCALING.md and plots/*.svg anew (the plots: after `make bench-env`)
    python -m deploy.scaling --from FILE     the same, from the JSON document of another run of `make bench --json FILE`
    python -m deploy.scaling --check         write nothing; exit code 1 where SCALING.md is not what would be written

A part's capacity is what was measured, times HEADROOM; what nobody measured stands below as an assumption, with its name in
the document. Parts scale by number: the model knows no cost that grows with the square of anything.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
BENCHMARKS: Final = HERE / "benchmarks.json"
DOCUMENT: Final = HERE.parent / "SCALING.md"
PLOTS: Final = HERE / "plots"
#: matplotlib lives in the environment of the benchmarks (`make bench-env`).
PYTHON: Final = HERE.parents[1] / "build" / "bench" / "venv" / "bin" / "python"

STREAMS: Final = (10**4, 10**6, 10**8)

# ---------------------------------------------------------------- the load
TOKENS_A_SECOND: Final = 30
CHARACTERS_A_TOKEN: Final = 4
CHARACTERS_A_SAVE: Final = 100
CHARACTERS_A_REPLY: Final = 4_000
#: Items of a conversation when a reply begins, and their mean size: what is loaded and stays hot with it.
HISTORY_ITEMS: Final = 20
HISTORY_CHARACTERS: Final = 1_000

# ---------------------------------------------------------------- assumptions
#: Of what was measured at saturation, what a part is given to do.
HEADROOM: Final = 0.6
#: Of the CPU of a save, where the benchmark does not tell it apart (tests/bench/README.md, profile: 410 of 1,777 µs).
VALKEY_SHARE: Final = 0.23
#: Bytes a save of 100 characters costs in the buffer while its conversation's base is out of reach: image and journal.
#: Measured once: 200 conversations of 40 appends, used_memory before and after.
BLIND_BYTES_A_SAVE: Final = 457
#: Memory of one buffer node (maxmemory), and the shares of it that settings give by default.
NODE_BYTES: Final = 64 * 1024**3
EVICT_SHARE, REFUSE_SHARE = 0.6, 0.8
#: A conversation that idles stays hot at least so long, and at most.
MIN_IDLE_S, IDLE_S = 60, 900
#: WAL that one Postgres server writes for long, with its replicas, bytes/s.
WAL_BYTES_A_SECOND: Final = 100 * 10**6
#: BLOTTER_PARTITIONS at most; processes that flush, at most, for three partitions; partitions that a node has at least.
PARTITIONS: Final = 1_024
PROCESSES_A_PARTITION: Final = 2 / 3
PARTITIONS_A_NODE: Final = 4
#: BLOTTER_EVENTS_CONNECTIONS.
READERS_A_PROCESS: Final = 5_000
OUTAGE_S: Final = 600
#: Intervals of an open item's flushes, s: doubled from the first to the last (BLOTTER_STREAM_FLUSH_SECONDS, …_AUTOSAVE_…).
FIRST_FLUSH_S, LONGEST_FLUSH_S = 1, 30


@dataclass(frozen=True)
class Measured:
    """What the benchmarks say. µs of CPU a save; rows a second; bytes."""

    web_us: float
    valkey_us: float
    rows_a_worker: float
    rows_a_postgres: float
    wal_a_reply: float
    item_bytes: float
    unstored_item_bytes: float
    source: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Measured:
        """From a document of `make bench`. Raises KeyError where a figure is not in it."""

        def figure(row: int, begins: str = "") -> Mapping[str, Any]:
            for found in document["figures"]:
                if found["row"] == row and found["name"].startswith(begins) and not found["skipped"]:
                    return dict(found)
            raise KeyError(f"row {row} {begins}")

        append = figure(8, "CPU per appended 1,000 characters, content")
        told = append["notes"].get("µs an append")
        whole = append["b"] / 10
        drain, upsert, item = figure(5, "drain"), figure(4, "upsert"), figure(10)
        machine = document["machine"]
        return cls(
            web_us=told["web"] if told else whole * (1 - VALKEY_SHARE),
            valkey_us=told["Valkey"] if told else whole * VALKEY_SHARE,
            rows_a_worker=drain["a"] / drain["notes"]["processes"],
            rows_a_postgres=upsert["a"],
            wal_a_reply=figure(6)["a"],
            item_bytes=item["value"],
            unstored_item_bytes=item["notes"]["not yet stored"],
            source=f"{document['began'][:10]}, {machine['cpu']}, {machine['cores']} cores",
        )


@dataclass(frozen=True)
class Part:
    """One kind of part: streams that one of it carries, and what ends first with them."""

    name: str
    streams: float
    limit: str


class Model:
    """The load of one stream, and what carries how many."""

    def __init__(self, measured: Measured) -> None:
        self.measured = measured
        self.characters = TOKENS_A_SECOND * CHARACTERS_A_TOKEN
        self.saves = self.characters / CHARACTERS_A_SAVE
        self.reply_s = CHARACTERS_A_REPLY / self.characters
        # The reply at its intervals and its end, the user's message, the conversation's own row for each of the two.
        self.rows_a_reply = flushes(self.reply_s) + 1 + 2
        self.rows = self.rows_a_reply / self.reply_s
        self.wal = measured.wal_a_reply / self.reply_s
        self.base_bytes = HISTORY_ITEMS * (HISTORY_CHARACTERS + measured.item_bytes)

    def hot_bytes(self, idle_s: float) -> float:
        """Of one stream: its conversation, and those of the replies that ended in the last ``idle_s``."""
        return self.base_bytes * (1 + idle_s / self.reply_s)

    def outage_bytes(self, *, blind: bool) -> float:
        """What one stream adds in ten minutes of which nothing reaches Postgres."""
        if blind:
            return self.saves * OUTAGE_S * BLIND_BYTES_A_SAVE
        items = 2 * OUTAGE_S / self.reply_s
        return self.characters * OUTAGE_S + items * self.measured.unstored_item_bytes

    def kept_bytes(self) -> float:
        """Of one stream, in the buffer at the end of an outage: the base of what was hot, and all that came, half blind."""
        added = (self.outage_bytes(blind=True) + self.outage_bytes(blind=False)) / 2
        return self.hot_bytes(MIN_IDLE_S) + added

    def parts(self) -> list[Part]:
        """Every kind of part, the one that is full first in front."""
        m, usable = self.measured, HEADROOM * 1e6
        workers = m.rows_a_worker * HEADROOM / self.rows
        # Of a whole Blotter: as many processes as may flush at once, as many nodes as partitions can be spread on evenly.
        whole = PARTITIONS * min(
            PROCESSES_A_PARTITION * workers, usable / (self.saves * m.valkey_us) / PARTITIONS_A_NODE
        )
        found = [
            Part("web process", usable / (self.saves * m.web_us), "its core"),
            Part("buffer node, CPU", usable / (self.saves * m.valkey_us), "its one thread of commands"),
            Part(
                "buffer node, memory", NODE_BYTES * EVICT_SHARE / self.hot_bytes(MIN_IDLE_S),
                f"conversations that idled less than {MIN_IDLE_S} s, at {EVICT_SHARE:.0%} of {giga(NODE_BYTES)}",
            ),
            Part(
                "buffer node, outage", NODE_BYTES * REFUSE_SHARE / self.kept_bytes(),
                f"{OUTAGE_S // 60} minutes without Postgres, at {REFUSE_SHARE:.0%} of {giga(NODE_BYTES)}",
            ),
            Part("worker process", workers, "its core: reading rows, writing them"),
            Part("Postgres, rows", m.rows_a_postgres * HEADROOM / self.rows, "upserts a second"),
            Part("Postgres, WAL", WAL_BYTES_A_SECOND / self.wal, f"{WAL_BYTES_A_SECOND / 1e6:.0f} MB/s (assumed)"),
            Part("events process", READERS_A_PROCESS, "connections, one reader a stream"),
            Part("Blotter", whole, f"its {PARTITIONS:,} partitions: {PARTITIONS_A_NODE} at least for each buffer node"),
        ]  # fmt: skip
        return sorted(found, key=lambda part: part.streams)

    def needs(self, streams: int) -> dict[str, float]:
        """How many of each part ``streams`` need."""
        carries = {part.name: part.streams for part in self.parts()}

        def count(*names: str) -> int:
            return max(math.ceil(streams / carries[name]) for name in names)

        workers, nodes = (
            count("worker process"),
            count("buffer node, CPU", "buffer node, memory", "buffer node, outage"),
        )
        blotters = count("Blotter")
        partitions = max(16, workers / blotters / PROCESSES_A_PARTITION, nodes / blotters * PARTITIONS_A_NODE)
        return {
            "saves": streams * self.saves,
            "web": count("web process"),
            "workers": workers,
            "nodes": nodes,
            "blotters": blotters,
            "partitions": min(PARTITIONS, 2 ** math.ceil(math.log2(partitions))),
            "rows": streams * self.rows,
            "wal": streams * self.wal,
            "postgres": count("Postgres, rows", "Postgres, WAL"),
            "events": count("events process"),
            "hot least": streams * self.hot_bytes(MIN_IDLE_S),
            "hot most": streams * self.hot_bytes(IDLE_S),
            "outage hot": streams * self.outage_bytes(blind=False),
            "outage blind": streams * self.outage_bytes(blind=True),
            "outage": streams * self.kept_bytes(),
        }


def flushes(seconds: float) -> int:
    """How often an item that is open for so long is written: at intervals that double, and when it is finished."""
    count, at, interval = 1, float(FIRST_FLUSH_S), float(FIRST_FLUSH_S)
    while at < seconds:
        count += 1
        interval = min(2 * interval, LONGEST_FLUSH_S)
        at += interval
    return count


# ---------------------------------------------------------------- words
def short(number: float) -> str:
    """Two digits that count: 1,200 · 12,000 · 1.2 million."""
    if number >= 999_500:
        return f"{number / 1e6:,.2g} million" if number < 99.5e6 else f"{number / 1e6:,.0f} million"
    if number < 10:
        return f"{number:.2g}"
    digits = max(0, math.floor(math.log10(number)) - 1)
    return f"{round(number, -digits):,.0f}"


def giga(size: float) -> str:
    """Bytes, with a unit."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 999.5:
            return f"{size:.2g} {unit}" if size < 10 else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.2g} PB"


ROWS: Final = (
    ("saves a second", "saves", short),
    ("**web processes** (a core each)", "web", short),
    ("**worker processes** (a core each)", "workers", short),
    ("**buffer nodes** (primaries; a replica each beside them)", "nodes", short),
    ("memory of what is hot, least (idle 60 s)", "hot least", giga),
    ("memory of what is hot, at leisure (idle 15 min)", "hot most", giga),
    ("**Postgres: rows a second**", "rows", short),
    ("Postgres: WAL a second", "wal", giga),
    ("Postgres servers (tables distributed by conversation)", "postgres", short),
    ("events processes, with a reader for each stream", "events", short),
    ("Blotters (stacks of their own, callers divided by owner)", "blotters", short),
    ("**partitions** of each", "partitions", "{:,.0f}".format),
    ("**ten minutes without Postgres**: added, all conversations hot", "outage hot", giga),
    ("the same, all conversations cold or new to the buffer", "outage blind", giga),
    ("the buffer at the end of it, half and half", "outage", giga),
)


def document(model: Model) -> str:
    """SCALING.md."""
    m = model.measured
    needs = [model.needs(streams) for streams in STREAMS]
    table = "".join(
        f"| {text} | {' | '.join(form(need[key]) for need in needs)} |\n" for text, key, form in ROWS
    )
    parts = model.parts()
    limits = "".join(f"| {part.name} | {short(part.streams)} | {part.limit} |\n" for part in parts)
    single = [part for part in parts if not part.name.startswith(("web", "worker", "events"))]
    order = ", then ".join(f"{part.name} ({short(part.streams)})" for part in single)
    return f"""# Scaling, on paper

Computed by `python -m deploy.scaling` from `scaling/benchmarks.json` ({m.source}); do not edit: `make scaling` writes it
anew, `python -m deploy.scaling --from FILE` with the figures of another run of `make bench`. A test compares the two.

One stream is a reply being written: {TOKENS_A_SECOND} tokens a second of {CHARACTERS_A_TOKEN} characters, a save every {CHARACTERS_A_SAVE} characters ({model.saves:g} a second),
{CHARACTERS_A_REPLY:,} characters ({model.reply_s:.0f} s) a reply, in a conversation of {HISTORY_ITEMS} items of {HISTORY_CHARACTERS:,} characters; where one ends the next begins.

| concurrent streams | {" | ".join(power(streams) for streams in STREAMS)} |
| --- |{" --- |" * len(STREAMS)}
{table}
![Parts by streams](scaling/plots/parts.svg)
![Memory by streams](scaling/plots/memory.svg)

## Where each part is full first

How many streams one of each carries, the fullest first:

| part | streams | what ends first |
| --- | --- | --- |
{limits}
Web, worker and events processes hold nothing: more of them is all they need. What has to be divided comes in this order:
{order}.

- *Web* needs by far the most cores: a save costs {m.web_us:,.0f} µs there, {m.valkey_us:,.0f} µs in the buffer, and a row in Postgres for every {model.saves / model.rows:.1f} saves.
  Saving every 400 characters instead of {CHARACTERS_A_SAVE} takes web and the buffer's CPU down to a quarter, and costs readers a second or more.
- *The buffer* is divided by partition: a node of a cluster holds whole partitions, so it takes at least {PARTITIONS_A_NODE} for each node to be even.
  Its CPU was measured with one save at a time; saves that arrive together share a wake-up and an fsync, and cost it less than half
  (tests/bench/README.md, profile): so many nodes are the most that are needed.
- *Postgres* sees {model.rows_a_reply} rows a reply, however long it streams: intervals double up to {LONGEST_FLUSH_S} s. Every key, fence and query carries the
  conversation's uid, so tables are distributed by it, or each Blotter has a database of its own.
- *Partitions* bound how many processes flush at once ({PROCESSES_A_PARTITION:.2g} for each), and how many nodes the buffer can be spread on. Beyond
  {PARTITIONS:,} more Blotters are needed, callers divided by owner in front of them: nothing is shared between owners.
- *The broker* carries doorbells: at most one in 0.2 s for each partition, {PARTITIONS * 5:,} a second with {PARTITIONS:,}, whatever the saves.

## Ten minutes without Postgres

Saves go on. What is hot grows by its text and {m.unstored_item_bytes:,.0f} bytes an item; what is cold is kept as a journal and an image of it,
{BLIND_BYTES_A_SAVE} bytes a save of {CHARACTERS_A_SAVE} characters. That is {giga(model.outage_bytes(blind=False))} to {giga(model.outage_bytes(blind=True))} a stream in {OUTAGE_S // 60} minutes, beside the {giga(model.hot_bytes(MIN_IDLE_S))} that stay hot with it, for
nothing that waits is evicted. Above {REFUSE_SHARE:.0%} of `maxmemory` saves are answered 503: the buffer must be sized for the outage, not for the day.

## What was measured, what was assumed

| figure | value | from |
| --- | --- | --- |
| web's CPU of an append | {m.web_us:,.0f} µs | row 8 |
| the buffer's CPU of an append | {m.valkey_us:,.0f} µs | row 8 |
| rows that one worker process stores | {m.rows_a_worker:,.0f} a second | row 5, all on {m.source.rpartition(", ")[2]} |
| rows that one connection upserts | {m.rows_a_postgres:,.0f} a second | row 4; a server with more cores takes more |
| WAL of a reply of {CHARACTERS_A_REPLY:,} characters | {m.wal_a_reply:,.0f} bytes | row 6 |
| memory beside the text of an item, stored / not yet | {m.item_bytes:,.0f} / {m.unstored_item_bytes:,.0f} bytes | row 10 |
| used of what was measured | {HEADROOM:.0%} | assumed |
| a buffer node | {giga(NODE_BYTES)} | assumed |
| a Postgres server's WAL | {WAL_BYTES_A_SECOND / 1e6:.0f} MB/s | assumed |
| readers of an events process | {READERS_A_PROCESS:,} | its setting |

What the model leaves out: networks, TLS, reads, uploads, owners that are much larger than others (one conversation is one partition's,
and one node's), and that a machine with many cores seldom gives each of them what two cores gave here.
"""


def power(streams: int) -> str:
    return f"10^{round(math.log10(streams))}"


def curves(model: Model) -> dict[str, Any]:
    """What the plots show."""
    points = [round(10 ** (exponent / 4)) for exponent in range(16, 33)]

    def line(key: str) -> list[tuple[int, float]]:
        return [(streams, model.needs(streams)[key]) for streams in points]

    return {
        "parts": {
            "title": "Parts needed",
            "y": "number",
            "lines": {
                "web processes": line("web"), "worker processes": line("workers"), "events processes": line("events"),
                "buffer nodes": line("nodes"), "Postgres servers": line("postgres"), "Blotters": line("blotters"),
            },
        },
        "memory": {
            "title": "Memory of the buffer",
            "y": "GB",
            "lines": {
                name: [(streams, size / 1024**3) for streams, size in line(key)]
                for name, key in (("hot, idle 60 s", "hot least"), ("hot, idle 15 min", "hot most"),
                                  ("after 10 minutes without Postgres", "outage"))
            },
        },
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.scaling", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="a document of make bench")
    parser.add_argument("--check", action="store_true", help="write nothing")
    wish = parser.parse_args()
    figures = json.loads((wish.source or BENCHMARKS).read_text())
    for figure in figures["figures"]:
        figure.pop("samples", None)
    model = Model(Measured.of(figures))
    text = document(model)
    if wish.check:
        return 0 if DOCUMENT.read_text() == text else 1
    if wish.source:
        BENCHMARKS.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    DOCUMENT.write_text(text)
    if not PYTHON.exists():
        print("scaling: the plots stay as they are: make bench-env, for matplotlib", file=sys.stderr)
        return 0
    PLOTS.mkdir(exist_ok=True)
    argv = [str(PYTHON), str(HERE / "draw.py"), str(PLOTS)]
    return subprocess.run(argv, input=json.dumps(curves(model)), text=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
