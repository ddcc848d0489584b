"""Artifact versions: one for each complete content that differs from the one before, made by the script."""

from __future__ import annotations

from hashlib import sha1

from models.core.records import Artifact
from tests.buffer.chat import Chat


def versions(chat: Chat) -> list[tuple[int, str]]:
    """All numbers and contents so far, stored or not."""
    chat.flush()
    return sorted((v.number, v.content) for v in chat.store.versions())


def test_each_changed_complete_content_is_a_version(chat: Chat) -> None:
    for content in ("one", "two", "two", "one"):
        chat.put("a", "a1", content=content, title=content)
    chat.put("a", "a1", title="another")
    assert versions(chat) == [(1, "one"), (2, "two"), (3, "one")]
    kept: Artifact = chat.record_of("a/a1")
    assert (kept.head_number, kept.head_hash) == (3, sha1(b"one", usedforsecurity=False).hexdigest())
    assert {v.hash for v in chat.store.versions() if v.number == 3} == {kept.head_hash}


def test_streaming_makes_no_version_and_completion_makes_one(chat: Chat) -> None:
    chat.put("a", "a1", st="streaming", content="")
    text = ""
    for step in range(40):
        piece = f"line {step} 😀\n"
        chat.append("a1", len(text.encode("utf-16-le")) // 2, piece, kind="a")
        text += piece
    chat.put("a", "a1", st="streaming", content=text + "x")
    assert versions(chat) == []
    out = chat.append("a1", len((text + "x").encode("utf-16-le")) // 2, "end", kind="a", st="complete")
    assert out.outcome == "accepted"
    assert versions(chat) == [(1, text + "xend")]
    assert chat.append("a1", 0, "line 0", kind="a", st="complete").outcome == "duplicate"
    assert versions(chat) == [(1, text + "xend")]


def test_an_interrupted_or_failed_artifact_makes_no_version(chat: Chat) -> None:
    for name, status in (("a1", "interrupted"), ("a2", "error")):
        chat.put("a", name, st="streaming", content="half")
        chat.put("a", name, st=status)
    chat.put("a", "a3", title="no content")
    chat.put("a", "a4", content="x")
    chat.put("a", "a4", content=None)
    assert [(v.id, v.number) for v in (versions(chat) and chat.store.versions())] == [("a4", 1)]


def test_an_empty_content_is_a_version(chat: Chat) -> None:
    chat.put("a", "a1", content="")
    assert versions(chat) == [(1, "")]


def test_numbers_go_on_after_eviction_and_the_same_content_makes_none(chat: Chat) -> None:
    chat.put("a", "a1", content="one")
    chat.flush()
    assert chat.evict() == 1
    chat.put("a", "a1", content="one", title="t")
    assert versions(chat) == [(1, "one")]
    assert chat.evict() == 1
    chat.put("a", "a1", content="two")
    assert versions(chat) == [(1, "one"), (2, "two")]


def test_a_committed_version_leaves_the_buffer_and_counts_in_no_limit(chat: Chat) -> None:
    chat.put("a", "a1", content="0123456789")
    assert "v/a1/1" in chat.check()
    assert (chat.header()["n"], chat.header()["bytes"]) == (1, 10)
    chat.flush()
    assert set(chat.check()) == {"h", "c/", "a/a1"}


def test_versions_not_yet_stored_wait_side_by_side(chat: Chat) -> None:
    for content in ("one", "two", "three"):
        chat.put("a", "a1", content=content)
    assert {ref[33:] for ref in chat.due()} == {"c/", "a/a1", "v/a1/1", "v/a1/2", "v/a1/3"}
    assert "v/a1/1" not in chat.views()
    assert chat.flush() == (5, 0)
