"""Saving and reading through the pipeline, hot, cold and blind, on real servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.core import commands as c
from models.errors import BufferPolicyError, Gone, NotFound, StoreUnavailable
from models.pipeline import failpoints
from tests.flow.rig import Rig, rig
from tests.servers import eventually, start_postgres, start_valkey


@pytest.fixture
def chat(buffer_url: str, database_url: str) -> Iterator[Rig]:
    with rig(buffer_url, database_url) as made:
        yield made
    failpoints.disarm()


def test_a_save_is_readable_at_once_and_in_order(chat: Rig) -> None:
    for number in range(5):
        chat.say("c", f"m{number}", f"text {number}")
    assert chat.texts("c") == [(f"m{n}", f"text {n}") for n in range(5)]


def test_the_first_save_of_a_conversation_rings_and_the_second_finds_the_bell_out(chat: Rig) -> None:
    chat.say("c", "m1", "a")
    chat.say("c", "m2", "b")
    assert chat.rung == [chat.place("c").keys.number]


def test_a_cold_conversation_reads_as_it_did_hot(chat: Rig) -> None:
    chat.save("c", c.put("c", "", {"title": "T", "metadata": {"b": 1, "a": [1.0, 1e2]}}))
    chat.say("c", "m1", "hé😀llo", metadata={"z": None, "a": "x"})
    parts = [
        {"type": "text", "text": "a😀b", "state": "done"},
        {"type": "tool-x", "toolCallId": "k", "state": "output-available", "output": {"q": []}},
    ]
    chat.save("c", c.put("m", "m2", {"role": "assistant", "content": None, "parts": parts}))
    chat.save(
        "c", c.put("t", "m2.k", {"message_id": "m2", "tool_call_id": "k", "output": [1, {"b": 2, "a": 1}]})
    )
    chat.save("c", c.put("a", "art", {"message_id": "m2", "kind": "code", "content": "x = 1"}))
    hot = chat.pipeline.read("ann", "c")
    chat.evict("c")
    cold = chat.pipeline.read("ann", "c")
    assert not chat.buffer.client.exists(chat.place("c").keys.rows(chat.place("c").hex))
    for kind in ("messages", "tool_results", "artifacts"):
        assert [item.record for item in getattr(hot, kind)] == [item.record for item in getattr(cold, kind)]
    assert hot.conversation.record == cold.conversation.record
    assert (hot.version, hot.in_flight) == (cold.version, cold.in_flight)
    assert all(item.stored for item in cold.messages)
    assert not any(item.stored for item in hot.messages)


def test_a_save_to_a_cold_conversation_adopts_it(chat: Rig) -> None:
    chat.say("c", "m1", "one")
    chat.evict("c")
    chat.say("c", "m2", "two")
    assert chat.texts("c") == [("m1", "one"), ("m2", "two")]
    chat.evict("c")
    assert chat.texts("c") == [("m1", "one"), ("m2", "two")]


def test_two_first_saves_at_once_both_stay(chat: Rig) -> None:
    chat.say("c", "m0", "zero")
    chat.evict("c")
    threads = [threading.Thread(target=chat.say, args=("c", f"m{n}", str(n))) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {item for item, _ in chat.texts("c")} == {f"m{n}" for n in range(9)}


def test_an_unknown_conversation_is_not_found_and_leaves_no_trace(chat: Rig) -> None:
    with pytest.raises(NotFound):
        chat.pipeline.read("ann", "c")
    result = chat.save("c", c.Append("m", "m1", 0, "x", 1))
    assert result.items[0].outcome == "not-found"
    with pytest.raises(NotFound):
        chat.pipeline.read("ann", "c")
    assert not chat.buffer.client.exists(chat.place("c").keys.rows(chat.place("c").hex))


def test_another_owners_conversation_of_the_same_name_is_another(chat: Rig) -> None:
    chat.say("c", "m1", "ann's")
    with pytest.raises(NotFound):
        chat.pipeline.read("bob", "c")


@pytest.mark.parametrize("cold", [False, True])
def test_a_deleted_conversation_is_gone_for_readers_and_savers(chat: Rig, cold: bool) -> None:
    chat.say("c", "m1", "x")
    chat.save("c", c.Delete("c", ""))
    if cold:
        chat.evict("c")
    with pytest.raises(Gone):
        chat.pipeline.read("ann", "c")
    with pytest.raises(Gone):
        chat.say("c", "m2", "late")
    assert chat.save("c", c.Delete("c", "")).items[0].outcome == "duplicate"


def test_since_shows_only_what_changed_tombstones_included(chat: Rig) -> None:
    chat.say("c", "m1", "one")
    chat.say("c", "m2", "two")
    before = chat.pipeline.read("ann", "c").version
    chat.say("c", "m3", "three")
    chat.save("c", c.Delete("m", "m1"))
    for cold in (False, True):
        if cold:
            chat.evict("c")
        view = chat.pipeline.read("ann", "c", since=before)
        seen = [(item.record.id, item.record.deleted_ms is not None) for item in view.messages]
        assert seen == [("m1", True), ("m3", False)]
        assert chat.texts("c") == [("m2", "two"), ("m3", "three")]


def test_windows_page_backwards_through_a_long_conversation(chat: Rig) -> None:
    for number in range(30):
        chat.say("c", f"m{number:02}", "x" * 50_000)
    for cold in (False, True):
        if cold:
            chat.evict("c")
        seen: list[str] = []
        before = None
        while True:
            view = chat.pipeline.read("ann", "c", limit=7, before=before)
            seen = [item.record.id for item in view.messages] + seen
            assert all(item.record.content == "x" * 50_000 for item in view.messages)
            if not view.more:
                break
            before = view.messages[0].record.position
        assert seen == [f"m{n:02}" for n in range(30)]


def test_the_head_chooses_a_branch_and_branches_shows_all(chat: Rig) -> None:
    chat.say("c", "q", "question")
    for answer in ("a1", "a2"):
        chat.save("c", c.put("m", answer, {"role": "assistant", "content": answer, "parent_id": "q"}))
    chat.save("c", c.put("c", "", {"head_id": "a1"}))
    assert [item for item, _ in chat.texts("c")] == ["q", "a1"]
    assert [item for item, _ in chat.texts("c", branches=True)] == ["q", "a1", "a2"]


def test_a_sync_puts_new_messages_where_the_client_has_them_and_deletes_none(chat: Rig) -> None:
    for item in ("b", "d"):
        chat.say("c", item, item)
    order = ["a", "b", "c1", "c2", "d", "e"]
    new = [c.put("m", item, {"role": "user", "content": item}) for item in order]
    result = chat.pipeline.sync("ann", "c", new, order=order)
    assert {item.outcome for item in result.items} == {"accepted", "duplicate"}
    assert [item for item, _ in chat.texts("c")] == order
    again = chat.pipeline.sync("ann", "c", new, order=order)
    assert {item.outcome for item in again.items} == {"duplicate"}
    half = chat.pipeline.sync("ann", "c", new[:2], order=order[:2])
    assert {item.outcome for item in half.items} == {"duplicate"}
    chat.evict("c")
    assert [item for item, _ in chat.texts("c")] == order


def test_two_syncs_at_once_into_the_same_gap_keep_every_message(chat: Rig) -> None:
    chat.say("c", "last", "x")

    def sync(name: str) -> None:
        order = [f"{name}{n}" for n in range(40)] + ["last"]
        chat.pipeline.sync("ann", "c", [c.put("m", i, {"content": i}) for i in order[:-1]], order=order)

    threads = [threading.Thread(target=sync, args=(name,)) for name in "pqr"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = [item for item, _ in chat.texts("c", limit=1000)]
    assert len(seen) == 121
    assert seen[-1] == "last"
    for name in "pqr":
        assert [item for item in seen if item[0] == name] == [f"{name}{n}" for n in range(40)]


@pytest.mark.parametrize("there", ["nothing", "a title", "a message"])
def test_a_sync_keeps_its_order_when_another_writer_adds_one_of_its_messages_meanwhile(
    chat: Rig, there: str
) -> None:
    order = ["m0", "m1", "m2", "m3"]
    if there == "a title":
        chat.save("c", c.put("c", "", {"title": "T"}))
    if there == "a message":
        chat.say("c", "m0", "m0")

    def add_the_last(step: str) -> None:
        failpoints.disarm(step)
        chat.say("c", "m3", "m3")

    failpoints.arm("save.1", add_the_last)
    new = [c.put("m", item, {"role": "user", "content": item}) for item in order]
    result = chat.pipeline.sync("ann", "c", new, order=order)
    assert [item.outcome for item in result.items][3] == "duplicate", "the other came first"
    assert [item for item, _ in chat.texts("c")] == order


def test_many_syncs_at_once_all_come_to_an_end(chat: Rig) -> None:
    def sync(name: int) -> set[str]:
        order = [f"{name}-{n}" for n in range(120)]
        new = [c.put("m", item, {"content": item}) for item in order]
        return {item.outcome for item in chat.pipeline.sync("ann", "c", new, order=order).items}

    with ThreadPoolExecutor(8) as pool:
        assert set().union(*pool.map(sync, range(8))) == {"accepted"}
    seen = [item for item, _ in chat.texts("c", limit=1000)]
    for name in range(8):
        assert [item for item in seen if item[0] == str(name)] == [f"{name}-{n}" for n in range(120)]


def test_a_sync_tells_the_epoch_of_its_first_call(chat: Rig) -> None:
    """Told the last one's, its sender would not know that the first calls went with the buffer that was lost."""

    def lose_the_buffer(step: str) -> None:
        failpoints.disarm(step)
        chat.buffer.client.flushall()

    before = chat.say("c", "m", "x").buffer_epoch
    failpoints.arm("save.3", lose_the_buffer)
    order = [f"m{n:03}" for n in range(60)]
    result = chat.pipeline.sync("ann", "c", [c.put("m", i, {"content": i}) for i in order], order=order)
    after = chat.say("c", "m", "x").buffer_epoch
    assert (result.buffer_epoch == before, after == before) == (True, False)
    chat.flush("c")
    assert chat.pipeline.wait_stored("ann", "c", result, timeout_ms=20).state == "buffered"


def test_a_long_sync_is_several_calls_and_one_answer(chat: Rig) -> None:
    order = [f"m{n:03}" for n in range(300)]
    result = chat.pipeline.sync("ann", "c", [c.put("m", i, {"content": i * 500}) for i in order], order=order)
    assert [item.id for item in result.items] == order
    assert {item.outcome for item in result.items} == {"accepted"}
    assert [item for item, _ in chat.texts("c", limit=500)] == order


def test_items_are_listed_in_pages_and_alone(chat: Rig) -> None:
    for number in range(7):
        chat.save("c", c.put("t", f"t{number}", {"output": number}))
    for cold in (False, True):
        if cold:
            chat.evict("c")
        seen, after = [], None
        while True:
            page = chat.pipeline.items("ann", "c", "t", after=after, limit=3)
            seen += [item.record.id for item in page.items]
            after = page.after
            if after is None:
                break
        assert seen == [f"t{n}" for n in range(7)]
        item, _ = chat.pipeline.item("ann", "c", "t", "t3")
        assert item.record.output == "3"
        with pytest.raises(NotFound):
            chat.pipeline.item("ann", "c", "t", "t9")


def test_artifact_versions_read_alike_before_and_after_their_commit(chat: Rig) -> None:
    for number in range(1, 4):
        chat.save("c", c.put("a", "x", {"content": f"v{number}"}))
        if number == 2:
            chat.flush("c")
    expected = [(1, "v1"), (2, "v2"), (3, "v3")]
    for cold in (False, True):
        if cold:
            chat.evict("c")
        versions = chat.pipeline.artifact_versions("ann", "c", "x", after=None, limit=10)
        assert [(version.number, version.content) for version in versions] == expected
    later = chat.pipeline.artifact_versions("ann", "c", "x", after=1, limit=1)
    assert [version.number for version in later] == [2]
    chat.save("c", c.put("a", "x", {"content": "v4"}))
    assert chat.pipeline.item("ann", "c", "a", "x")[0].record.head_number == 4


def test_a_reader_settles_what_fell_silent_and_a_late_save_brings_it_back(
    buffer_url: str, database_url: str
) -> None:
    with rig(buffer_url, database_url, BLOTTER_STALE_SECONDS="0.2") as chat:
        chat.save("c", c.put("m", "m", {"content": "half"}, status="streaming"))

        def settled() -> bool:
            return chat.pipeline.read("ann", "c").messages[0].record.status == "interrupted"

        eventually(settled)
        view = chat.pipeline.read("ann", "c")
        assert view.messages[0].record.settled_from == "streaming"
        assert not view.in_flight
        chat.evict("c")
        result = chat.save("c", c.Append("m", "m", 4, " more", 5))
        assert result.items[0].outcome == "accepted"
        record = chat.pipeline.read("ann", "c").messages[0].record
        assert (record.content, record.status, record.settled_from) == ("half more", "streaming", None)


def test_a_reader_settles_a_stale_reply_that_only_postgres_has(buffer_url: str, database_url: str) -> None:
    with rig(buffer_url, database_url) as chat:
        chat.save("c", c.put("m", "m", {"content": "half"}, status="streaming"))
        chat.flush("c")
        chat.buffer.client.flushall()
    with rig(buffer_url, database_url, BLOTTER_STALE_SECONDS="0.05") as chat:

        def settled() -> bool:
            return chat.pipeline.read("ann", "c").messages[0].record.status == "interrupted"

        eventually(settled)


def test_with_postgres_away_new_and_known_conversations_are_saved_and_merged_when_it_returns(
    buffer_url: str,
) -> None:
    from models.postgres.migrate import upgrade

    with start_postgres() as server, server.new_database() as url:
        upgrade(url)
        with rig(buffer_url, url) as chat:
            chat.say("known", "m1", "before")
            chat.evict("known")
            chat.say("hot", "m1", "hot")
            server.kill()

            assert chat.texts("hot") == [("m1", "hot")]
            assert chat.say("hot", "m2", "still").base == "known"
            result = chat.say("known", "m2", "during")
            assert result.base == "unknown"
            assert (
                chat.save("known", c.put("m", "m3", {"content": "ab"}, status="streaming")).base == "unknown"
            )
            assert chat.save("known", c.Append("m", "m3", 2, "cd", 2)).items[0].outcome == "accepted"
            with pytest.raises(StoreUnavailable):
                chat.save("known", c.Append("m", "m1", 6, "!", 1))
            partial = chat.pipeline.read("ann", "known")
            assert partial.partial
            assert partial.etag is None
            assert [item.record.id for item in partial.messages] == ["m2", "m3"]
            chat.say("new", "n1", "new")
            assert chat.texts("new") == [("n1", "new")]
            page = chat.pipeline.conversations("ann", archived=False, after=None, limit=10)
            assert page.degraded
            assert {item.record.id for item in page.conversations} == {"known", "hot", "new"}
            with pytest.raises(StoreUnavailable):
                chat.pipeline.read("ann", "elsewhere")

            server.restart()

            def merged() -> bool:
                view = chat.pipeline.read("ann", "known")
                return not view.partial

            eventually(merged)
            assert chat.texts("known") == [("m1", "before"), ("m2", "during"), ("m3", "abcd")]
            assert chat.pipeline.read("ann", "known").version > result.version
            chat.evict("hot")
            assert chat.texts("new") == [("n1", "new")]


def test_waiting_for_the_store_answers_stored_only_after_the_commit(chat: Rig) -> None:
    result = chat.save("c", c.put("m", "m", {"content": "x"}, status="streaming"), pull=True)
    assert chat.pipeline.wait_stored("ann", "c", result, timeout_ms=20).state == "buffered"
    assert chat.buffer.ripe(chat.place("c").keys, 10)
    chat.flush("c")
    assert chat.pipeline.wait_stored("ann", "c", result, timeout_ms=20).state == "stored"


def test_waiting_does_not_take_a_lost_buffer_for_a_commit(chat: Rig) -> None:
    result = chat.save("c", c.put("m", "m", {"content": "x"}), pull=True)
    chat.buffer.client.flushall()
    assert chat.pipeline.wait_stored("ann", "c", result, timeout_ms=20).state == "buffered"
    chat.say("other", "m", "a new epoch begins")
    assert chat.pipeline.wait_stored("ann", "c", result, timeout_ms=20).state == "buffered"


def test_waiting_does_not_take_a_later_save_for_one_that_was_lost_with_the_buffer(chat: Rig) -> None:
    result = chat.save("c", c.put("m", "m", {"content": "x", "metadata": {"kept": True}}), pull=True)
    chat.buffer.client.flushall()
    chat.say("c", "m", "y")
    chat.flush("c")
    assert chat.pipeline.wait_stored("ann", "c", result, timeout_ms=20).state == "buffered"


def test_a_buffer_that_came_back_empty_shows_what_postgres_has(chat: Rig) -> None:
    chat.say("c", "m1", "one")
    epoch = chat.pipeline.read("ann", "c").buffer_epoch
    chat.flush("c")
    chat.buffer.client.flushall()
    assert chat.texts("c") == [("m1", "one")]
    assert chat.say("c", "m2", "two").buffer_epoch != epoch
    assert chat.texts("c") == [("m1", "one"), ("m2", "two")]


@pytest.mark.parametrize("cold", [False, True])
def test_deleting_where_nothing_was_makes_no_conversation_but_a_late_save_stays_gone(
    chat: Rig, cold: bool
) -> None:
    assert chat.save("c", c.Delete("m", "m1")).items[0].outcome == "accepted"
    if cold:
        chat.evict("c")
    with pytest.raises(NotFound):
        chat.pipeline.read("ann", "c")
    assert not chat.pipeline.conversations("ann", archived=False, after=None, limit=5).conversations
    assert chat.say("c", "m1", "late").items[0].outcome == "gone"
    chat.say("c", "m2", "alive")
    assert chat.texts("c") == [("m2", "alive")]
    assert len(chat.pipeline.conversations("ann", archived=False, after=None, limit=5).conversations) == 1


def test_a_tool_result_without_a_call_id_has_its_own(chat: Rig) -> None:
    chat.save("c", c.put("t", "t1", {"output": 1}))
    assert chat.pipeline.item("ann", "c", "t", "t1")[0].record.tool_call_id == "t1"


def test_without_a_schema_saves_go_on_as_if_postgres_were_away(
    buffer_url: str, empty_database_url: str
) -> None:
    from models.postgres.migrate import upgrade

    with rig(buffer_url, empty_database_url) as chat:
        assert chat.say("c", "m1", "x").base == "unknown"
        assert "blotter db upgrade" in chat.pipeline.ready()["store"]
        upgrade(empty_database_url)
        assert chat.texts("c") == [("m1", "x")]
        assert chat.pipeline.ready() == {"buffer": "ok", "store": "ok"}


def test_no_save_is_acknowledged_by_a_buffer_that_may_lose_it(database_url: str) -> None:
    with start_valkey() as server:
        with rig(server.url, database_url) as chat:
            chat.buffer.client.config_set("appendfsync", "everysec")
            with pytest.raises(BufferPolicyError, match="appendfsync"):
                chat.say("c", "m1", "x")
            assert "appendfsync" in chat.pipeline.ready()["buffer"]
            with pytest.raises(NotFound):
                chat.pipeline.read("ann", "c")
        with rig(server.url, database_url, BLOTTER_FSYNC="everysec") as chat:
            chat.say("c", "m1", "x")
        with (
            rig(server.url, database_url, BLOTTER_FSYNC="everysec", CELERY_BROKER_URL=server.url) as chat,
            pytest.raises(BufferPolicyError, match="broker"),
        ):
            chat.say("c", "m2", "x")
