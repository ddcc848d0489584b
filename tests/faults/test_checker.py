"""The checker on histories written by hand: what is fine passes, each breach gets its name."""

from __future__ import annotations

from typing import Any

from models.core import commands as c
from models.core.commands import Append, Delete, ItemOutcome, Outcome, utf16_units
from tests.faults.checker import Verdict, check
from tests.faults.history import (
    NEVER,
    Fault,
    Flush,
    History,
    Listing,
    Place,
    Read,
    Rest,
    Save,
    Seen,
    Sight,
    tell,
)

Story = tuple[Any, ...]


def put(text: str, *, rev: int | None = None, st: str | None = None) -> c.Put:
    return c.put("m", "m1", {"content": text}, revision=rev, status=st)


def append(offset: int, text: str) -> Append:
    return Append("m", "m1", offset, text, utf16_units(text))


def save(start: int, end: int, command: Any, outcome: Outcome | None, version: int = 0, **how: Any) -> Save:
    status = how.pop("status", "complete")
    told = None
    if outcome is not None:
        told = ItemOutcome(
            kind="m", id=command.id, outcome=outcome, version=version, status=status if version else None,
            length=how.pop("length", None), created=how.pop("created", False),
        )  # fmt: skip
    return Save(
        client="a", start=start, end=end, owner="ann", conversation="c", commands=(command,), outcomes=(told,), version=version,
        retried=how.pop("retried", False), **how,
    )  # fmt: skip


def sight(version: int, text: str, *, status: str = "complete", position: str = "1", **how: Any) -> Sight:
    seen = Seen(
        status,
        None,
        how.pop("revision", None),
        how.pop("deleted", False),
        (("role", "assistant"),),
        (("content", text),),
        None,
    )
    return Sight("m", how.pop("id", "m1"), version, position, True, seen)


def read(start: int, end: int, version: int, *items: Sight, **how: Any) -> Read:
    made: dict[str, Any] = {"result": "ok", **how}
    return Read(
        client="r", start=start, end=end, owner="ann", conversation="c", version=version, items=items, **made
    )


def at_rest(*stored: Sight, left: tuple[str, ...] = (), **how: Any) -> Rest:
    items = {(s.kind, s.id): s for s in stored}
    place = Place(owner="ann", conversation="c", **{"buffered": None, "stored": items, "shown": items, **how})
    return Rest(places=(place,), left=left)


def verdict(*entries: Any, rest: Rest | None = None) -> Verdict:
    history = History()
    for entry in entries:
        history.add(entry)
    return check(history, rest)


def test_a_chain_of_saves_and_reads_is_fine() -> None:
    found = verdict(
        save(1, 2, put("a", st="streaming"), "accepted", 10, status="streaming"),
        save(3, 4, append(1, "b"), "accepted", 11, status="streaming", length=2),
        read(5, 6, 11, sight(11, "ab", status="streaming")),
        save(7, 8, append(1, "b"), "duplicate", 11, status="streaming", length=2),
        save(9, 10, append(5, "x"), "append-gap", 11, status="streaming", length=2),
        save(11, 12, put("done"), "accepted", 12, status="streaming"),
        rest=at_rest(sight(12, "done", status="streaming")),
    )
    assert not found.anomalies, str(found)


def test_an_acknowledged_save_that_is_not_stored_is_lost() -> None:
    first, second = save(1, 2, put("a"), "accepted", 10), save(3, 4, put("b"), "accepted", 11)
    assert verdict(first, second, rest=at_rest(sight(10, "a"))).names == {"lost"}
    assert "lost" in verdict(first, rest=at_rest()).names


def test_an_unknown_save_may_be_in_or_out_but_stays_where_it_was_seen() -> None:
    first, unknown = save(1, 2, put("a"), "accepted", 10), save(3, NEVER, put("b"), None)
    assert not verdict(first, unknown, rest=at_rest(sight(10, "a"))).anomalies
    assert not verdict(first, unknown, rest=at_rest(sight(11, "b"))).anomalies
    seen = read(5, 6, 11, sight(11, "b"))
    assert verdict(first, unknown, seen, rest=at_rest(sight(10, "a"))).anomalies
    again = verdict(first, unknown, seen, save(7, 8, put("a"), "accepted", 12), rest=at_rest(sight(13, "b")))
    assert again.names == {"never a state"}


def test_a_save_has_no_effect_before_it_began() -> None:
    first, late = save(1, 2, put("a"), "accepted", 10), save(7, NEVER, put("b"), None)
    assert verdict(first, read(5, 6, 11, sight(11, "b")), late).names == {"never a state"}


def test_a_text_nobody_wrote_was_never_a_state() -> None:
    first = save(1, 2, put("a"), "accepted", 10)
    assert verdict(first, read(3, 4, 10, sight(10, "z"))).names == {"never a state"}


def test_the_sweep_may_settle_what_is_open_and_only_that() -> None:
    def settled(status: str) -> Verdict:
        now = Seen(
            "interrupted",
            "streaming",
            None,
            False,
            (("role", "assistant"), ("status_reason", "stale")),
            (("content", "a"),),
            None,
        )
        shown = Sight("m", "m1", 11, "1", True, now)
        return verdict(save(1, 2, put("a", st=status), "accepted", 10, status=status), rest=at_rest(shown))

    assert not settled("streaming").anomalies
    assert settled("complete").names == {"never a state"}


def test_a_refusal_must_be_one_by_the_rules() -> None:
    first = save(1, 2, put("a", st="streaming"), "accepted", 10, status="streaming")
    wrong = save(3, 4, append(1, "b"), "append-mismatch", 10, status="streaming", length=1)
    assert verdict(first, wrong).names == {"wrong answer"}
    assert verdict(first, save(3, 4, append(0, "z"), "duplicate", 10, status="streaming")).names == {
        "wrong answer"
    }
    length = save(3, 4, append(4, "b"), "append-gap", 10, status="streaming", length=3)
    assert verdict(first, length).names == {"wrong answer"}


def test_a_retry_may_be_told_of_its_own_first_run() -> None:
    first = save(1, 2, put("a", rev=1), "duplicate", 10, retried=True)
    assert not verdict(first, rest=at_rest(sight(10, "a", revision=1))).anomalies
    assert verdict(
        save(1, 2, put("a", rev=1), "duplicate", 10), rest=at_rest(sight(10, "a", revision=1))
    ).anomalies


def test_reads_never_go_back() -> None:
    first, second = save(1, 2, put("a"), "accepted", 10), save(3, 4, put("b"), "accepted", 11)
    assert verdict(first, second, read(5, 6, 10, sight(10, "a"))).names == {"read backwards"}
    # It began before the second ended: either is fine.
    assert not verdict(first, second, read(4, 6, 10, sight(10, "a"))).anomalies
    assert verdict(first, read(3, 4, 10)).names == {"read backwards"}
    assert verdict(first, read(3, 4, 0, result="nothing")).names == {"read backwards"}
    assert verdict(first, read(3, 4, 0, result="gone")).names == {"read backwards"}


def test_a_view_is_one_snapshot() -> None:
    first, second = save(1, 2, put("a"), "accepted", 10), save(3, 9, put("b"), "accepted", 11)
    assert "mixed read" in verdict(first, second, read(4, 6, 11, sight(10, "a"))).names
    assert "mixed read" in verdict(first, second, read(4, 6, 10, sight(11, "b"))).names


def test_versions_are_told_once_and_rise() -> None:
    first, second = save(1, 2, put("a"), "accepted", 10), save(3, 4, put("b"), "accepted", 10)
    assert "one version twice" in verdict(first, second).names
    assert "version backwards" in verdict(first, save(3, 4, put("b"), "accepted", 9)).names


def test_deleted_stays_deleted() -> None:
    first, gone = save(1, 2, put("a"), "accepted", 10), save(3, 4, Delete("m", "m1"), "accepted", 11)
    assert "revived" in verdict(first, gone, save(5, 6, put("b"), "accepted", 12)).names
    assert "revived" in verdict(first, gone, read(5, 6, 12, sight(12, "a"))).names
    assert not verdict(first, gone, save(5, 6, put("b"), "gone", 11), read(7, 8, 11)).anomalies


def test_order_is_kept() -> None:
    def message(item_id: str, start: int, version: int) -> Save:
        return save(
            start, start + 1, c.put("m", item_id, {"content": "a"}), "accepted", version, created=True
        )

    entries = message("m1", 1, 10), message("m2", 3, 11)
    fine = at_rest(sight(10, "a"), sight(11, "a", id="m2", position="2"))
    assert not verdict(*entries, rest=fine).anomalies
    assert verdict(*entries, rest=at_rest(sight(10, "a"), sight(11, "a", id="m2", position="0"))).names == {
        "order"
    }
    moved = read(5, 6, 10, sight(10, "a")), read(7, 8, 10, sight(10, "a", position="3"))
    assert verdict(entries[0], *moved).names == {"order"}


def test_blind_saves_are_tried_in_order_after_what_was_known() -> None:
    first = save(1, 2, put("a"), "accepted", 10)
    blind = save(3, 4, put("b"), "accepted", 3, blind=True)
    assert not verdict(first, blind, rest=at_rest(sight(11, "b"))).anomalies
    assert verdict(first, blind, rest=at_rest(sight(10, "a"))).anomalies
    # Superseded by the rules: an older snapshot of something finished.
    late = save(3, 4, put("b", st="streaming"), "accepted", 3, blind=True, status="streaming")
    assert not verdict(first, late, rest=at_rest(sight(11, "a"))).anomalies
    # It changed nothing, so that what it met keeps its version.
    same = save(3, 4, put("a"), "accepted", 3, blind=True)
    assert not verdict(first, same, rest=at_rest(sight(10, "a"))).anomalies
    alone = save(3, 4, put("b"), "accepted", 3, blind=True)
    assert verdict(alone, rest=at_rest()).names == {"lost"}


def test_a_rollback_relaxes_what_came_after_its_copy_and_no_more() -> None:
    first, second = save(1, 2, put("a"), "accepted", 10), save(5, 6, put("b"), "accepted", 11)
    back = Fault(what="rolled back", start=7, end=7, to=3, noticed=8)
    assert not verdict(first, second, back, rest=at_rest(sight(10, "a"))).anomalies
    assert not verdict(first, second, back, rest=at_rest(sight(11, "b"))).anomalies
    assert verdict(first, second, back, rest=at_rest()).anomalies
    later = save(9, 10, put("c"), "accepted", 12)
    assert verdict(first, second, back, later, rest=at_rest(sight(11, "b"))).names == {"lost"}
    after = Fault(what="rolled back", start=7, end=7, to=6, noticed=8)
    assert verdict(first, second, after, rest=at_rest(sight(10, "a"))).anomalies


def test_a_retry_told_of_its_own_first_run_after_a_loss_had_its_effect_before_it() -> None:
    first = save(1, 9, put("a", rev=1, st="streaming"), "duplicate", 10, retried=True, status="streaming")
    second = save(3, 4, append(1, "b"), "accepted", 11, length=2, status="streaming")
    empty = Fault(what="emptied", start=8, end=8, noticed=8)
    assert not verdict(first, second, empty, rest=at_rest()).anomalies
    elsewhere = save(2, 3, put("x", st="streaming"), "accepted", 10, status="streaming")
    wrong = save(4, 5, append(1, "b"), "accepted", 11, length=3, status="streaming")
    assert verdict(elsewhere, first, wrong, empty, rest=at_rest()).names == {"not a fold"}


def test_what_was_known_to_be_stored_survives_an_emptied_buffer() -> None:
    first, second = save(1, 2, put("a"), "accepted", 10), save(5, 6, put("b"), "accepted", 11)
    empty = Fault(what="emptied", start=9, end=9, noticed=9)
    stored = read(3, 4, 10, sight(10, "a"))
    assert not verdict(first, second, empty, rest=at_rest()).anomalies
    assert not verdict(first, stored, second, empty, rest=at_rest(sight(10, "a"))).anomalies
    assert verdict(first, stored, second, empty, rest=at_rest()).anomalies


def test_lists_show_what_was_acknowledged() -> None:
    first = save(1, 2, put("a"), "accepted", 10)
    assert verdict(first, Listing(client="l", start=3, end=4, owner="ann", conversations=())).names == {
        "unlisted"
    }
    assert not verdict(first, Listing(client="l", start=2, end=4, owner="ann", conversations=())).anomalies


def test_one_flusher_a_partition() -> None:
    one, two = Flush(client="x", start=1, end=9, partition=0), Flush(client="y", start=5, end=6, partition=0)
    assert verdict(one, two).names == {"shared lease"}
    expired = Flush(client="x", start=1, end=9, partition=0, expired=4)
    assert not verdict(expired, two).anomalies
    assert not verdict(one, Flush(client="y", start=5, end=6, partition=1)).anomalies


def test_at_rest_all_sides_agree_and_nothing_is_left() -> None:
    first = save(1, 2, put("a"), "accepted", 10)
    assert verdict(first, rest=at_rest(sight(10, "a"), left=("due 1",))).names == {"not at rest"}
    other = {("m", "m1"): sight(9, "old")}
    assert verdict(first, rest=at_rest(sight(10, "a"), buffered=other)).names == {"disagreement"}
    assert verdict(first, rest=at_rest(sight(10, "a"), shown={})).names == {"disagreement"}


def test_an_anomaly_shows_the_operations_next_to_it() -> None:
    first, second = save(1, 2, put("a"), "accepted", 10), save(3, 4, put("b"), "accepted", 11)
    told = str(verdict(first, second, read(5, 6, 10, sight(10, "a"))))
    assert tell(second) in told
    assert tell(first) not in told
