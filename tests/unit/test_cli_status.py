"""The judgement on figures: green, amber, red; each reason with its next step."""

from __future__ import annotations

from typing import Any

import pytest

from models.core.health import Limits, judge, level
from models.errors import BufferSlow, BufferUnavailable

LIMITS = Limits(autosave_s=30.0, evict_share=0.6, refuse_share=0.8)
WELL: dict[str, Any] = {
    "dirtyItems": 3,
    "oldestDirtyAgeSeconds": 1.0,
    "deadLetters": 0,
    "blindConversations": 0,
    "pausedPartitions": 0,
    "bufferUsedBytes": 10,
    "bufferMaxBytes": 100,
    "workers": ["a:1"],
    "beatAlive": True,
    "sweepAlive": True,
    "storeSetBack": False,
}


def judged(
    store: str = "ok",
    faults: tuple[str, ...] = (),
    broker: str = "ok",
    layout: str | None = None,
    **figures: Any,
) -> tuple[str, str]:
    reasons = judge(WELL | figures, LIMITS, store=store, broker=broker, faults=faults, layout=layout)
    assert all(reason.reason and reason.step for reason in reasons)
    assert [r.level for r in reasons] == sorted((r.level for r in reasons), key=["red", "amber"].index)
    return level(reasons), " | ".join(f"{reason.reason} → {reason.step}" for reason in reasons)


def test_all_is_well() -> None:
    assert judged() == ("green", "")
    assert judged(bufferMaxBytes=0) == ("green", "")


def test_without_workers_nobody_is_sent_to_beat_whose_sweeps_they_run() -> None:
    assert "beat" not in judged(workers=[], beatAlive=False, sweepAlive=False)[1]


def test_an_open_reply_may_wait_for_its_autosave() -> None:
    assert judged(oldestDirtyAgeSeconds=39.0)[0] == "green"
    assert judged(oldestDirtyAgeSeconds=41.0)[0] == "amber"
    assert judged(oldestDirtyAgeSeconds=200.0)[0] == "red"


@pytest.mark.parametrize(
    ("figures", "expected", "words"),
    [
        ({"deadLetters": 2, "dirtyItems": 2}, "amber", "2 dead letters"),
        ({"deadLetters": 1, "dirtyItems": 1}, "amber", "1 dead letter: rows"),
        ({"blindConversations": 4}, "amber", "4 conversations saved while Postgres was away"),
        ({"pausedPartitions": 1}, "amber", "1 partition paused after an error"),
        ({"storeSetBack": True}, "red", "(restored from a backup?): nothing leaves the buffer"),
        ({"beatAlive": False}, "amber", "workers sweep in its place → start beat"),
        ({"beatAlive": False, "sweepAlive": False}, "amber", "nobody sweeps"),
        ({"workers": []}, "amber", "no worker is alive"),
        ({"broker": "unavailable"}, "amber", "the broker is not usable (unavailable)"),
        ({"bufferWriteSeconds": 0.3}, "amber", "a small write to the buffer took 300 ms"),
        ({"workers": [], "oldestDirtyAgeSeconds": 41.0}, "red", "no worker is alive: 3 items must stay"),
        ({"bufferUsedBytes": 61}, "amber", "61% full"),
        ({"bufferUsedBytes": 81}, "red", "saves are refused above 80%"),
        ({"store": "away"}, "amber", "Postgres is not usable (away): saves go on → start Postgres"),
        ({"layout": "it has 8, we say 4: set it"}, "red", "it has 8, we say 4: saves are refused → set it"),
        ({"faults": ("appendonly is off",)}, "red", "does not keep what it acknowledges: appendonly is off"),
    ],
)
def test_each_trouble_has_its_level_its_words_and_a_next_step(
    figures: dict[str, Any], expected: str, words: str
) -> None:
    found, said = judged(**figures)
    assert found == expected
    assert words in said


def test_a_buffer_that_does_not_answer_is_red() -> None:
    reasons = judge(None, LIMITS, unreachable=BufferUnavailable("the buffer did not answer"))
    assert level(reasons) == "red"
    assert reasons[0].reason == "the buffer did not answer: saves are refused"


def test_a_buffer_that_is_slow_may_still_take_saves() -> None:
    """Every fsync 300 ms late: saves were taken after a second, and nobody should be told that they are refused."""
    (reason,) = judge(None, LIMITS, unreachable=BufferSlow("the buffer did not answer in time"))
    assert reason.reason == "the buffer did not answer in time: saves are refused, or wait as long"
    assert "disk" in reason.step


def test_the_worst_decides_and_comes_first() -> None:
    found, said = judged(deadLetters=1, bufferUsedBytes=90)
    assert found == "red"
    assert said.index("full") < said.index("dead letter")
