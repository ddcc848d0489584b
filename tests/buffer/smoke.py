"""Every script once, in an order that makes each do its work."""

from __future__ import annotations

from models.buffer.following import FollowRequest, follow
from models.buffer.partitions import Partitions
from models.core.commands import Delete
from tests.buffer.chat import Chat, append, put, set_part


def everything(chat: Chat) -> None:
    """Run all scripts on ``chat``, whose conversation is cold and unknown."""
    buffer, keys, uid = chat.buffer, chat.place.keys, chat.place.hex
    partitions = Partitions(buffer)
    text = {"type": "text", "text": "x"}
    tool = {"type": "tool-x", "toolCallId": "c1", "state": "input-available"}

    # Blind, then adopted and replayed.
    chat.send(
        put("m", "m1", st="streaming", content="a", parts=[text]),
        put("a", "a1", content="v", message_id="m9"),
        mode="blind",
    )
    chat.send(append("m1", 1, "b"), mode="blind")
    assert buffer.read(chat.place).head.partial
    assert chat.adopt() == "ok"
    assert chat.adopt(beyond=True) == "hot"
    assert buffer.save(chat.place, [], mode="replay", beyond=True).left == 0

    # Hot.
    chat.send(
        put("c", "", title="t", metadata={}),
        put("t", "t1", message_id="m1", state="input-available"),
        put("m", "m9"),
    )
    chat.send(
        *(append("m1", 2 + n, "c") for n in range(20)), append("m1", 1, "y", part=0), set_part("m1", 1, tool)
    )
    reply = chat.send(
        put("t", "m1.c1", state="output-available", message_id="m1"), Delete("m", "m2"), pull=True
    )
    listed = chat.record_of("c/").version
    assert reply.list == (listed if buffer.index_apart else None)
    buffer.list_for_owner(chat.place, listed)
    for mode in ("rows", "full", "since"):
        assert buffer.read(chat.place, mode).head.s == "ok"  # type: ignore[arg-type]
    assert follow(buffer, [FollowRequest(place=chat.place, since=0)])[0].head.s == "ok"

    # Flushed, under trial, with a dead letter.
    assert buffer.begin(keys, "token").state == "taken"
    partitions.look([keys.number], ring=True)
    partitions.pull(keys)
    refs = buffer.ripe(keys, 100)
    partitions.note_trial(keys, dict.fromkeys(refs, 1))
    assert buffer.bury(f"{uid}/m/m9", chat.message("m9").version, "{}")
    chat.flush()
    partitions.count({"rows": 1})
    partitions.alive("worker", 1000)
    partitions.claim("blotter:sweep", 1000)
    assert buffer.renew(keys, "token")
    buffer.release(keys, "token", pause_ms=1, failures=1)
    buffer.unlist(chat.place.owner, [(chat.place.uid, listed)])
    assert buffer.revive(f"{uid}/m/m9", "replay")
    chat.flush()
    chat.put("m", "m9", content="poison")
    assert buffer.bury(f"{uid}/m/m9", chat.message("m9").version, "{}")
    assert buffer.revive(f"{uid}/m/m9", "purge")
    assert chat.adopt() == "merged"

    # Settled, evicted, adopted, deleted.
    assert chat.settle("m/m1", "t/t1", at_ms=4_000_000_000_000) == 2
    chat.flush()
    chat.buffer.outdate(chat.place.keys)
    assert chat.evict() == 1
    assert chat.adopt(beyond=True) == "ok"
    chat.delete("m", "m9")
    chat.delete("c")
    chat.flush()
    assert chat.evict() == 1
