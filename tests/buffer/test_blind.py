"""Blind: saves kept without their base while Postgres is away, and merged by the same rules when it is back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.buffer.buffer import REPLAY_BYTES
from models.core.commands import Command, Delete, ItemOutcome
from models.core.threads import between
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
        chat.lost += sum(reply.lost.values())
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


def test_a_replay_takes_few_large_entries_at_a_time(away: Chat) -> None:
    """Twenty of 4 MiB held the server, and with it everybody's saves, for half a second."""
    for number in range(3):
        blind(away, put("m", f"n{number}", content="x" * (REPLAY_BYTES * 2 // 3)))
    blind(away, put("m", "large", content="x" * REPLAY_BYTES * 2))
    blind(away, put("m", "small", content="x"))
    assert away.adopt() == "ok"
    left = []
    while not left or left[-1]:
        left.append(away.buffer.save(away.place, [], mode="replay").left)
    assert left == [3, 1, 0]
    assert {"m/n0", "m/n1", "m/n2", "m/large", "m/small"} < set(away.views())


def test_appends_go_only_to_what_the_journal_created(away: Chat) -> None:
    outcomes = blind(away, append("m2", 5, " you"), set_part("m2", 0, {"type": "step-start"}))
    assert [out.outcome for out in outcomes] == ["unavailable", "unavailable"]
    assert away.buffer.client.keys("*j:*") == []
    outcomes = blind(
        away, put("m", "m4", st="pending", content=""), append("m4", 0, "x"), append("m4", 5, "x")
    )
    assert [out.outcome for out in outcomes] == ["accepted", "accepted", "append-gap"]


@pytest.mark.parametrize(
    ("said", "command", "outcome"),
    [
        # Nothing is known of the text: what fits is kept, for what does not the base is asked.
        ({"st": "streaming"}, append("m4", 0, "x"), "accepted"),
        ({"st": "streaming"}, append("m4", 5, "x"), "unavailable"),
        ({"st": "streaming"}, append("m4", 0, "x", part=0), "unavailable"),
        ({"st": "streaming"}, set_part("m4", 0, {"type": "step-start"}), "accepted"),
        ({"st": "streaming"}, set_part("m4", 1, {"type": "step-start"}), "unavailable"),
        # The text was sent.
        ({"st": "streaming", "content": "ab"}, append("m4", 5, "x"), "append-gap"),
        ({"st": "streaming", "content": "ab"}, append("m4", 0, "x"), "append-mismatch"),
        ({"st": "streaming", "content": None}, append("m4", 5, "x"), "append-gap"),
        ({"st": "streaming", "parts": []}, append("m4", 5, "x"), "unavailable"),
        ({"st": "streaming", "parts": []}, append("m4", 0, "x", part=0), "part-gap"),
        # Created as complete, unless it was there and is open.
        ({"content": "ab"}, append("m4", 2, "x"), "unavailable"),
        ({"content": "ab", "st": "complete"}, append("m4", 2, "x"), "terminal"),
        # The base may hold the fields that make it equal.
        ({"rev": 2, "metadata": {}}, put("m", "m4", rev=2, content="x"), "unavailable"),
        ({"rev": 2, "metadata": {}}, put("m", "m4", rev=1, content="x"), "stale-revision"),
    ],
)
def test_a_blind_save_is_refused_only_for_what_the_journal_says_itself(
    chat: Chat, said: dict[str, Any], command: Command, outcome: str
) -> None:
    blind(chat, put("m", "m4", **said))
    assert [out.outcome for out in blind(chat, command)] == [outcome]


def test_what_the_image_takes_for_old_is_tried_again_with_the_base(away: Chat) -> None:
    """The image takes an item without a status for complete; in the base it is open."""
    blind(away, put("m", "m2", metadata={"a": 1}))
    [out] = blind(away, put("m", "m2", st="streaming", content="hello you"))
    assert out.outcome == "noop"
    assert [out.outcome for out in replay(away)] == ["accepted", "accepted"]
    assert away.message("m2").content == "hello you"


def test_a_noop_that_stays_one_is_not_counted_as_superseded(chat: Chat) -> None:
    blind(chat, put("m", "m1", st="complete", content="done"))
    assert [out.outcome for out in blind(chat, put("m", "m1", st="streaming", content="do"))] == ["noop"]
    assert [out.outcome for out in replay(chat)] == ["accepted", "noop"]
    assert chat.lost == 0


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


def test_limits_hold_in_the_blind_and_no_more_at_the_replay(limited: Any) -> None:
    """What was acknowledged without the base is kept, though with the base it is too much."""
    chat = limited(BLOTTER_MAX_CONVERSATION_ITEMS="3")
    chat.put("m", "m1")
    chat.put("m", "m2")
    chat.flush()
    chat.evict()
    outcomes = blind(chat, *(put("m", f"new{n}") for n in range(4)))
    assert [out.outcome for out in outcomes] == ["accepted"] * 3 + ["too-many-items"]
    assert [out.outcome for out in replay(chat)] == ["accepted"] * 3
    assert chat.lost == 0
    assert chat.put("m", "m3").outcome == "too-many-items"


@pytest.mark.parametrize(
    "limit", [{"BLOTTER_MAX_ITEM_BYTES": "1024"}, {"BLOTTER_MAX_CONVERSATION_BYTES": "1024"}]
)
def test_a_text_acknowledged_in_the_blind_is_kept_beyond_the_limit_of_bytes(
    limited: Any, limit: dict[str, str]
) -> None:
    chat = limited(**limit)
    chat.put("m", "m1", metadata={"x": "y" * 600})
    chat.flush()
    chat.evict()
    blind(chat, put("m", "m1", st="streaming", content="x" * 600, rev=1), append("m1", 600, "x" * 300))
    assert [out.outcome for out in replay(chat)] == ["accepted", "accepted"]
    assert chat.message("m1").content == "x" * 900


# ------------------------------------------------------------------ times
def test_times_are_those_of_the_save_not_of_its_replay(chat: Chat) -> None:
    chat.buffer.now_us = 1_800_000_000_000_000
    blind(chat, put("m", "m1", st="streaming", content="a"))
    chat.buffer.now_us = 1_800_000_010_000_000
    blind(chat, append("m1", 1, "b"), Delete("m", "m2"))
    chat.buffer.now_us = 1_800_000_900_000_000
    assert [out.outcome for out in replay(chat)] == ["accepted"] * 3
    rows = chat.check()
    assert (rows["m/m1"]["c"], rows["m/m1"]["u"]) == (1_800_000_000_000, 1_800_000_010_000)
    assert (rows["m/m2"]["d"], rows["c/"]["c"]) == (1_800_000_010_000, 1_800_000_000_000)
    assert (rows["c/"]["lm"], rows["c/"]["u"]) == (1_800_000_000_000, 1_800_000_000_000)
    # Versions are above any that was told, and silence counts from now: there may have been signs of life.
    assert rows["m/m1"]["v"] >= 1_800_000_900_000_000
    assert rows["m/m1"]["o"] == 1_800_000_900_000 + chat.buffer.stale.plain_ms


def test_a_save_of_the_future_is_dated_now(chat: Chat) -> None:
    """The clock went back between the save and its replay."""
    chat.buffer.now_us = 1_900_000_000_000_000
    blind(chat, put("m", "m1", content="a"))
    chat.buffer.now_us = 1_850_000_000_000_000
    replay(chat)
    assert chat.row("m/m1")["c"] == 1_850_000_000_000


# ------------------------------------------------------------------ places
def follow(item_id: str, before: str | None) -> Command:
    return msgspec.structs.replace(put("m", item_id, content=item_id), before=before)


def in_order(chat: Chat) -> list[str]:
    found = [view for view in chat.views().values() if view.kind == "m" and view.row.d is None]
    return [view.id for view in sorted(found, key=lambda view: (view.row.p or "", view.id))]


@pytest.mark.parametrize("calls", [1, 2, 9])
def test_new_messages_of_a_blind_sync_stand_before_the_known_ones_that_follow(chat: Chat, calls: int) -> None:
    for known in ("k1", "k2", "k3"):
        chat.put("m", known, content=known)
    chat.flush()
    chat.evict()
    order = ["n1", "k1", "n2", "n3", "n4", "k2", "k3", "n5", "n6"]
    sync = [follow(a, b) for a, b in zip(order, [*order[1:], None], strict=True)]
    for number in range(calls):
        size = len(sync) // calls + 1
        if sync[number * size : (number + 1) * size]:
            blind(chat, *sync[number * size : (number + 1) * size])
    assert in_order(chat) == order
    replay(chat)
    assert in_order(chat) == order
    assert "nb" not in chat.header()


def test_a_long_run_is_placed_in_pieces_and_in_order(chat: Chat) -> None:
    chat.put("m", "k", content="k")
    chat.flush()
    chat.evict()
    order = [f"n{number:02}" for number in range(60)] + ["k", "z"]
    pairs = list(zip(order, [*order[1:], None], strict=True))
    for start in range(0, 62, 31):
        blind(chat, *(follow(a, b) for a, b in pairs[start : start + 31]))
    replay(chat)
    assert in_order(chat) == order
    assert max(len(view.row.p or "") for view in chat.views().values()) < 50


def test_a_blind_sync_between_messages_that_were_placed_before(chat: Chat) -> None:
    """Fractions among each other, as threads.between makes them."""
    chat.put("m", "k1", content="k1")
    chat.put("m", "k2", content="k2")
    left, right = (chat.row(f"m/{name}")["p"] for name in ("k1", "k2"))
    for number in range(30):
        right = between(left, right) if number % 2 else right
        left = left if number % 2 else between(left, right)
        chat.put("m", f"p{number:02}", pos=left if number % 2 == 0 else right)
    before = in_order(chat)
    chat.flush()
    chat.evict()
    order = [name for known in before for name in (f"n{known}", known)]
    pairs = list(zip(order, [*order[1:], None], strict=True))
    for start in range(0, len(pairs), 40):
        blind(chat, *(follow(a, b) for a, b in pairs[start : start + 40] if a.startswith("n")))
    replay(chat)
    assert in_order(chat) == order


def test_messages_that_wait_for_one_another_or_for_nothing(chat: Chat) -> None:
    blind(chat, follow("a", "b"), follow("b", "a"), follow("c", "never"))
    replay(chat)
    assert sorted(in_order(chat)) == ["a", "b", "c"]


# ------------------------------------------------------------------ beside a conversation that may be older than Postgres
@pytest.fixture
def set_back(chat: Chat) -> Chat:
    """Hot as it was some time ago: m1 "old" (streaming), m2 deleted. Postgres has more of m1 and m2, and another m3."""
    chat.put("m", "m1", st="streaming", content="old")
    chat.delete("m", "m2")
    chat.flush()
    chat.put("m", "here", content="dirty")
    rows = {key: chat.buffer.client.dump(key) for key in (chat.rows_key, chat.bodies_key)}
    indexes = {
        key: dict(chat.buffer.client.zrange(key, 0, -1, withscores=True))
        for key in (chat.place.keys.due, chat.place.keys.open)
    }
    chat.append("m1", 3, " and newer")
    chat.put("m", "m3", content="there")
    flushed = [(ref, row) for ref, row in chat.peek() if not ref.endswith("/here")]
    chat.acknowledge(chat.commit(flushed))
    for key, value in rows.items():
        chat.buffer.client.restore(key, 0, value, replace=True)
    for key, entries in indexes.items():
        chat.buffer.client.delete(key)
        chat.buffer.client.zadd(key, entries)
    for keys in chat.buffer.partitions:
        chat.buffer.client.hset(keys.meta, "run", "another")
    chat.buffer.initialise()
    return chat


def replay_merged(chat: Chat) -> list[ItemOutcome]:
    assert chat.adopt() == "merged"
    assert chat.header()["bl"] == 1
    return replay_adopted(chat)


def test_a_save_beside_an_older_conversation_does_not_win_over_what_postgres_has(set_back: Chat) -> None:
    assert set_back.buffer.save(set_back.place, [put("m", "m1")]).s == "suspect"
    blind(set_back, put("m", "m1", metadata={"a": 1}))
    assert [out.outcome for out in replay_merged(set_back)] == ["accepted"]
    kept = set_back.message("m1")
    assert (kept.content, kept.metadata) == ("old and newer", '{"a":1}')
    assert set_back.message("m3").content == "there"
    assert set_back.message("here").content == "dirty"
    set_back.flush()
    assert set_back.store.rows["m/m1"].content == "old and newer"  # type: ignore[union-attr]
    assert set_back.store.rows["m/here"].content == "dirty"  # type: ignore[union-attr]


def test_beside_an_older_conversation_no_text_is_judged_that_the_journal_did_not_send(set_back: Chat) -> None:
    outcomes = blind(
        set_back, append("m1", 3, "x"), append("m1", 9, "x"), set_part("m1", 0, {"type": "x"}), put("m", "m2")
    )
    assert [out.outcome for out in outcomes] == ["unavailable"] * 3 + ["gone"]
    assert set_back.buffer.client.keys("*j:*") == []
    assert set_back.buffer.client.keys(set_back.place.keys.image_rows(set_back.place.hex)) == []
    outcomes = blind(set_back, put("m", "m1", st="streaming", content="all new"), append("m1", 7, "!"))
    assert [out.outcome for out in outcomes] == ["accepted", "accepted"]
    # Shorter than what Postgres has: an older snapshot, by the rules.
    assert [out.outcome for out in replay_merged(set_back)] == ["noop", "append-mismatch"]
    assert set_back.message("m1").content == "old and newer"


def test_beside_an_older_conversation_readers_see_it_with_the_blind_saves(set_back: Chat) -> None:
    reply = set_back.send(put("m", "m4", content="new"), mode="blind")
    assert reply.v > set_back.header()["last"]
    reader = set_back.buffer.read(set_back.place)
    assert (reader.head.s, reader.head.partial) == ("ok", True)
    assert set(in_order(set_back)) == {"m1", "here", "m4"}
    # It waits for the merge.
    assert set_back.send(put("m", "m5")).s == "blind"
    assert set_back.evict() == 0
    assert set_back.settle("m/m1", at_ms=4_000_000_000_000) == 0
    replay_merged(set_back)
    assert set(in_order(set_back)) == {"m1", "m3", "here", "m4"}


def test_between_merge_and_replay_nothing_is_flushed_or_settled(set_back: Chat) -> None:
    blind(set_back, put("m", "m4", content="new"))
    assert set_back.adopt() == "merged"
    waiting = set_back.buffer.rows(set_back.place.keys, set_back.due(), 1 << 20)
    assert waiting
    assert {(row.record, row.waits) for row in waiting} == {(None, True)}
    assert set_back.settle("m/m1", at_ms=4_000_000_000_000) == 0
    replay_adopted(set_back)
    assert set_back.flush()[0] > 0


def test_a_conversation_deleted_beside_an_older_one_is_deleted(set_back: Chat) -> None:
    before = set_back.check()
    assert blind(set_back, Delete("c", ""))[0].outcome == "accepted"
    assert set_back.check() == before
    assert [out.outcome for out in replay_merged(set_back)] == ["accepted"]
    assert set(set_back.check()) == {"h", "c/"}
    set_back.flush()
    assert set_back.due() == []


def test_a_whole_call_is_kept_or_nothing(away: Chat) -> None:
    reply = away.send(*(put("m", f"n{n}", content="x") for n in range(50)), mode="blind")
    assert {out.outcome for out in reply.items} == {"accepted"}
    assert away.buffer.client.llen(away.place.keys.journal(away.place.hex)) == 50
    replay(away)
    order = sorted((f"n{n}" for n in range(50)), key=lambda name: away.message(name).position)
    assert order == [f"n{n}" for n in range(50)]


def test_blind_saves_answer_no_bell_and_are_listed(chat: Chat) -> None:
    reply = chat.send(put("m", "m1"), mode="blind")
    assert not reply.ring
    assert [*chat.buffer.listed(chat.place.owner)] == [chat.place.uid]
