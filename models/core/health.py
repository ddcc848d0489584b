"""Is all well? The pipeline's figures judged: green, amber or red, the reason in words, and what to do next.

Red: something acknowledged is in danger of not being kept, saves are refused, or nobody will bring what is dirty to
Postgres. Amber: it works, but somebody should look. Pure: the same judgement for the command line, the API and pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from models.core.wording import counted
from models.errors import BlotterError, BufferSlow

Level = Literal["green", "amber", "red"]

_ORDER: Final[tuple[Level, ...]] = ("green", "amber", "red")
#: How much later than the autosave time an open reply may reach Postgres before somebody should look, s; and be alarmed.
LATE_S: Final = 10.0
VERY_LATE_S: Final = 120.0
#: A small write to the buffer that takes longer: its disk is slow, and every save waits for it, s.
SLOW_WRITE_S: Final = 0.25


class Reason(NamedTuple):
    """Why it is not green, and the next step."""

    level: Level
    reason: str
    step: str


class Limits(NamedTuple):
    """What the settings allow: s, and shares of maxmemory."""

    autosave_s: float
    evict_share: float
    refuse_share: float


def judge(
    figures: Mapping[str, Any] | None,
    limits: Limits,
    *,
    store: str = "ok",
    broker: str = "ok",
    layout: str | None = None,
    faults: Sequence[str] = (),
    unreachable: BlotterError | None = None,
) -> tuple[Reason, ...]:
    """All reasons, the worst first; none: green.

    ``figures`` as models/pipeline/figures.py gives them, None where the buffer does not answer (``unreachable`` says
    why: it is away, or only slow). ``store``: "ok", or what is wrong with Postgres; ``broker`` alike. ``layout``: why the
    buffer is refused for its layout (Buffer.layout_fault). ``faults``: what the buffer's policy check found.
    """
    if figures is None:
        step = "start the buffer; look at REDIS_URL and at its log"
        if isinstance(unreachable, BufferSlow):
            step = "start the buffer if it is away; else look at its log, and at the disk of its append-only file"
            return (Reason("red", f"{unreachable}: saves are refused, or wait as long", step),)
        return (Reason("red", f"{unreachable or 'the buffer does not answer'}: saves are refused", step),)
    reasons = [
        *(
            Reason(
                "red",
                f"the buffer does not keep what it acknowledges: {fault}",
                "change that setting of its server",
            )
            for fault in faults
        ),
        *_laid_out(layout),
        *_room(figures, limits),
        *_movement(figures, limits, store),
        *_help(figures, broker),
        *_left_aside(figures),
    ]
    return tuple(sorted(reasons, key=lambda reason: -_ORDER.index(reason.level)))


def level(reasons: Sequence[Reason]) -> Level:
    """The worst of them."""
    return max((reason.level for reason in reasons), key=_ORDER.index, default="green")


def _laid_out(layout: str | None) -> Iterator[Reason]:
    if layout is not None:
        reason, _, step = layout.partition(": ")
        yield Reason("red", f"{reason}: saves are refused", step)


def _room(figures: Mapping[str, Any], limits: Limits) -> Iterator[Reason]:
    most = figures["bufferMaxBytes"]
    share = figures["bufferUsedBytes"] / most if most else 0.0
    step = "give the buffer more memory (maxmemory), or find what keeps its rows from Postgres"
    if share > limits.refuse_share:
        yield Reason(
            "red", f"the buffer is {share:.0%} full: saves are refused above {limits.refuse_share:.0%}", step
        )
    elif share > limits.evict_share:
        yield Reason("amber", f"the buffer is {share:.0%} full: idle conversations leave it early", step)


def _movement(figures: Mapping[str, Any], limits: Limits, store: str) -> Iterator[Reason]:
    late_s = figures["oldestDirtyAgeSeconds"] - limits.autosave_s
    waiting = figures["dirtyItems"] - figures["deadLetters"] + figures["blindConversations"]
    if store != "ok":
        step = "start Postgres, or look at DATABASE_URL; what is saved meanwhile is kept and drains when it returns"
        yield Reason("amber", f"Postgres is not usable ({store}): saves go on", step)
    if figures["storeSetBack"]:
        yield Reason(
            "red",
            "Postgres lacks what it had committed (restored from a backup?): nothing leaves the buffer, which still has some of it",
            "`blotter verify --repair` puts back what the buffer has",
        )
    if not figures["workers"]:
        danger: Level = "red" if waiting and late_s > LATE_S else "amber"
        yield Reason(
            danger, f"no worker is alive: {counted(waiting, 'item')} must stay in the buffer", "start workers"
        )
    if late_s > LATE_S:
        danger = "red" if late_s > VERY_LATE_S else "amber"
        yield Reason(
            danger,
            f"the oldest change waits for Postgres for {figures['oldestDirtyAgeSeconds']:.0f} s ({counted(waiting, 'item')} must wait)",
            "look at the workers' log; start more workers if they are busy all the time",
        )
    if figures["pausedPartitions"]:
        yield Reason(
            "amber",
            f"{counted(figures['pausedPartitions'], 'partition')} paused after an error",
            "the workers' log names the error; they go on by themselves",
        )
    # Sweeps run in workers: without any, whether beat lives cannot be told from here.
    if not figures["beatAlive"] and figures["workers"]:
        sweeping = figures["sweepAlive"]
        yield Reason(
            "amber",
            "beat is not alive" + (": workers sweep in its place" if sweeping else ", and nobody sweeps"),
            "start beat",
        )


def _help(figures: Mapping[str, Any], broker: str) -> Iterator[Reason]:
    if broker != "ok":
        yield Reason(
            "amber",
            f"the broker is not usable ({broker}): workers look for work themselves, a few seconds later",
            "start the broker, or look at CELERY_BROKER_URL; nothing in it is needed again",
        )
    if (write_s := figures.get("bufferWriteSeconds", 0.0)) > SLOW_WRITE_S:
        yield Reason(
            "amber",
            f"a small write to the buffer took {write_s * 1000:,.0f} ms: every save waits as long",
            "look at the disk of the buffer's append-only file, and at what else writes to it",
        )


def _left_aside(figures: Mapping[str, Any]) -> Iterator[Reason]:
    if figures["deadLetters"]:
        yield Reason(
            "amber",
            f"{counted(figures['deadLetters'], 'dead letter')}: rows that Postgres would not take",
            "`blotter dead list` says why; mend the cause, then `blotter dead replay --all`",
        )
    if figures["blindConversations"]:
        yield Reason(
            "amber",
            f"{counted(figures['blindConversations'], 'conversation')} saved while Postgres was away",
            "they are merged when it is back",
        )
