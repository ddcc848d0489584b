"""Revisions and statuses: which save is newer, and what an older one may not do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.buffer.chat import Chat, put

OPEN = ("pending", "streaming")
TERMINAL = ("complete", "interrupted", "error")


def test_a_message_without_a_status_is_complete(chat: Chat) -> None:
    out = chat.put("m", "m1", role="user", content="hi")
    assert (out.outcome, out.created, out.status, out.length) == ("accepted", True, "complete", 2)
    assert chat.message("m1").content == "hi"


def test_the_first_save_of_a_conversation_makes_its_row(chat: Chat) -> None:
    reply = chat.send(put("m", "m1", role="user"))
    own = chat.record_of("c/")
    assert reply.list is None
    assert chat.buffer.listed("owner") == {chat.place.uid: own.version}
    assert own.last_message_ms == own.created_ms
    assert reply.v == chat.header()["last"] >= max(own.version, reply.items[0].version)


# ------------------------------------------------------------------ revisions
@pytest.mark.parametrize(
    ("stored", "sent", "content", "expected"),
    [
        (5, 4, "b", "stale-revision"),
        (5, 4, "a", "stale-revision"),
        (5, 5, "a", "duplicate"),
        (5, 5, "b", "revision-conflict"),
        (5, 6, "b", "accepted"),
        (5, 6, "a", "accepted"),
        (5, None, "b", "accepted"),
        (5, None, "a", "duplicate"),
        (None, 0, "b", "accepted"),
        (None, 0, "a", "accepted"),
        (0, 0, "a", "duplicate"),
        (0, 0, "b", "revision-conflict"),
        (2**53 - 2, 2**53 - 1, "b", "accepted"),
        (2**53 - 1, 2**53 - 2, "b", "stale-revision"),
        (2**53 - 1, 2**53 - 1, "a", "duplicate"),
    ],
)
def test_a_revision_decides_who_is_newer(
    chat: Chat, stored: int | None, sent: int | None, content: str, expected: str
) -> None:
    before = chat.put("m", "m1", role="user", content="a", rev=stored)
    after = chat.put("m", "m1", content=content, rev=sent)
    assert after.outcome == expected
    kept = chat.message("m1")
    if expected == "accepted":
        assert (kept.content, kept.version > before.version) == (content, True)
        assert kept.revision == (stored if sent is None else sent)
    else:
        assert (kept.content, kept.version, kept.revision) == ("a", before.version, stored)
        assert (after.version, after.revision, after.length) == (before.version, stored, 1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"content": "text"}, "duplicate"),
        ({"content": "text", "role": "assistant"}, "duplicate"),
        ({"role": "user"}, "revision-conflict"),
        ({"metadata": {"a": 1, "b": None}}, "duplicate"),
        ({"metadata": {"b": None, "a": 1}}, "revision-conflict"),
        ({"metadata": None}, "revision-conflict"),
        ({"parent_id": None}, "duplicate"),
        ({"parent_id": "m0"}, "revision-conflict"),
        ({"tool_result_ids": ["t1"]}, "duplicate"),
        ({"tool_result_ids": ["t2", "t1"]}, "duplicate"),
        ({"tool_result_ids": ["t3"]}, "revision-conflict"),
        ({"artifact_ids": []}, "duplicate"),
        ({"artifact_ids": ["a1"]}, "revision-conflict"),
        ({"parts": [{"type": "text", "text": "x"}]}, "duplicate"),
        ({"parts": [{"type": "text", "text": "y"}]}, "revision-conflict"),
        ({"parts": [{"text": "x", "type": "text"}]}, "revision-conflict"),
        ({"parts": [{"type": "text", "text": "x"}] * 2}, "revision-conflict"),
        ({"parts": []}, "revision-conflict"),
        ({"parts": None}, "revision-conflict"),
        ({"st": "streaming"}, "duplicate"),
        ({"st": "complete"}, "revision-conflict"),
        ({"status_reason": None}, "duplicate"),
        ({"status_reason": "user"}, "revision-conflict"),
    ],
)
def test_an_equal_revision_is_a_duplicate_only_if_every_field_sent_is_equal(
    chat: Chat, fields: dict[str, Any], expected: str
) -> None:
    chat.put(
        "m", "m1", rev=3, st="streaming", role="assistant", content="text", metadata={"a": 1, "b": None},
        tool_result_ids=["t1", "t2"], parts=[{"type": "text", "text": "x"}],
    )  # fmt: skip
    before = chat.message("m1")
    assert chat.put("m", "m1", rev=3, **fields).outcome == expected
    assert chat.message("m1") == before


def test_a_higher_revision_may_return_a_finished_message_to_streaming(chat: Chat) -> None:
    chat.put("m", "m1", rev=1, content="a longer text", parts=[{"type": "text", "text": "one"}] * 2)
    out = chat.put("m", "m1", rev=2, st="streaming", content="a", parts=[])
    assert (out.outcome, out.status, out.length) == ("accepted", "streaming", 1)
    kept = chat.message("m1")
    assert (kept.content, kept.parts, kept.status) == ("a", "[]", "streaming")


def test_a_first_revision_is_higher_than_none(chat: Chat) -> None:
    chat.put("m", "m1", content="a longer text")
    assert chat.put("m", "m1", rev=0, st="pending", content="").outcome == "accepted"
    assert chat.message("m1").status == "pending"


def test_a_higher_revision_with_the_same_content_is_accepted_and_remembered(chat: Chat) -> None:
    first = chat.put("m", "m1", rev=1, content="a")
    second = chat.put("m", "m1", rev=2, content="a")
    assert (second.outcome, second.version > first.version) == ("accepted", True)
    assert chat.put("m", "m1", rev=1, content="a").outcome == "stale-revision"


# ------------------------------------------------------------------ statuses without revision
@pytest.mark.parametrize("late", OPEN)
@pytest.mark.parametrize("final", TERMINAL)
def test_a_late_stub_changes_nothing_on_a_finished_message(chat: Chat, final: str, late: str) -> None:
    done = chat.put("m", "m1", st=final, content="all of it", status_reason="r")
    before = chat.message("m1")
    out = chat.put("m", "m1", st=late, content="", metadata={"new": 1}, parts=[])
    assert (out.outcome, out.version, out.status) == ("noop", done.version, final)
    assert chat.message("m1") == before


@pytest.mark.parametrize("after", TERMINAL)
@pytest.mark.parametrize("before", TERMINAL)
def test_between_finished_states_the_last_arrival_wins(chat: Chat, before: str, after: str) -> None:
    chat.put("m", "m1", st=before, content="long")
    out = chat.put("m", "m1", st=after, content="x")
    assert (out.outcome, chat.message("m1").status, chat.message("m1").content) == ("accepted", after, "x")


@pytest.mark.parametrize("status", OPEN)
@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"content": "abc"}, "noop"),
        ({"content": ""}, "noop"),
        ({"content": None}, "noop"),
        ({"content": "😀a"}, "noop"),  # 3 units against 4
        ({"content": "wxyz"}, "accepted"),
        ({"content": "abcde"}, "accepted"),
        ({"content": "😀😀"}, "accepted"),
        ({"parts": []}, "noop"),
        ({"parts": None}, "noop"),
        ({"parts": [{"type": "text", "text": "one", "state": "streaming"}]}, "noop"),
        ({"parts": [{"type": "text", "text": "on", "state": "streaming"}, {"type": "step-start"}]}, "noop"),
        ({"parts": [{"type": "text", "text": "on"}, {"type": "step-start"}]}, "noop"),
        ({"parts": [{"type": "text", "text": "on", "state": "done"}, {"type": "step-start"}]}, "noop"),
        (
            {"parts": [{"type": "text", "text": "one!", "state": "streaming"}, {"type": "step-start"}]},
            "accepted",
        ),
        ({"parts": [{"type": "text", "text": "one", "state": "done"}, {"type": "step-start"}]}, "accepted"),
        ({"metadata": {"x": 1}}, "accepted"),
    ],
)
def test_a_save_that_says_it_is_unfinished_never_shortens_an_open_message(
    chat: Chat, status: str, fields: dict[str, Any], outcome: str
) -> None:
    parts = [{"type": "text", "text": "one", "state": "streaming"}, {"type": "step-start"}]
    chat.put("m", "m1", st="streaming", content="abcd", parts=parts)
    before = chat.message("m1")
    out = chat.put("m", "m1", st=status, **fields)
    assert out.outcome == outcome
    assert (chat.message("m1") == before) == (outcome == "noop")


def test_a_shorter_snapshot_is_refused_whole(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="abcd")
    assert (
        chat.put("m", "m1", st="streaming", content="abc", metadata={"x": 1}, tool_result_ids=["t"]).outcome
        == "noop"
    )
    kept = chat.message("m1")
    assert (kept.metadata, kept.tool_result_ids) == (None, ())


def test_a_save_without_a_status_may_shorten_an_open_message(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="abcd")
    assert chat.put("m", "m1", content="a").outcome == "accepted"
    assert (chat.message("m1").content, chat.message("m1").status) == ("a", "streaming")


def test_pending_after_streaming_stays_streaming(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="a")
    assert chat.put("m", "m1", st="pending", content="ab").outcome == "accepted"
    assert (chat.message("m1").status, chat.message("m1").content) == ("streaming", "ab")
    assert chat.put("m", "m1", st="pending").outcome == "duplicate"


def test_a_higher_revision_may_go_back_to_pending(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="a", rev=1)
    assert chat.put("m", "m1", st="pending", rev=2).outcome == "accepted"
    assert chat.message("m1").status == "pending"


def test_interrupted_sent_by_a_client_is_final(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="half")
    chat.put("m", "m1", st="interrupted", status_reason="user")
    before = chat.message("m1")
    assert (before.settled_from, before.status_reason) == (None, "user")
    assert chat.put("m", "m1", st="streaming", content="half and more").outcome == "noop"
    assert chat.append("m1", 4, " and more").outcome == "terminal"
    assert chat.append("m1", 4, "", st="streaming").outcome == "duplicate"
    assert chat.message("m1") == before


# ------------------------------------------------------------------ fields
def test_fields_not_sent_stay_and_null_clears(chat: Chat) -> None:
    parts = [{"type": "text", "text": "p"}]
    chat.put(
        "m", "m1", role="user", content="c", metadata={"k": 1}, parent_id="m0", parts=parts, status_reason="r"
    )
    full = chat.message("m1")
    chat.put("m", "m1", st="error")
    kept = chat.message("m1")
    assert (kept.role, kept.content, kept.metadata, kept.parent_id, kept.parts, kept.status_reason) == (
        full.role, full.content, full.metadata, full.parent_id, full.parts, full.status_reason,
    )  # fmt: skip
    chat.put("m", "m1", content=None, metadata=None, parent_id=None, parts=None, status_reason=None)
    bare = chat.message("m1")
    assert (bare.content, bare.metadata, bare.parent_id, bare.parts, bare.status_reason) == (None,) * 5
    assert (bare.role, chat.header().get("bytes") or 0) == ("user", 0)


def test_empty_is_not_null(chat: Chat) -> None:
    chat.put("m", "m1", content="", parts=[], metadata={})
    kept = chat.message("m1")
    assert (kept.content, kept.parts, kept.metadata) == ("", "[]", "{}")
    assert chat.put("m", "m1", content="", parts=[], metadata={}).outcome == "duplicate"
    assert chat.put("m", "m1", content=None).outcome == "accepted"
    assert chat.put("m", "m1", content=None).outcome == "duplicate"
    assert chat.put("m", "m1", parts=None).outcome == "accepted"
    assert chat.put("m", "m1", parts=None).outcome == "duplicate"
    assert chat.message("m1").parts is None


def test_json_comes_back_equal_in_value_and_key_order(chat: Chat) -> None:
    value = {"z": [1, 2.5, -0.0, 1e300, 2**63 - 1, '\u2028\x7f😀"\\'], "a": {"": None, "é": [[], {}]}}
    parts = [
        {"type": "data-x", "b": 1, "a": [value]},
        {"text": "\n", "type": "text", "providerMetadata": value},
    ]
    chat.put("m", "m1", metadata=value, parts=parts)
    import orjson

    kept = chat.message("m1")
    assert orjson.dumps(value).decode() == kept.metadata
    assert orjson.dumps(parts).decode() == kept.parts


def test_a_conversations_own_fields_follow_the_same_rules(chat: Chat) -> None:
    chat.put("c", "", title="t", metadata={"a": 1}, archived=True, head_id="m1", rev=1)
    own = chat.record_of("c/")
    assert (own.title, own.metadata, own.archived, own.head_id, own.last_message_ms) == (
        "t",
        '{"a":1}',
        True,
        "m1",
        None,
    )
    assert chat.put("c", "", title="other", rev=1).outcome == "revision-conflict"
    assert chat.put("c", "", title="t", rev=1).outcome == "duplicate"
    assert chat.put("c", "", title="old", rev=0).outcome == "stale-revision"
    assert (
        chat.put("c", "", title=None, archived=False, head_id=None, metadata=None, rev=2).outcome
        == "accepted"
    )
    own = chat.record_of("c/")
    assert (own.title, own.metadata, own.archived, own.head_id, own.revision) == (None, None, False, None, 2)


def test_a_new_message_is_the_conversations_last_activity_and_an_update_is_not(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="a")
    own = chat.record_of("c/")
    chat.put("m", "m1", st="streaming", content="ab")
    chat.append("m1", 2, "c")
    chat.put("t", "t1", output=1)
    assert chat.record_of("c/") == own
    chat.put("m", "m2", role="user")
    assert chat.record_of("c/").version > own.version


def test_a_save_that_changes_nothing_stamps_no_version(chat: Chat) -> None:
    full: dict[str, Any] = {
        "role": "user", "content": "c", "metadata": {"a": 1}, "parts": [{"type": "text", "text": "t"}],
        "tool_result_ids": ["t1"], "st": "streaming",
    }  # fmt: skip
    chat.put("m", "m1", **full)
    chat.put("t", "t1", state="input-available", input={"q": 1})
    chat.put("a", "a1", content="x")
    chat.put("c", "", title="t")
    before = chat.header()["last"]
    assert chat.put("m", "m1", **full).outcome == "duplicate"
    assert chat.put("m", "m1").outcome == "duplicate"
    assert chat.put("t", "t1", state="input-available", input={"q": 1}).outcome == "duplicate"
    assert chat.put("a", "a1", content="x").outcome == "duplicate"
    assert chat.put("c", "", title="t", archived=False).outcome == "duplicate"
    assert chat.append("m1", 0, "c").outcome == "duplicate"
    assert chat.header()["last"] == before


def test_a_save_that_changes_nothing_is_a_sign_of_life(chat: Chat) -> None:
    chat.buffer.now_us = 1_900_000_000_000_000
    chat.put("m", "m1", st="streaming", content="a")
    first = chat.row("m/m1")
    chat.buffer.now_us += 60_000_000
    assert chat.put("m", "m1", st="streaming", content="a").outcome == "duplicate"
    assert chat.append("m1", 1, "").outcome == "duplicate"
    later = chat.row("m/m1")
    assert (later["o"] - first["o"], later["v"]) == (60_000, first["v"])
