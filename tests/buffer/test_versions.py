"""The server's version and positions: one counter a conversation, exact, only upwards."""

from __future__ import annotations

import pytest

from models.core.commands import Delete
from tests.buffer.chat import Chat, append, put, set_part


def test_every_accepted_change_has_a_version_of_its_own(chat: Chat) -> None:
    chat.buffer.now_us = 1_900_000_000_123_457
    seen = set()
    for command in [
        put("m", "m1", st="streaming", content="a"), append("m1", 1, "b"), append("m1", 2, "c"),
        set_part("m1", 0, {"type": "step-start"}), put("t", "t1", message_id="m1"), put("a", "a1", content="v"),
        put("c", "", title="t"), Delete("m", "m2"), append("m1", 3, "", st="complete"),
    ]:  # fmt: skip
        version = chat.save(command).version
        assert version not in seen
        assert not seen or version > max(seen)
        seen.add(version)


@pytest.mark.parametrize("now_us", [1_000_000, 1_763_800_000_123_457, 1_900_000_000_000_001, 2**53 - 100])
def test_versions_are_exact_and_follow_the_clock(chat: Chat, now_us: int) -> None:
    chat.buffer.now_us = now_us
    first = chat.put("m", "m1", role="user")
    assert first.version == now_us
    assert chat.message("m1").position == f"{now_us:020d}"
    chat.buffer.now_us += 50
    out = chat.put("m", "m1", content="x")
    assert out.version == now_us + 50
    assert chat.flush() == (2, 0)
    assert chat.header()["last"] == now_us + 50
    assert chat.buffer.client.zscore(chat.place.keys.idle, chat.place.hex) == (now_us + 50) // 1000


def test_a_clock_that_goes_back_takes_no_version_back(chat: Chat) -> None:
    chat.buffer.now_us = 1_900_000_000_000_000
    first = chat.put("m", "m1", content="a")
    last = chat.header()["last"]
    chat.buffer.now_us -= 3_600_000_000
    second = chat.put("m", "m1", content="b")
    assert second.version == last + 1 > first.version
    third = chat.put("m", "m2", content="c")
    assert third.version > second.version
    assert chat.message("m2").position > chat.message("m1").position


def test_versions_never_fall_below_what_the_store_holds(chat: Chat) -> None:
    chat.buffer.now_us = 1_700_000_000_000_000
    out = chat.put("m", "m1", content="a")
    chat.flush()
    chat.buffer.now_us = 1_500_000_000_000_000
    assert chat.evict() == 1
    late = chat.put("m", "m1", content="b")
    assert late.version > out.version


def test_versions_never_fall_below_the_purge_horizon(chat: Chat) -> None:
    assert chat.adopt(horizon=1_950_000_000_000_000) == "ok"
    assert chat.put("m", "m1").version > 1_950_000_000_000_000
    assert chat.header()["ph"] == 1_950_000_000_000_000


def test_messages_are_ordered_by_their_first_acceptance(chat: Chat) -> None:
    for name in ("m1", "m2", "m3"):
        chat.put("m", name, st="streaming")
    reply = chat.send(put("m", "m5"), put("m", "m4"), put("m", "m1", content="late"))
    assert reply.s == "done"
    order = sorted(("m1", "m2", "m3", "m4", "m5"), key=lambda name: chat.message(name).position)
    assert order == ["m1", "m2", "m3", "m5", "m4"]


def test_a_message_may_be_placed_between_its_neighbours_if_they_did_not_move(chat: Chat) -> None:
    chat.put("m", "m1")
    chat.put("m", "m3")
    seen = chat.header()["mp"]
    between = chat.message("m1").position + "5"
    out = chat.save(put("m", "m2", pos=between), expect_mp=seen)
    assert out.outcome == "accepted"
    assert chat.message("m1").position < chat.message("m2").position < chat.message("m3").position
    # Somebody else placed a message meanwhile: look again.
    assert chat.send(put("m", "m2b", pos=between + "5"), expect_mp=seen).s == "moved"
    assert "m/m2b" not in chat.views()
    assert chat.send(put("m", "m2b", pos=between + "5"), expect_mp=chat.header()["mp"]).s == "done"


def test_updates_do_not_count_as_moves(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming")
    seen = chat.header()["mp"]
    chat.append("m1", 0, "x")
    chat.put("t", "t1", message_id="m1")
    assert chat.header()["mp"] == seen


def test_a_position_sent_for_a_known_message_is_ignored(chat: Chat) -> None:
    chat.put("m", "m1")
    before = chat.message("m1").position
    assert chat.save(put("m", "m1", pos="0")).outcome == "duplicate"
    assert chat.message("m1").position == before


def test_since_answers_what_changed_after_a_version_tombstones_included(chat: Chat) -> None:
    chat.put("m", "m1", content="a")
    chat.put("m", "m2", content="b")
    seen = chat.header()["last"]
    chat.put("m", "m2", content="c")
    chat.delete("m", "m1")
    chat.put("t", "t1", output=1)
    # The conversation's own row is always in it.
    assert set(chat.views(mode="since", since=seen)) == {"c/", "m/m1", "m/m2", "t/t1"}
    assert set(chat.views(mode="since", since=chat.header()["last"])) == {"c/"}
    assert set(chat.views(mode="since", since=0)) == {"c/", "m/m1", "m/m2", "t/t1"}


def test_a_read_of_names_chosen_at_another_version_is_refused(chat: Chat) -> None:
    chat.put("m", "m1", content="a")
    seen = chat.header()["last"]
    assert set(chat.views(mode="names", names=["m/m1", "m/none"], at=seen)) == {"m/m1"}
    chat.put("m", "m1", content="b")
    assert chat.buffer.read(chat.place, "names", names=["m/m1"], at=seen).head.s == "moved"


def test_a_large_conversation_is_read_by_rows_first(chat: Chat) -> None:
    chat.put("m", "m1", content="x" * 100)
    reply = chat.buffer.read(chat.place, most=50)
    assert (reply.head.whole, [item.bodies for item in reply.items]) == (False, [False, False])
    assert {item.name: item.row.k for item in reply.items}["m/m1"] == {"content": (100, 100)}
    assert chat.buffer.read(chat.place, most=100).head.whole


def test_live_readers_are_hinted_with_the_exact_version(chat: Chat) -> None:
    chat.adopt()
    pubsub = chat.buffer.client.pubsub()
    pubsub.ssubscribe(chat.place.keys.live)
    assert pubsub.get_message(timeout=5)["type"] == "ssubscribe"
    chat.buffer.now_us = 1_900_000_000_123_457

    def hinted() -> list[str]:
        message = pubsub.get_message(timeout=5)
        assert message is not None
        text: str = message["data"].decode()
        return text.split(" ")

    chat.put("m", "m1", st="streaming")
    assert hinted()[:2] == [chat.place.hex, str(chat.header()["last"])]
    out = chat.append("m1", 0, "x")
    assert hinted() == [chat.place.hex, str(out.version), str(out.version - 1), "m/m1"]
    assert chat.append("m1", 0, "x").outcome == "duplicate"
    chat.settle_stale("m/m1")
    assert hinted()[:2] == [chat.place.hex, str(chat.header()["last"])]
    assert pubsub.get_message(timeout=0.05) is None
    pubsub.close()
