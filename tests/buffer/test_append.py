"""Appends: offsets in UTF-16 units, overlaps, gaps, and what stands alongside."""

from __future__ import annotations

import pytest

from tests.buffer.chat import Chat

#: 1 + 2 + 1 + 1 + 1 + 2 = 8 units; é is e + combining acute, the third sign is Hebrew.
MIXED = "a😀e\u0301\u05d0𝄞"


@pytest.fixture
def streaming(chat: Chat) -> Chat:
    """m1 streams: content "hello", one open text part, one tool part."""
    chat.put(
        "m", "m1", st="streaming", content="hello",
        parts=[{"type": "text", "text": "part", "state": "streaming"}, {"type": "tool-x", "state": "input-streaming"}],
    )  # fmt: skip
    return chat


@pytest.mark.parametrize("part", [None, 0])
@pytest.mark.parametrize(
    ("offset", "text", "outcome", "result"),
    [
        (0, " more", "accepted", "+ more"),  # at the length (relative)
        (-2, "{2} more", "accepted", "+ more"),
        (-2, "{2}", "duplicate", "+"),
        (-2, "{1}", "duplicate", "+"),
        (-2, "xx more", "append-mismatch", "+"),
        (-2, "xx", "append-mismatch", "+"),
        (1, "x", "append-gap", "+"),
        (1, "", "append-gap", "+"),
        (0, "", "duplicate", "+"),
        (-1, "", "duplicate", "+"),
    ],
)
def test_an_offset_says_where_text_belongs(
    streaming: Chat, part: int | None, offset: int, text: str, outcome: str, result: str
) -> None:
    there = "hello" if part is None else "part"
    sent = text.replace("{2}", there[-2:]).replace("{1}", there[-2])
    expected = result.replace("+", there)
    out = streaming.append("m1", len(there) + offset, sent, part=part)
    assert (out.outcome, out.length) == (outcome, len(expected))
    view = streaming.views()["m/m1"]
    assert isinstance(view.bodies, dict)
    assert isinstance(view.parts, list)
    assert (view.bodies["content"] if part is None else view.parts[0][1]) == expected


@pytest.mark.parametrize("offset", range(9))
@pytest.mark.parametrize("grown", [False, True])
def test_an_offset_inside_a_surrogate_pair_is_invalid(chat: Chat, offset: int, grown: bool) -> None:
    if grown:
        chat.put("m", "m1", st="streaming", content="")
        length = 0
        for sign in MIXED:
            length = chat.append("m1", length, sign).length or 0
    else:
        chat.put("m", "m1", st="streaming", content=MIXED)
    rest = MIXED.encode("utf-16-le")[offset * 2 :]
    text = rest.decode("utf-16-le", "ignore") if offset not in (2, 7) else "x"
    out = chat.append("m1", offset, text)
    assert out.outcome == ("surrogate-split" if offset in (2, 7) else "duplicate")
    assert out.length == 8


def test_an_astral_character_where_the_text_ends_in_another_is_a_mismatch(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="ab")
    assert chat.append("m1", 1, "😀").outcome == "append-mismatch"
    assert chat.append("m1", 0, "é").outcome == "append-mismatch"
    assert chat.append("m1", 1, "b😀").outcome == "accepted"
    assert chat.append("m1", 2, "😁").outcome == "append-mismatch"
    assert chat.append("m1", 2, "😀!").length == 5
    assert chat.message("m1").content == "ab😀!"


def test_lengths_are_exact_far_into_long_text_of_all_widths(chat: Chat) -> None:
    text = MIXED * 3000
    units = 8 * 3000
    chat.put("m", "m1", st="streaming", content=text)
    for offset in (
        0,
        1,
        3,
        8 * 1499 + 3,
        units - 2,
        units - 3,
        units - 8,
        units - 5,
        units - 800,
        units - 799,
    ):
        rest = text.encode("utf-16-le")[offset * 2 :].decode("utf-16-le")
        out = chat.append("m1", offset, rest)
        assert (out.outcome, out.length) == ("duplicate", units)
    for offset in (8 * 1499 + 2, units - 1, units - 6, units - 798):
        assert chat.append("m1", offset, "x").outcome == "surrogate-split"


def test_an_append_to_what_is_not_there_is_not_found(chat: Chat) -> None:
    chat.put("m", "m0", role="user")
    assert chat.append("m1", 0, "x").outcome == "not-found"
    assert chat.part("m1", 0, {"type": "step-start"}).outcome == "not-found"
    assert chat.append("a1", 0, "x", kind="a").outcome == "not-found"
    assert "m/m1" not in chat.views()


def test_an_append_in_a_conversation_that_is_not_there_leaves_no_trace(chat: Chat) -> None:
    assert chat.buffer.save(chat.place, [], base=0).s == "cold"
    out = chat.save(append_to_nothing(), fresh=True)
    assert out.outcome == "not-found"
    assert chat.check() == {}


def append_to_nothing() -> object:
    from tests.buffer.chat import append

    return append("m1", 0, "x")


def test_an_append_starts_the_content_of_a_message_that_has_none(chat: Chat) -> None:
    chat.put("m", "m1", st="pending")
    out = chat.append("m1", 0, "x")
    assert (out.outcome, out.status, out.length) == ("accepted", "streaming", 1)
    assert chat.message("m1").content == "x"


def test_an_empty_append_to_a_pending_message_leaves_it_pending(chat: Chat) -> None:
    chat.put("m", "m1", st="pending")
    assert chat.append("m1", 0, "").outcome == "duplicate"
    assert (chat.message("m1").status, chat.message("m1").content) == ("pending", None)


# ------------------------------------------------------------------ parts
def test_an_append_needs_a_part_that_is_there_and_has_text(streaming: Chat) -> None:
    out = streaming.append("m1", 0, "x", part=2)
    assert (out.outcome, out.length) == ("part-gap", 2)
    assert streaming.append("m1", 0, "x", part=1).outcome == "not-text"
    streaming.put("m", "m2", st="streaming")
    out = streaming.append("m2", 0, "x", part=0)
    assert (out.outcome, out.length) == ("part-gap", 0)


def test_appends_to_content_and_to_parts_do_not_disturb_each_other(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="", parts=[{"type": "text", "text": ""} for _ in range(7)])
    for step in range(40):
        assert chat.append("m1", step, "c").outcome == "accepted"
        for part in range(7):
            assert chat.append("m1", step, str(part), part=part).outcome == "accepted"
    view = chat.views()["m/m1"]
    assert view.bodies == {"content": "c" * 40}
    assert [text for _, text in view.parts or []] == [str(i) * 40 for i in range(7)]  # type: ignore[union-attr]
    assert (
        chat.message("m1").parts
        == "[" + ",".join(f'{{"type":"text","text":"{str(i) * 40}"}}' for i in range(7)) + "]"
    )


# ------------------------------------------------------------------ terminal
def test_on_a_finished_message_overlap_is_a_duplicate_and_more_is_refused(streaming: Chat) -> None:
    streaming.put("m", "m1", st="complete")
    before = streaming.message("m1")
    for offset, text, outcome in [
        (0, "hello", "duplicate"),
        (3, "lo", "duplicate"),
        (5, "", "duplicate"),
        (5, "!", "terminal"),
        (3, "lo!", "terminal"),
        (6, "!", "terminal"),
        (3, "xx", "append-mismatch"),
        (3, "xx!", "append-mismatch"),
    ]:
        out = streaming.append("m1", offset, text)
        assert (out.outcome, out.length, out.status) == (outcome, 5, "complete"), (offset, text)
        assert streaming.append("m1", offset, text, st="streaming").outcome == outcome
    assert streaming.message("m1") == before


def test_a_higher_revision_goes_on_with_a_finished_message(streaming: Chat) -> None:
    streaming.put("m", "m1", st="complete", rev=1)
    assert streaming.append("m1", 5, "!", st="streaming", rev=1).outcome == "terminal"
    out = streaming.append("m1", 5, "!", st="streaming", rev=2)
    assert (out.outcome, out.status, out.revision) == ("accepted", "streaming", 2)
    assert streaming.append("m1", 6, "?", rev=1).outcome == "stale-revision"
    assert streaming.append("m1", 6, "?", rev=2).outcome == "accepted"
    assert streaming.message("m1").content == "hello!?"


# ------------------------------------------------------------------ status alongside
@pytest.mark.parametrize("status", ["complete", "interrupted", "error"])
@pytest.mark.parametrize("text", [" end", ""])
def test_an_append_may_end_the_message_and_may_be_retried(streaming: Chat, status: str, text: str) -> None:
    out = streaming.append("m1", 5, text, st=status, reason="why")
    assert (out.outcome, out.status, out.length) == ("accepted", status, 5 + len(text))
    before = streaming.message("m1")
    assert (before.content, before.status_reason) == ("hello" + text, "why")
    again = streaming.append("m1", 5, text, st=status, reason="why")
    assert (again.outcome, again.version) == ("duplicate", out.version)
    assert streaming.message("m1") == before


def test_a_retried_completion_with_a_revision_is_a_duplicate(streaming: Chat) -> None:
    assert streaming.append("m1", 5, "!", st="complete", rev=4).outcome == "accepted"
    assert streaming.append("m1", 5, "!", st="complete", rev=4).outcome == "duplicate"


def test_finishing_folds_what_grew(streaming: Chat) -> None:
    for step in range(20):
        streaming.append("m1", 5 + step, "x")
    assert streaming.row("m/m1")["g"]
    streaming.put("m", "m1", st="complete")
    row = streaming.row("m/m1")
    assert "g" not in row
    fields = [name.decode() for name in streaming.buffer.client.hkeys(streaming.bodies_key)]
    assert [name for name in fields if "+" in name] == []


def test_a_put_replaces_what_grew(streaming: Chat) -> None:
    for step in range(20):
        streaming.append("m1", 5 + step, "x")
        streaming.append("m1", 4 + step, "y", part=0)
    streaming.put("m", "m1", content="short", parts=[{"type": "text", "text": "s"}])
    kept = streaming.message("m1")
    assert (kept.content, kept.parts) == ("short", '[{"type":"text","text":"s"}]')
    assert streaming.append("m1", 5, "er").outcome == "accepted"
    streaming.put("m", "m1", content=None, parts=None)
    assert streaming.header().get("bytes", 0) == 0


def test_an_append_leaves_the_version_of_the_last_rewrite(streaming: Chat) -> None:
    rewritten = streaming.row("m/m1")["w"]
    assert streaming.append("m1", 5, "x").version > rewritten
    assert streaming.append("m1", 6, "", st="complete").version > rewritten
    assert streaming.row("m/m1")["w"] == rewritten
    out = streaming.put("m", "m1", content="anew")
    assert streaming.row("m/m1")["w"] == out.version


def test_two_writers_of_one_text_never_double_it(streaming: Chat) -> None:
    text = "hello" + "".join(f" word{i}" for i in range(60))
    at = [5, 5]
    steps = [7, 11]
    while min(at) < len(text):
        for writer in (0, 1):
            piece = text[at[writer] : at[writer] + steps[writer]]
            assert streaming.append("m1", at[writer], piece).outcome in ("accepted", "duplicate")
            at[writer] += len(piece)
    assert streaming.message("m1").content == text
