"""The buffer's server comes up with an earlier copy of its data, and the first to ask it is a client, not the sweep."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.core import commands as c
from models.errors import BufferUnavailable, Gone, StoreUnavailable
from tests.flow.crews import CrewRig, crew_rig
from tests.servers import Running, eventually, private_directory, start_valkey


@contextmanager
def buffer_with_copies() -> Iterator[tuple[Running, Callable[[], None], Callable[[], None]]]:
    """A server; take a copy; set it back to the copy."""
    with private_directory() as folder, start_valkey(folder) as server:
        data, copy = Path(server.server.data), folder / "copy"

        def take() -> None:
            shutil.copytree(data, copy)

        def set_back() -> None:
            server.kill()
            shutil.rmtree(data)
            shutil.copytree(copy, data)
            server.start()

        yield server, take, set_back


def chat_of_three(chat: CrewRig, take: Callable[[], None]) -> None:
    """m0 changed, m1 deleted and s grown since the copy was taken; all of it in Postgres."""
    chat.save(
        "c", c.put("m", "m0", {"role": "user", "content": "old"}), c.put("m", "m1", {"content": "gone"})
    )
    chat.save("c", c.put("m", "s", {"content": "AAAA"}, status="streaming"))
    chat.flush("c")
    take()
    chat.save("c", c.put("m", "m0", {"content": "new"}), c.Delete("m", "m1"))
    chat.save("c", c.Append("m", "s", 4, "BBBB", 4))
    chat.flush("c")


def answered(ask: Callable[[], object]) -> None:
    """Ask until the connections of the server that is gone are used up."""

    def ok() -> bool:
        try:
            ask()
        except BufferUnavailable:
            return False
        return True

    eventually(ok)


@pytest.mark.parametrize("first", ["read", "save"])
def test_nothing_is_decided_on_what_is_older_than_postgres(database_url: str, first: str) -> None:
    with buffer_with_copies() as (server, take, set_back), crew_rig(server.url, database_url) as chat:
        chat_of_three(chat, take)
        set_back()
        if first == "save":
            answered(
                lambda: chat.save("c", c.put("m", "m0", {"metadata": "{}"}), c.Append("m", "s", 8, "C", 1))
            )
            assert chat.save("c", c.put("m", "m1", {"content": "back"})).items[0].outcome == "gone"
        shown = {"m0": "new", "s": "AAAABBBB" + ("C" if first == "save" else "")}
        answered(lambda: chat.texts("c"))
        assert dict(chat.texts("c")) == shown
        chat.flush("c")
        assert {name: text for name, text in chat.stored_texts("c").items() if name != "m1"} == shown
        assert chat.stored("c")["m1"].deleted_ms is not None


def test_with_postgres_away_saves_are_blind_until_it_is_merged(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object) -> None:
        raise StoreUnavailable("away")

    with buffer_with_copies() as (server, take, set_back), crew_rig(server.url, database_url) as chat:
        chat_of_three(chat, take)
        set_back()
        with monkeypatch.context() as patched:
            patched.setattr(chat.pipeline.store, "base", away)
            answered(lambda: chat.texts("c"))
            assert chat.pipeline.read("ann", "c").partial
            chat.save("c", c.put("m", "m0", {"metadata": "{}"}))
        chat.flush("c")
        assert chat.stored_texts("c")["m0"] == "new"
        assert chat.stored("c")["m1"].deleted_ms is not None
        with pytest.raises(Gone):
            chat.pipeline.item("ann", "c", "m", "m1")
