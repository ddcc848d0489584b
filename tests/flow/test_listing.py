"""The list of an owner's conversations: index, Postgres and buffer laid over each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from models.core import commands as c
from tests.flow.rig import Rig, rig


@pytest.fixture
def chat(buffer_url: str, database_url: str) -> Iterator[Rig]:
    with rig(buffer_url, database_url) as made:
        yield made


def listed(chat: Rig, limit: int = 50, archived: bool = False, owner: str = "ann") -> list[str]:
    seen: list[str] = []
    after = None
    while True:
        page = chat.pipeline.conversations(owner, archived=archived, after=after, limit=limit)
        assert len(page.conversations) <= limit
        seen += [item.record.id for item in page.conversations]
        after = page.after
        if after is None:
            return seen


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_hot_stored_and_cold_conversations_are_listed_once_latest_activity_first(
    chat: Rig, limit: int
) -> None:
    for number in range(12):
        chat.say(f"c{number}", "m", "x")
        if number % 3 == 0:
            chat.evict(f"c{number}")
        elif number % 3 == 1:
            chat.flush(f"c{number}")
    assert listed(chat, limit) == [f"c{n}" for n in reversed(range(12))]
    chat.say("c3", "m2", "again")
    assert listed(chat, limit)[0] == "c3"
    assert sorted(listed(chat, limit)) == sorted(f"c{n}" for n in range(12))


def test_an_update_does_not_move_a_conversation_but_its_new_title_shows(chat: Rig) -> None:
    for name in ("a", "b"):
        chat.say(name, "m", "x")
        chat.evict(name)
    chat.save("a", c.put("c", "", {"title": "renamed"}))
    chat.save("a", c.put("m", "m", {"content": "edited"}))
    page = chat.pipeline.conversations("ann", archived=False, after=None, limit=10)
    assert [(item.record.id, item.record.title) for item in page.conversations] == [
        ("b", None),
        ("a", "renamed"),
    ]


def test_archived_and_deleted_ones_leave_the_list_at_once_and_for_good(chat: Rig) -> None:
    for name in ("a", "b", "d"):
        chat.say(name, "m", "x")
        chat.evict(name)
    chat.save("a", c.put("c", "", {"archived": True}))
    chat.save("d", c.Delete("c", ""))
    for flushed in (False, True):
        if flushed:
            chat.evict("a")
            chat.evict("d")
        assert listed(chat) == ["b"]
        assert listed(chat, archived=True) == ["a"]
    chat.save("a", c.put("c", "", {"archived": False}))
    assert sorted(listed(chat)) == ["a", "b"]
    assert listed(chat, archived=True) == []


def test_owners_see_only_their_own(chat: Rig) -> None:
    chat.say("a", "m", "x")
    chat.save("z", c.put("m", "m", {"content": "x"}), owner="bob")
    assert listed(chat) == ["a"]
    assert listed(chat, owner="bob") == ["z"]
    assert listed(chat, owner="eve") == []


def test_a_conversation_without_messages_is_listed(chat: Rig) -> None:
    chat.save("empty", c.put("c", "", {}), fresh=True)
    assert listed(chat) == ["empty"]
    chat.evict("empty")
    assert listed(chat) == ["empty"]


def test_stale_entries_of_the_index_are_dropped(chat: Rig) -> None:
    chat.say("a", "m", "x")
    chat.flush("a")
    assert chat.buffer.listed("ann")
    assert listed(chat) == ["a"]
    assert not chat.buffer.listed("ann")
