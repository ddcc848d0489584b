"""A full buffer: what takes memory is refused whole, what frees it or only looks goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from models.buffer.buffer import Buffer
from models.buffer.following import FollowRequest, follow
from models.buffer.partitions import Partitions
from models.buffer.scripts import SCRIPTS
from models.core.commands import Delete
from models.errors import BufferFull
from tests.buffer.chat import Chat, append, put

REFUSED = {"save", "stage", "install"}


@pytest.fixture
def full(chat: Chat) -> Iterator[Callable[[], None]]:
    """Call it, and the buffer has no memory left."""
    client = chat.buffer.client
    before = client.config_get("maxmemory")["maxmemory"]

    def make() -> None:
        client.config_set("maxmemory", "1")

    yield make
    client.config_set("maxmemory", before)


def test_scripts_that_take_memory_say_so_by_having_no_flag() -> None:
    flags = {name: script.text.split(b"\n", 1)[0] for name, script in SCRIPTS.items()}
    assert all(
        first in (b"#!lua", b"#!lua flags=allow-oom", b"#!lua flags=no-writes") for first in flags.values()
    )
    assert {name for name, first in flags.items() if first == b"#!lua"} == REFUSED
    for twin, of in (("erase", "save"), ("replay", "save"), ("restage", "stage"), ("reinstall", "install")):
        assert SCRIPTS[twin].text.split(b"\n", 1)[1] == SCRIPTS[of].text.split(b"\n", 1)[1]


def test_a_save_to_a_full_buffer_is_refused_whole(chat: Chat, full: Callable[[], None]) -> None:
    chat.put("m", "m1", st="streaming", content="a")
    before = chat.check()
    full()
    for command in (put("m", "m1", content="b"), put("m", "m2"), append("m1", 1, "b"), append("m1", 1, "")):
        with pytest.raises(BufferFull):
            chat.save(command)
    with pytest.raises(BufferFull):
        chat.send(put("m", "m2"), Delete("m", "m1"))
    assert chat.check() == before


def test_an_adoption_into_a_full_buffer_is_refused_whole(chat: Chat, full: Callable[[], None]) -> None:
    chat.put("m", "m1", content="a")
    chat.flush()
    chat.evict()
    full()
    with pytest.raises(BufferFull):
        chat.adopt()
    with pytest.raises(BufferFull):
        chat.send(put("m", "m2"), mode="blind")
    assert chat.buffer.client.keys(f"*{chat.place.hex}*") == []


def test_a_full_buffer_is_read_flushed_settled_deleted_from_and_evicted(
    chat: Chat, full: Callable[[], None]
) -> None:
    buffer, keys = chat.buffer, chat.place.keys
    partitions = Partitions(buffer)
    chat.put("m", "m1", st="streaming", content="a")
    chat.put("m", "m2", content="poison")
    chat.put("m", "m3", content="b")
    full()
    assert chat.message("m1").content == "a"
    assert follow(buffer, [FollowRequest(place=chat.place, since=0)])[0].head.s == "ok"
    reply = chat.send(Delete("m", "m3"))
    assert reply.items[0].outcome == "accepted"
    listed = chat.record_of("c/").version
    buffer.list_for_owner(chat.place, listed)
    buffer.initialise()
    assert buffer.begin(keys, "token").state == "taken"
    partitions.look([keys.number], ring=True)
    partitions.pull(keys)
    partitions.note_trial(keys, dict.fromkeys(buffer.ripe(keys, 10), 1))
    assert buffer.bury(f"{chat.place.hex}/m/m2", chat.message("m2").version, "{}")
    assert chat.flush() == (3, 0)
    assert buffer.revive(f"{chat.place.hex}/m/m2", "replay")
    assert chat.flush() == (1, 0)
    partitions.count({"rows": 3})
    partitions.alive("worker", 1000)
    partitions.claim("blotter:sweep", 1000)
    assert chat.settle("m/m1", at_ms=4_000_000_000_000) == 1
    assert chat.flush() == (1, 0)
    assert buffer.renew(keys, "token")
    buffer.release(keys, "token", pause_ms=5, failures=1)
    assert buffer.unlist("owner", [(chat.place.uid, listed)]) == 1
    assert chat.evict() == 1


def test_a_conversation_can_be_deleted_from_a_full_buffer(chat: Chat, full: Callable[[], None]) -> None:
    chat.put("m", "m1", content="a" * 100_000)
    full()
    assert chat.delete("c").outcome == "accepted"
    assert chat.flush() == (1, 0)
    assert chat.evict() == 1


def test_a_buffer_that_is_not_there_says_so(buffer_url: str) -> None:
    from models.errors import BufferUnavailable
    from models.settings import load
    from tests.servers import free_port

    lost = Buffer.connect(load({"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}))
    with pytest.raises(BufferUnavailable):
        lost.initialise()
    with pytest.raises(BufferUnavailable):
        lost.save(lost.place("owner", "chat"), [put("m", "m1")])
    lost.close()
