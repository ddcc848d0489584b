"""Who goes into a transaction with whom, and what the store's answers mean."""

from __future__ import annotations

import pytest

from models.core.batches import ALONE_TRIES, GROUP_TRIES, halves, plan_trial, verdict


def test_rows_without_suspicion_go_together_suspects_alone_proven_killers_not_at_all() -> None:
    begun = {"b": GROUP_TRIES - 1, "c": GROUP_TRIES, "d": GROUP_TRIES + ALONE_TRIES - 1}
    begun["e"] = GROUP_TRIES + ALONE_TRIES
    plan = plan_trial(["a", "b", "c", "d", "e"], begun)
    assert plan == (("a", "b"), ("c", "d"), ("e",))


def test_halving_finds_every_culprit_in_few_tries() -> None:
    culprits = {3, 17, 18, 200}
    tries = 0
    committed: list[int] = []
    buried: list[int] = []

    def commit(rows: list[int]) -> None:
        nonlocal tries
        tries += 1
        if not culprits & set(rows):
            committed.extend(rows)
        elif len(rows) == 1:
            buried.extend(rows)
        else:
            for half in halves(rows):
                commit(list(half))

    commit(list(range(256)))
    assert buried == sorted(culprits)
    assert sorted(committed + buried) == list(range(256))
    assert tries <= 2 * len(culprits) * 8 + 1


@pytest.mark.parametrize(
    ("kind", "ours", "stored", "expected"),
    [
        ("m", 5, 5, "committed"),
        ("m", 5, 6, "newer"),
        ("m", 5, None, "again"),
        ("m", 5, 4, "again"),
        ("v", 5, 0, "committed"),
        ("v", 5, None, "again"),
    ],
)
def test_only_what_the_store_holds_as_we_sent_it_is_committed(
    kind: str, ours: int, stored: int | None, expected: str
) -> None:
    assert verdict(kind, ours, stored) == expected
