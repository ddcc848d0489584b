"""From two states of a conversation to events: what appends, what comes whole, what is told as stored."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, strategies as st

from models.core.commands import split_parts, utf16_units
from models.core.records import Artifact, Conversation, Message
from models.pipeline.follow import Change, Changes
from models.pipeline.views import Item
from web.events.ledger import KNOWN_ITEMS, Ledger, checkpoint, whole
from web.events.offsets import START, Position, next_cursor, parse_offset
from web.problems import Problem

UID = UUID(int=1)


def message(version: int, content: str | None = None, wrote: int | None = None, **fields: Any) -> Change:
    """Message "m" (or ``id``), streaming unless told otherwise; last rewritten at ``wrote``, by default just now."""
    known: dict[str, Any] = {"id": "m", "role": "assistant", "position": "1", "status": "streaming"}
    stored = fields.pop("stored", False)
    record = Message(
        conversation_uid=UID,
        content=content,
        version=version,
        created_ms=0,
        updated_ms=version,
        **known | fields,
    )
    return Change(f"m/{record.id}", Item(record, stored), version if wrote is None else wrote)


def tail(version: int, wrote: int, **tails: str) -> Change:
    """The same message, of which only the ends of texts were read ("c", or "p0" for part 0)."""
    change = message(version, None, wrote)
    return change._replace(tails={ref.removeprefix("p"): text for ref, text in tails.items()})


def conversation(version: int, deleted_ms: int | None = None) -> Change:
    record = Conversation(
        conversation_uid=UID,
        owner="ann",
        id="c",
        version=version,
        created_ms=0,
        updated_ms=0,
        deleted_ms=deleted_ms,
    )
    return Change("c/", Item(record, stored=False), version)


def seen(*changes: Change, version: int | None = None, **how: Any) -> Changes:
    reached = (
        max((change.item.record.version for change in changes), default=0) if version is None else version
    )
    return Changes("whole", reached, how.pop("epoch", "e"), changes, **how)


def ledger(*changes: Change, **how: Any) -> Ledger:
    return Ledger("c", seen(*changes, **how))


def test_what_grew_comes_as_its_end_however_it_was_read() -> None:
    for change in (message(3, "hello 😀!", wrote=1), tail(3, 1, c="lo 😀!")):
        made = ledger(message(2, "hel", wrote=1))
        (event,) = made.absorb(seen(change))
        assert event == {
            "type": "append", "kind": "message", "id": "m", "offset": 3, "text": "lo 😀!", "status": "streaming",
            "version": 3, "set": {"version": 3, "updatedAt": "1970-01-01T00:00:00.003Z", "stored": False},
        }  # fmt: skip
        (event,) = made.absorb(seen(tail(4, 1, c="?")))
        assert (event["offset"], event["text"]) == (9, "?")


def test_parts_grow_each_on_their_own() -> None:
    parts = '[{"type":"text","text":"ab"},{"type":"step"},{"type":"reasoning","text":""}]'
    made = ledger(message(2, parts=parts, wrote=1))
    assert made.known() == {"m/m": (2, {"c": 0, "0": 2, "2": 0})}
    events = made.absorb(seen(tail(3, 1, p0="c", p2="x")))
    assert [(event["part"], event["offset"], event["text"]) for event in events] == [(0, 2, "c"), (2, 0, "x")]


def test_small_fields_alone_need_no_text() -> None:
    made = ledger(message(2, "hello", wrote=1))
    (event,) = made.absorb(seen(message(3, "hello", wrote=1, status="complete", tool_result_ids=("t",))))
    assert (event["type"], event["text"], event["status"]) == ("append", "", "complete")
    assert event["set"]["toolResultIds"] == ("t",)
    assert "role" not in event["set"]


@pytest.mark.parametrize(
    "change",
    [
        message(3, "rewritten", wrote=3),
        message(3, "he", wrote=1),
        message(3, None, wrote=3, deleted_ms=5),
        message(3, "new", id="n", wrote=1),
    ],
)
def test_what_was_rewritten_shortened_deleted_or_never_seen_comes_whole(change: Change) -> None:
    made = ledger(message(2, "hello", wrote=1))
    (event,) = made.absorb(seen(change))
    assert event == whole(change)


def test_what_was_finished_before_anybody_came_comes_whole_once() -> None:
    made = ledger(message(2, "hello", wrote=1, status="complete"))
    assert (
        made.absorb(seen(message(3, "hello", wrote=1, status="complete", artifact_ids=("a",))))[0]["type"]
        == "item"
    )


def test_another_epoch_forgets_lengths_and_tells_a_checkpoint() -> None:
    made = ledger(message(2, "hello", wrote=1), unstored={"m/m": 2})
    first, second = made.absorb(seen(message(3, "hello!", wrote=1), epoch="f"))
    assert first == checkpoint("c", "f", 2, {"m/m": 2})
    assert second["type"] == "item"


def test_commits_are_told_once_in_order_and_move_the_position_on() -> None:
    made = ledger(unstored={"m/b": 3, "m/a": 2, "c/": 4}, version=4)
    assert made.position == Position(4, 3)
    events = made.absorb(seen(version=4, stored=("m/b", "m/a", "m/x")))
    assert [(event["type"], event["id"]) for event in events] == [("stored", "a"), ("stored", "b")]
    assert made.position == Position(4, 1)
    assert made.absorb(seen(version=4, unstored={})) == [], "a buffer that was lost has it no longer either"
    (event,) = made.absorb(seen(version=4, stored=("c/",), unstored={}))
    assert event == {"type": "stored", "kind": "conversation", "id": "c", "version": 4}
    assert made.absorb(seen(version=4, stored=("m/a",), unstored={})) == []


def test_a_change_that_is_not_committed_counts_as_such() -> None:
    made = ledger(message(2, "a", wrote=1, stored=True), version=2)
    made.absorb(seen(message(3, "ab", wrote=1)))
    assert made.unstored == {"m/m": 3}
    made.absorb(seen(message(4, "abc", wrote=1, stored=True)))
    assert made.unstored == {}


def test_what_lies_at_or_below_the_version_is_not_told_again() -> None:
    made = ledger(message(5, "x", wrote=1))
    assert made.absorb(seen(message(5, "x", wrote=1), message(4, "y", id="n"))) == []


def test_the_end_of_the_conversation_is_the_last_event() -> None:
    made = ledger(message(2, "x", wrote=1), unstored={"m/m": 2})
    events = made.absorb(seen(conversation(3, deleted_ms=1), closed=True))
    assert [event["kind"] for event in events] == ["conversation"]
    assert made.closed


def test_memory_is_bounded() -> None:
    made = ledger(*(message(n, "x", id=f"m{n}", wrote=n) for n in range(1, 500)))
    assert len(made.known()) == KNOWN_ITEMS
    made.absorb(seen(*(message(n, "x", id=f"m{n}", wrote=n) for n in range(500, 900))))
    assert len(made.known()) == KNOWN_ITEMS
    assert "m/m899" in made.known()


def test_artifacts_grow_too() -> None:
    def artifact(version: int, content: str) -> Change:
        record = Artifact(
            conversation_uid=UID, id="a", content=content, position="1", status="streaming", version=version,
            created_ms=0, updated_ms=0,
        )  # fmt: skip
        return Change("a/a", Item(record, stored=False), 1)

    made = ledger(artifact(2, "x"))
    (event,) = made.absorb(seen(artifact(3, "xy")))
    assert (event["type"], event["kind"], event["offset"], event["text"]) == ("append", "artifact", 1, "y")


@given(st.lists(st.text(max_size=5), max_size=12), st.data())
def test_folding_appends_gives_the_text(pieces: list[str], data: st.DataObject) -> None:
    text = ""
    made = ledger(message(1, "", parts='[{"type":"text","text":""}]', wrote=1))
    folded = ""
    for version, piece in enumerate(pieces, 2):
        text += piece
        parts = f'[{{"type":"text","text":{_quoted(text)}}}]'
        assert split_parts(parts)[0].text == text
        change = message(version, text, parts=parts, wrote=1)
        if data.draw(st.booleans()):
            change = tail(version, 1, **({"c": piece, "p0": piece} if piece else {}))
        for event in made.absorb(seen(change)):
            if "part" in event and event["text"]:
                assert event["offset"] == utf16_units(folded)
                folded += event["text"]
    assert folded == text


def _quoted(text: str) -> str:
    import orjson

    return orjson.dumps(text).decode()


def test_offsets_sort_as_they_progress() -> None:
    order = [
        Position(9),
        Position(9, 7),
        Position(9, 0),
        Position(10),
        Position(10, 100_000),
        Position(10, 3),
    ]
    texts = [str(position) for position in order]
    assert texts == sorted(texts)
    assert len(set(texts)) == len(texts)
    for position, text in zip(order, texts, strict=True):
        assert parse_offset(text) == (position if position.unstored != 100_000 else Position(10, 99_999))
    assert parse_offset(None) == parse_offset("-1") == START
    assert parse_offset("now") == "now"
    assert parse_offset("1763800000123457") == Position(1763800000123457)


@pytest.mark.parametrize("text", ["", "-2", "1,2", "1 ", "1_2", "NOW", "1" * 17, "1_123456", "١"])
def test_other_texts_are_no_offsets(text: str) -> None:
    with pytest.raises(Problem):
        parse_offset(text)


def test_cursors_never_go_back() -> None:
    now_s = 1_728_432_000 + 20 * 1000 + 5
    assert next_cursor(None, now_s, 7) == "1000"
    assert next_cursor("999", now_s, 7) == "1000"
    assert next_cursor("1000", now_s, 7) == "1007"
    assert next_cursor("5000", now_s, 7) == "5007"
    assert next_cursor("junk", now_s, 7) == "1000"
