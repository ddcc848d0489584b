"""What the flusher calls: whole rows out, only what was committed forgotten, poison set aside, idle conversations gone."""

from __future__ import annotations

import pytest

from models.buffer.buffer import Buffer
from models.core.commands import Delete
from tests.buffer.chat import Chat, append, put


def ref(chat: Chat, name: str) -> str:
    return f"{chat.place.hex}/{name}"


# ------------------------------------------------------------------ rows
def test_a_row_is_given_whole_with_its_owner(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="ab", parts=[{"type": "text", "text": "x😀"}])
    for step in range(18):
        chat.append("m1", 2 + step, "c")
        chat.append("m1", 3 + step, "y", part=0)
    [(_, given)] = chat.peek([ref(chat, "m/m1")])
    assert given == chat.message("m1")
    [(_, own)] = chat.peek([ref(chat, "c/")])
    assert (own.owner, own.id) == ("owner", "chat")  # type: ignore[union-attr]


def test_rows_of_several_conversations_come_in_one_call(quick_buffer: Buffer) -> None:
    chats = [Chat(quick_buffer, "owner", f"chat{n}") for n in range(5)]
    for number, chat in enumerate(chats):
        chat.put("m", "m1", content=str(number))
    refs = [found.decode() for found in quick_buffer.client.zrange(chats[0].place.keys.due, 0, -1)]
    given = {row.ref: row.record for row in quick_buffer.rows(chats[0].place.keys, refs, 1 << 20)}
    assert {given[ref(chat, "m/m1")].content for chat in chats} == set("01234")  # type: ignore[union-attr]
    assert len(given) == 10


def test_rows_stop_at_the_bytes_allowed_but_give_at_least_one(chat: Chat) -> None:
    for name in ("m1", "m2", "m3"):
        chat.put("m", name, content="x" * 1000)
    refs = [ref(chat, name) for name in ("m/m1", "m/m2", "m/m3")]
    assert [
        len(chat.buffer.rows(chat.place.keys, refs, most)) for most in (1, 1200, 1201, 2400, 1 << 20)
    ] == [1, 1, 2, 2, 3]
    stale = [ref(chat, "a/none"), *refs]
    assert [row.record is None for row in chat.buffer.rows(chat.place.keys, stale, 1)] == [True, False]


def test_a_clean_gone_or_dead_row_has_a_stale_due_entry(chat: Chat) -> None:
    chat.put("m", "m1")
    chat.flush()
    chat.put("m", "m2")
    chat.buffer.bury(ref(chat, "m/m2"), chat.message("m2").version, "{}")
    keys = chat.place.keys
    other = chat.buffer.place("owner", "elsewhere")
    while other.keys is not keys:
        other = chat.buffer.place("owner", other.id + "x")
    refs = sorted([ref(chat, "m/m1"), ref(chat, "m/m2"), ref(chat, "m/none"), f"{other.hex}/m/m1"])
    chat.buffer.client.zadd(keys.due, dict.fromkeys(refs, 1))
    given = chat.buffer.rows(keys, refs, 1 << 20)
    assert [(row.ref, row.record, row.waits) for row in given] == [(name, None, False) for name in refs]
    assert chat.buffer.acknowledge(keys, [(name, 0) for name in refs]) == (0, 0)
    assert set(chat.due()) == {ref(chat, "c/")}
    assert "x" in chat.row("m/m2")


# ------------------------------------------------------------------ acknowledge
def test_only_what_was_committed_is_forgotten(chat: Chat) -> None:
    """Prevents: a save that arrived between peek and commit being forgotten."""
    chat.put("m", "m1", content="a")
    chat.put("m", "m2", content="a")
    peeked = chat.peek()
    chat.put("m", "m1", content="b")
    assert chat.acknowledge(chat.commit(peeked)) == (2, 1)
    assert set(chat.due()) == {ref(chat, "m/m1")}
    assert chat.message("m1").content == "b"
    assert chat.row("m/m1")["z"] == peeked[1][1].version
    assert chat.flush() == (1, 0)
    assert chat.store.rows["m/m1"].content == "b"  # type: ignore[union-attr]


def test_an_acknowledgement_may_come_twice_and_late(chat: Chat) -> None:
    chat.put("m", "m1", content="a")
    committed = chat.commit(chat.peek())
    chat.acknowledge(committed)
    assert chat.acknowledge(committed) == (0, 0)
    chat.put("m", "m1", content="b")
    later = chat.commit(chat.peek())
    assert chat.acknowledge(committed) == (0, 1)
    assert chat.acknowledge(later) == (1, 0)
    assert chat.acknowledge(committed) == (0, 0)
    assert chat.row("m/m1")["z"] == later[0][1]
    assert chat.evict() == 1
    assert chat.acknowledge(later) == (0, 0)


def test_a_late_acknowledgement_does_not_make_a_dead_letter_due(chat: Chat) -> None:
    chat.put("m", "m1", content="a")
    committed = chat.commit(chat.peek())
    chat.put("m", "m1", content="poison")
    assert chat.buffer.bury(ref(chat, "m/m1"), chat.message("m1").version, "{}")
    chat.acknowledge(committed)
    assert chat.due() == []
    assert chat.row("m/m1")["x"] == 1


def test_an_acknowledgement_of_what_was_buried_frees_it(chat: Chat) -> None:
    """Its commit was in truth done, by another flusher."""
    chat.put("m", "m1", content="a")
    committed = chat.commit(chat.peek())
    chat.buffer.bury(ref(chat, "m/m1"), chat.message("m1").version, "{}")
    assert chat.acknowledge(committed) == (2, 0)
    assert "x" not in chat.row("m/m1")


def test_an_open_message_is_due_at_doubling_intervals_and_at_once_when_finished(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="")
    stream, autosave = 1000, 30_000

    def due_in() -> int:
        score = chat.buffer.client.zscore(chat.place.keys.due, ref(chat, "m/m1"))
        return round(score - chat.row("m/m1")["t"])  # type: ignore[operator]

    assert due_in() == stream
    expected = stream
    for step in range(7):
        chat.flush()
        expected = min(expected * 2, autosave)
        chat.append("m1", step, "x")
        assert due_in() == expected
        chat.append("m1", step, "x")
    # Changed while it was flushed: due again after the next interval.
    peeked = chat.peek()
    chat.append("m1", 7, "x")
    chat.acknowledge(chat.commit(peeked))
    assert abs(due_in() - autosave) < 1000
    chat.append("m1", 8, "", st="complete")
    assert due_in() <= 0
    chat.put("m", "m1", st="streaming", content="xxxxxxxx", rev=1)
    chat.flush()
    chat.put("m", "m1", st="streaming", content="xxxxxxxxx", rev=2)
    assert due_in() > 0


def test_what_finished_while_it_was_flushed_is_due_at_once(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="a")
    peeked = chat.peek()
    chat.append("m1", 1, "b", st="complete")
    chat.acknowledge(chat.commit(peeked))
    assert chat.buffer.ripe(chat.place.keys, 10) == [ref(chat, "m/m1")]


def test_saves_only_bring_due_forward(chat: Chat) -> None:
    chat.buffer.now_us = 1_700_000_000_000_000
    chat.put("m", "m1", st="streaming", content="a")
    key, name = chat.place.keys.due, ref(chat, "m/m1")
    first = chat.buffer.client.zscore(key, name)
    chat.buffer.now_us += 500_000
    chat.append("m1", 1, "b")
    assert chat.buffer.client.zscore(key, name) == first
    chat.save(put("m", "m1", metadata={}), pull=True)
    assert chat.buffer.client.zscore(key, name) == chat.buffer.now_us // 1000


def test_a_duplicate_that_waits_for_the_store_is_pulled_too(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="a")
    chat.buffer.client.delete(chat.place.keys.bell)
    reply = chat.send(put("m", "m1", content="a"), pull=True)
    assert (reply.items[0].outcome, reply.ring) == ("duplicate", True)
    assert ref(chat, "m/m1") in chat.buffer.ripe(chat.place.keys, 10)
    chat.flush()
    reply = chat.send(put("m", "m1", content="a"), pull=True)
    assert chat.due() == []


# ------------------------------------------------------------------ dead letters
def test_a_buried_row_is_readable_kept_and_not_due(chat: Chat) -> None:
    out = chat.put("m", "m1", content="poison")
    assert chat.buffer.bury(ref(chat, "m/m1"), out.version, '{"sqlstate":"23514"}')
    chat.check()
    assert chat.buffer.bury(ref(chat, "m/m1"), out.version, '{"sqlstate":"23514"}')
    assert chat.due() == [ref(chat, "c/")]
    assert chat.flush() == (1, 0)
    assert chat.evict() == 0
    assert chat.message("m1").content == "poison"
    assert chat.header()["dead"] == 1


def test_a_newer_save_is_not_buried_for_an_older_ones_fault(chat: Chat) -> None:
    out = chat.put("m", "m1", content="poison")
    chat.put("m", "m1", content="cured")
    assert not chat.buffer.bury(ref(chat, "m/m1"), out.version, "{}")
    assert chat.flush() == (2, 0)
    assert not chat.buffer.bury(ref(chat, "m/m1"), chat.message("m1").version, "{}")
    assert not chat.buffer.bury(ref(chat, "m/none"), 1, "{}")
    chat.check()


def test_the_next_accepted_save_frees_a_dead_letter(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="poison")
    chat.buffer.bury(ref(chat, "m/m1"), chat.message("m1").version, "{}")
    assert chat.append("m1", 6, "").outcome == "duplicate"
    assert chat.row("m/m1")["x"] == 1
    assert chat.append("m1", 6, "!").outcome == "accepted"
    assert "x" not in chat.row("m/m1")
    assert chat.flush() == (2, 0)


def test_a_replayed_dead_letter_is_due_again(chat: Chat) -> None:
    chat.put("m", "m1", content="poison")
    chat.buffer.bury(ref(chat, "m/m1"), chat.message("m1").version, "{}")
    assert chat.buffer.revive(ref(chat, "m/m1"), "replay")
    assert not chat.buffer.revive(ref(chat, "m/m1"), "replay")
    assert ref(chat, "m/m1") in chat.buffer.ripe(chat.place.keys, 10)
    assert chat.flush() == (2, 0)


@pytest.mark.parametrize("name", ["m/m1", "a/a1", "v/a1/1", "c/", "t/t1"])
def test_a_purged_dead_letter_leaves_what_the_store_has(chat: Chat, name: str) -> None:
    chat.put("c", "", title="good", metadata={"a": 1})
    chat.put("m", "m1", st="streaming", content="good")
    chat.put("t", "t1", state="input-available", message_id="m1")
    chat.put("a", "a1", content="good", message_id="m9")
    poisoned = {
        "m/m1": put("m", "m1", content="poison", metadata={"b": 2}), "a/a1": put("a", "a1", title="poison"),
        "v/a1/1": put("m", "m1", content="x"), "c/": put("c", "", title="poison"), "t/t1": put("t", "t1", output="poison"),
    }  # fmt: skip
    if name != "v/a1/1":
        chat.flush()
    chat.save(poisoned[name])
    version = chat.check()[name]["v"]
    assert chat.buffer.bury(ref(chat, name), version, "{}")
    assert chat.buffer.revive(ref(chat, name), "purge")
    chat.check()
    # The next touch finds the conversation suspect and adopts what Postgres has of the row.
    assert chat.buffer.save(chat.place, [put("m", "m2")]).s == "suspect"
    if name != "v/a1/1":
        assert chat.adopt() == "merged"
        kept = chat.store.rows[name]
        assert chat.record_of(name) == kept
    else:
        chat.flush()
        assert chat.adopt() == "merged"
    assert chat.put("m", "m2").outcome == "accepted"


# ------------------------------------------------------------------ evict
def test_a_conversation_leaves_whole_and_raises_the_epoch(chat: Chat) -> None:
    chat.put("m", "m1", content="a")
    chat.flush()
    before = chat.buffer.epoch(chat.place)
    assert chat.buffer.evict(chat.place.keys, chat.place.hex, 60_000) == 0
    assert chat.evict() == 1
    assert chat.buffer.epoch(chat.place) == before + 1
    assert chat.evict() == -1
    assert chat.buffer.read(chat.place).head.s == "cold"
    assert chat.buffer.client.keys("*" + chat.place.hex + "*") == []


@pytest.mark.parametrize("reason", ["dirty", "open", "dead", "tool"])
def test_what_is_not_stored_or_in_flight_is_not_evicted(chat: Chat, reason: str) -> None:
    """Prevents: a dirty, dead or in-flight row forgotten."""
    chat.put("m", "m1", content="a")
    chat.flush()
    if reason == "dirty":
        chat.put("m", "m1", content="b")
    elif reason == "open":
        chat.put("m", "m2", st="pending")
        chat.flush()
    elif reason == "dead":
        chat.put("m", "m1", content="b")
        chat.buffer.bury(ref(chat, "m/m1"), chat.message("m1").version, "{}")
    else:
        chat.put("m", "m2", parts=[{"type": "tool-x", "toolCallId": "c", "state": "input-available"}])
        chat.flush()
    before = chat.buffer.epoch(chat.place)
    chat.buffer.client.zadd(chat.place.keys.idle, {chat.place.hex: 1})
    assert chat.evict() == 0
    assert chat.buffer.epoch(chat.place) == before
    # Others get their turn first.
    assert (chat.buffer.client.zscore(chat.place.keys.idle, chat.place.hex) or 0) > 1


# ------------------------------------------------------------------ owner's index
def test_a_newer_row_does_not_fall_out_of_its_owners_list(chat: Chat) -> None:
    """Prevents: a newer dirty row (listed with its higher version) falling out of the list."""
    chat.buffer.index_apart = True
    first = chat.send(put("m", "m1"), fresh=True)
    assert first.list is not None
    chat.buffer.list_for_owner(chat.place, first.list)
    second = chat.send(put("m", "m2"))
    assert second.list is not None
    assert second.list > first.list
    chat.buffer.list_for_owner(chat.place, second.list)
    # The first save's call comes late.
    chat.buffer.list_for_owner(chat.place, first.list)
    assert chat.buffer.unlist("owner", [(chat.place.uid, first.list)]) == 0
    assert chat.buffer.unlist("owner", [(chat.place.uid, second.list)]) == 1
    assert chat.buffer.unlist("owner", [(chat.place.uid, second.list)]) == 0


def test_every_save_says_to_list_while_the_conversations_row_is_dirty(chat: Chat) -> None:
    chat.buffer.index_apart = True
    first = chat.send(put("m", "m1", st="streaming", content="a"), fresh=True)
    own = chat.record_of("c/").version
    assert first.list == own
    assert (
        chat.send(put("m", "m1", content="a")).list == own
    )  # a duplicate: the first answer may have been lost
    chat.flush()
    assert chat.send(put("m", "m1", content="b")).list is None
    deleted = chat.send(Delete("c", ""))
    assert deleted.list == chat.record_of("c/").version > own


# ------------------------------------------------------------------ the doorbell
def test_the_doorbell_rings_once_until_it_is_answered(chat: Chat) -> None:
    keys = chat.place.keys
    assert chat.send(put("m", "m1"), fresh=True).ring
    assert not chat.send(put("m", "m2")).ring
    assert chat.buffer.client.pttl(keys.bell) > 4000
    assert chat.buffer.begin(keys, "flusher").state == "taken"
    assert chat.send(put("m", "m3")).ring


def test_what_is_due_later_does_not_ring(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="a")
    chat.flush()
    chat.buffer.client.delete(chat.place.keys.bell)
    assert not chat.send(put("m", "m1", st="streaming", content="ab")).ring
    assert chat.send(put("m", "m1", st="complete")).ring


def test_a_paused_partition_does_not_ring(chat: Chat) -> None:
    chat.buffer.client.set(chat.place.keys.hold, "1")
    assert not chat.send(put("m", "m1"), fresh=True).ring
    assert not chat.buffer.client.exists(chat.place.keys.bell)


def test_a_reply_pulled_while_an_older_one_is_committed_does_not_wait_for_its_interval(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="a")
    peeked = chat.peek()
    chat.save(append("m1", 1, "b"), pull=True)
    chat.acknowledge(chat.commit(peeked))
    place = chat.place
    assert f"{place.hex}/m/m1" in chat.buffer.ripe(place.keys, 10)
    peeked = chat.peek()
    chat.append("m1", 2, "c")
    chat.acknowledge(chat.commit(peeked))
    assert "pl" not in chat.row("m/m1"), "what was waited for is stored"
    assert f"{place.hex}/m/m1" not in chat.buffer.ripe(place.keys, 10)
