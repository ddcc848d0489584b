"""Blind: saves kept without their base while Postgres is away, and merged by the same rules when it is back."""

from __future__ import annotations

from typing import Any

import pytest

from models.core.commands import Command, Delete, ItemOutcome
from tests.buffer.chat import Chat, append, put, set_part


def blind(chat: Chat, *items: Command) -> tuple[ItemOutcome, ...]:
    reply = chat.send(*items, mode="blind")
    assert reply.s == "done", reply
    return reply.items


def replay(chat: Chat) -> list[ItemOutcome]:
    """Adopt the base and replay the whole journal."""
    assert chat.adopt() == "ok"
    return replay_adopted(chat)


def replay_adopted(chat: Chat) -> list[ItemOutcome]:
    outcomes: list[ItemOutcome] = []
    while True:
        reply = chat.buffer.save(chat.place, [], mode="replay")
        assert reply.s == "done"
        outcomes += reply.items
        chat.lost += reply.lost
        if reply.left == 0:
            break
    chat.check()
    return outcomes


@pytest.fixture
def away(chat: Chat) -> Chat:
    """A cold conversation whose base holds m1 (complete, revision 5), m2 (streaming "hello"), m3 (deleted)."""
    chat.put("m", "m1", role="user", content="base", rev=5)
    chat.put("m", "m2", st="streaming", content="hello")
    chat.put("m", "m3", content="gone")
    chat.delete("m", "m3")
    chat.flush()
    chat.settle_stale("m/m2")
    chat.flush()
    assert chat.evict() == 1
    return chat


def test_saves_of_a_cold_conversation_go_to_its_journal(away: Chat) -> None:
    assert away.buffer.save(away.place, [put("m", "m4")]).s == "cold"
    [out] = blind(away, put("m", "m4", content="a"))
    assert (out.outcome, out.created) == ("accepted", True)
    # From now on a save that thinks it is hot, or fresh, is told.
    assert away.buffer.save(away.place, [put("m", "m4")], fresh=True).s == "blind"
    assert away.buffer.client.llen(away.place.keys.journal(away.place.hex)) == 1
    assert away.due() == []
    assert away.check() == {}


def test_a_blind_read_shows_what_was_saved_and_says_that_it_is_partial(away: Chat) -> None:
    blind(away, put("m", "m4", st="streaming", content="a"))
    blind(away, append("m4", 1, "b"), put("t", "t1", message_id="m4"))
    reply = away.buffer.read(away.place)
    assert (reply.head.s, reply.head.partial) == ("ok", True)
    kept = away.message("m4")
    assert (kept.content, kept.tool_result_ids, kept.status) == ("ab", ("t1",), "streaming")
    assert set(away.views()) == {"c/", "m/m4", "t/t1"}


def test_a_hot_conversation_is_never_blind(chat: Chat) -> None:
    chat.put("m", "m1")
    assert chat.buffer.save(chat.place, [put("m", "m1")], mode="blind").s == "hot"


def test_appends_go_only_to_what_the_journal_created(away: Chat) -> None:
    outcomes = blind(away, append("m2", 5, " you"), set_part("m2", 0, {"type": "step-start"}))
    assert [out.outcome for out in outcomes] == ["unavailable", "unavailable"]
    assert away.buffer.client.keys("*j:*") == []
    outcomes = blind(away, put("m", "m4", st="pending"), append("m4", 0, "x"), append("m4", 5, "x"))
    assert [out.outcome for out in outcomes] == ["accepted", "accepted", "append-gap"]


def test_what_is_refused_is_not_kept(away: Chat) -> None:
    blind(away, put("m", "m4", content="a", rev=2))
    # A duplicate of what is known blind may be none of what the base knows: it is tried again with the base.
    outcomes = blind(away, put("m", "m4", content="a", rev=2), put("m", "m4", content="b", rev=1))
    assert [out.outcome for out in outcomes] == ["duplicate", "stale-revision"]
    assert away.buffer.client.llen(away.place.keys.journal(away.place.hex)) == 2


def test_the_journal_is_replayed_by_the_ordinary_rules(away: Chat) -> None:
    saves: list[tuple[Command, str]] = [
        (put("m", "m1", content="older", rev=4), "stale-revision"),
        (put("m", "m1", content="newer", rev=6), "accepted"),
        (put("m", "m2", st="streaming", content="hell"), "noop"),
        (put("m", "m2", st="streaming", content="hello!"), "accepted"),
        (append("m2", 6, "?"), "accepted"),
        (put("m", "m3", content="late"), "gone"),
        (put("m", "m4", st="streaming", content=""), "accepted"),
        (append("m4", 0, "new"), "accepted"),
        (append("m4", 3, "", st="complete"), "accepted"),
        (put("a", "a1", content="v", message_id="m4"), "accepted"),
        (put("c", "", title="t"), "accepted"),
        (Delete("m", "m5"), "accepted"),
    ]
    told = [blind(away, command)[0] for command, _ in saves]
    assert {out.outcome for out in told} == {"accepted"}
    assert [out.outcome for out in replay(away)] == [expected for _, expected in saves]
    assert away.lost == 3
    assert away.message("m1").content == "newer"
    assert away.message("m2").content == "hello!?"
    assert away.message("m4").content == "new"
    assert away.message("m4").artifact_ids == ("a1",)
    # No version told in the blind is above what is there now.
    now = away.views()
    for out in told:
        assert now[f"{out.kind}/{out.id}"].row.v >= out.version
    assert away.buffer.client.keys(f"*{away.place.hex}*") == away.buffer.client.keys(
        f"*:[cb]:{away.place.hex}"
    )
    away.flush()
    assert away.store.rows["m/m1"].content == "newer"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "command",
    [
        put("m", "m1", role="user", content="base"),  # equal to the base
        put("m", "m1", content="base", rev=5),
        put("m", "m1", st="streaming", content="x"),  # older than the base
        put("m", "m1", content="x", rev=1),
        put("m", "m3", content="x"),  # deleted in the base
        Delete("m", "m3"),
    ],
)
def test_a_save_that_changes_nothing_after_all_still_leaves_no_lower_version(
    away: Chat, command: Command
) -> None:
    reply = away.send(command, mode="blind")
    before = away.store.snapshot()
    replay(away)
    name = f"m/{command.id}"
    assert away.views()[name].row.v > reply.items[0].version
    assert away.header()["last"] > reply.v
    away.flush()
    by_id = {m.id: m for m in before.messages}
    stored: Any = away.store.rows[name]
    assert stored.content == by_id[command.id].content


@pytest.mark.parametrize("content", ["new", "base"])
def test_versions_told_in_the_blind_are_exceeded_though_the_clock_went_back(away: Chat, content: str) -> None:
    away.buffer.now_us = 1_900_000_000_000_000
    reply = away.send(put("m", "m1", content=content), put("m", "m4"), mode="blind")
    away.buffer.now_us = 1_850_000_000_000_000
    replay(away)
    rows = away.check()
    assert rows["m/m1"]["v"] > reply.items[0].version
    assert rows["m/m4"]["v"] > reply.items[1].version
    assert rows["h"]["last"] > reply.v


def test_a_save_with_an_unknown_base_may_be_all_there_is(chat: Chat) -> None:
    blind(chat, put("m", "m1", content="a"))
    assert [out.outcome for out in replay(chat)] == ["accepted"]
    assert chat.message("m1").content == "a"


def test_replay_takes_a_long_journal_in_pieces_in_order(chat: Chat) -> None:
    blind(chat, put("m", "m1", st="streaming", content=""))
    for step in range(50):
        blind(chat, append("m1", step, chr(65 + step)))
    assert chat.adopt() == "ok"
    left = []
    while True:
        reply = chat.buffer.save(chat.place, [], mode="replay")
        left.append(reply.left)
        # Saves go to the tail meanwhile, reads stay partial, nothing is flushed.
        if reply.left:
            assert chat.buffer.save(chat.place, [put("m", "m2")]).s == "blind"
            assert chat.buffer.read(chat.place).head.partial
            waiting = chat.buffer.rows(chat.place.keys, chat.due(), 1 << 20)
            assert waiting
            assert {(row.record, row.waits) for row in waiting} == {(None, True)}
            assert chat.settle("m/m1", at_ms=4_000_000_000_000) == 0
            assert chat.evict() == 0
        else:
            break
    assert left == [31, 11, 0]
    assert chat.message("m1").content == "".join(chr(65 + step) for step in range(50))
    assert not chat.buffer.read(chat.place).head.partial
    assert chat.flush() == (2, 0)


def test_saves_made_during_the_replay_follow_in_order(chat: Chat) -> None:
    blind(chat, put("m", "m1", st="streaming", content="a"))
    assert chat.adopt() == "ok"
    blind(chat, append("m1", 1, "b"))
    reply = chat.buffer.save(chat.place, [], mode="replay")
    assert (reply.left, len(reply.items)) == (0, 2)
    assert chat.message("m1").content == "ab"


def test_replaying_twice_changes_nothing(chat: Chat) -> None:
    blind(chat, put("m", "m1", content="a"))
    replay(chat)
    before = chat.check()
    reply = chat.buffer.save(chat.place, [], mode="replay")
    assert (reply.s, reply.items, reply.left) == ("done", (), 0)
    assert chat.check() == before


def test_a_journal_without_its_base_is_not_replayed(away: Chat) -> None:
    blind(away, put("m", "m4"))
    assert away.buffer.save(away.place, [], mode="replay").s == "cold"
    assert away.buffer.client.llen(away.place.keys.journal(away.place.hex)) == 1


def test_a_base_that_waits_for_its_journal_is_not_evicted(away: Chat) -> None:
    blind(away, put("m", "m4"))
    assert away.adopt() == "ok"
    assert away.evict() == 0
    assert [out.outcome for out in replay_adopted(away)] == ["accepted"]


def test_a_conversation_deleted_in_the_blind_is_deleted(away: Chat) -> None:
    blind(away, put("m", "m4"))
    assert blind(away, Delete("c", ""))[0].outcome == "accepted"
    assert away.send(put("m", "m5"), mode="blind").s == "gone"
    replay(away)
    assert set(away.check()) == {"h", "c/"}
    assert away.send(put("m", "m5")).s == "gone"


def test_blind_saves_of_a_conversation_deleted_before_are_superseded(away: Chat) -> None:
    away.delete("c")
    away.flush()
    assert away.evict() == 1
    blind(away, put("m", "m4"), put("m", "m1", content="x", rev=9))
    assert [out.outcome for out in replay(away)] == ["gone", "gone"]
    assert away.lost == 2
    assert set(away.check()) == {"h", "c/"}


def test_limits_hold_in_the_blind_and_at_the_replay(limited: Any) -> None:
    chat = limited(BLOTTER_MAX_CONVERSATION_ITEMS="3")
    chat.put("m", "m1")
    chat.put("m", "m2")
    chat.flush()
    chat.evict()
    outcomes = blind(chat, *(put("m", f"new{n}") for n in range(4)))
    assert [out.outcome for out in outcomes] == ["accepted"] * 3 + ["too-many-items"]
    assert [out.outcome for out in replay(chat)] == ["accepted", "too-many-items", "too-many-items"]
    assert chat.lost == 2


def test_a_whole_call_is_kept_or_nothing(away: Chat) -> None:
    reply = away.send(*(put("m", f"n{n}", content="x") for n in range(50)), mode="blind")
    assert {out.outcome for out in reply.items} == {"accepted"}
    assert away.buffer.client.llen(away.place.keys.journal(away.place.hex)) == 50
    replay(away)
    order = sorted((f"n{n}" for n in range(50)), key=lambda name: away.message(name).position)
    assert order == [f"n{n}" for n in range(50)]


def test_blind_saves_answer_no_bell_and_are_listed(chat: Chat) -> None:
    reply = chat.send(put("m", "m1"), mode="blind")
    assert (reply.ring, reply.list is not None) == (False, True)
