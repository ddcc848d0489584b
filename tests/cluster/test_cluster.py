"""The buffer on a Valkey Cluster of three primaries: everything that one server does, and slots that move while saving."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest

from models.buffer.cluster import worst
from models.core import commands as c
from models.errors import BufferUnavailable
from models.pipeline import policy
from models.pipeline.erase import Eraser
from models.settings import load
from tests.cluster.nodes import RunningCluster
from tests.cluster.writers import Writers
from tests.flow.crews import CrewRig
from tests.servers import eventually
from web.events.hints import Hint, Hints

pytestmark = pytest.mark.slow

CHATS = [f"chat{n}" for n in range(24)]


def servers_of(cluster: RunningCluster, made: CrewRig, chats: list[str]) -> set[int]:
    return {cluster.owner(made.place(chat).keys.meta).port for chat in chats}


def test_a_whole_life_on_three_servers(cluster: RunningCluster, on_cluster: CrewRig) -> None:
    made = on_cluster
    assert len(servers_of(cluster, made, CHATS)) == 3
    for chat in CHATS:
        made.say(chat, "m1", f"hello from {chat}")
        made.save(chat, c.put("m", "m2", {"role": "assistant", "content": ""}, status="streaming"))
        made.save(chat, c.Append("m", "m2", 0, "a reply", 7))
        assert made.texts(chat) == [("m1", f"hello from {chat}"), ("m2", "a reply")]
    page = made.pipeline.conversations("ann", archived=False, after=None, limit=100)
    assert sorted(item.record.id for item in page.conversations) == sorted(CHATS)

    # Settled by a sweep once they fall silent, then flushed, cold, and read and saved to again.
    future_ms = made.buffer.now_ms() + 3_600_000
    made.crew.sweeper.sweep()
    made.buffer.now_us = future_ms * 1000
    assert made.crew.settler.settle(future_ms) == len(CHATS)
    made.buffer.now_us = 0
    assert made.crew.drain(within_s=30).done
    made.assert_clean(*CHATS)
    assert made.crew.verifier.verify().found == ()
    for chat in CHATS:
        place = made.place(chat)
        assert made.buffer.evict(place.keys, place.hex, 0) == 1
    for chat in CHATS:
        assert made.texts(chat) == [("m1", f"hello from {chat}"), ("m2", "a reply")]
        made.say(chat, "m3", "again")
    assert made.crew.drain(within_s=30).done
    assert made.crew.verifier.verify().found == ()
    figures = made.pipeline.figures()
    assert figures["dirtyItems"] == 0
    assert figures["hotConversations"] == len(CHATS)
    assert figures["bufferMaxBytes"] == 268435456

    made.pipeline.save("bob", "other", [c.put("m", "m1", {"role": "user", "content": "not ann's"})])
    erased = Eraser(made.buffer, made.pipeline.store, made.rung.append).erase("ann", within_s=30)
    assert erased.done
    assert (erased.before.conversations, erased.left.nothing, erased.replicas) == (len(CHATS), True, 1)
    assert made.pipeline.read("bob", "other").messages


def test_the_servers_policy_is_that_of_the_worst(cluster: RunningCluster, on_cluster: CrewRig) -> None:
    settings = on_cluster.buffer.settings
    assert policy.examine(on_cluster.buffer.client, settings).faults == ()
    last = cluster.primaries()[-1].client
    last.config_set("appendfsync", "no")
    last.config_set("maxmemory-policy", "allkeys-lru")
    try:
        faults = " ".join(policy.examine(on_cluster.buffer.client, settings).faults)
        assert "appendfsync is always, no" in faults
        assert "maxmemory-policy is allkeys-lru" in faults
    finally:
        last.config_set("appendfsync", "always")
        last.config_set("maxmemory-policy", "noeviction")
    wanting = load({"REDIS_URL": cluster.url, "BLOTTER_ACK_REPLICAS": "2"})
    assert any("1 replicas" in line for line in policy.examine(on_cluster.buffer.client, wanting).warnings)


def test_hints_come_from_every_server_and_follow_a_slot_that_moves(
    cluster: RunningCluster, on_cluster: CrewRig
) -> None:
    made = on_cluster
    watched = {made.place(chat).hex: chat for chat in CHATS}
    heard: set[str] = set()
    lost = threading.Event()

    def hint(found: Hint) -> None:
        heard.add(watched[found.uid])

    channels = [keys.live for keys in made.buffer.partitions]
    hints = Hints(made.buffer.settings, channels, watched, hint, lost.set)
    hints.start()
    try:
        eventually(lambda: hints.listening)
        for chat in CHATS:
            made.say(chat, "m1", "hi")
        eventually(lambda: heard == set(CHATS))

        meta = made.place(CHATS[0]).keys.meta
        elsewhere = next(node for node in cluster.primaries() if node is not cluster.owner(meta))
        lost.clear()
        cluster.move(meta, elsewhere)
        # Told that hints may have been missed, and listening again at the new place.
        eventually(lambda: lost.is_set() and hints.listening)
        heard.clear()
        for chat in CHATS:
            made.say(chat, "m2", "hi")
        eventually(lambda: heard == set(CHATS))
    finally:
        hints.close()


def test_slots_move_while_saving_and_nothing_is_lost_or_doubled(
    cluster: RunningCluster, on_cluster: CrewRig
) -> None:
    made = on_cluster
    partitions = sorted({made.place(chat).keys.number for chat in CHATS[:6]})
    with Writers(made, CHATS[:6]) as writers:
        eventually(lambda: writers.count > 100)
        for _ in range(2):
            for number in partitions:
                meta = made.buffer.partitions[number].meta
                owner = cluster.owner(meta)
                to = cluster.primaries()[(cluster.primaries().index(owner) + 1) % 3]
                before = writers.count
                cluster.move(meta, to)
                eventually(lambda before=before: writers.count > before + 20)
                with contextlib.suppress(BufferUnavailable):
                    made.flush_once(CHATS[0])
    assert writers.faults == []
    assert writers.lost() == []
    assert made.crew.drain(within_s=60).done
    assert made.crew.verifier.verify().found == ()
    assert writers.lost() == []
    print(f"saves {writers.count}, refused {writers.refused}, longest {writers.longest_s:.2f} s")


def test_a_slot_moved_key_by_key_is_unavailable_until_it_has_moved(
    cluster: RunningCluster, on_cluster: CrewRig
) -> None:
    """What servers before Valkey 9 do: a script needs all of its keys in one place."""
    from redis.crc import key_slot

    made = on_cluster
    made.say("chat", "m1", "hi")
    keys = made.place("chat").keys
    slot, source = key_slot(keys.meta.encode()), cluster.owner(keys.meta)
    target = next(node for node in cluster.primaries() if node is not source)
    target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    found = source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1_000)
    half = len(found) // 2
    _migrate(source.client, target.port, found[:half])
    with pytest.raises(Exception, match=r"TRYAGAIN|changing"):
        made.say("chat", "m2", "hi")
    _migrate(source.client, target.port, found[half:])
    for node in (target, source):
        node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    eventually(lambda: cluster.owner(keys.meta) is target)
    made.say("chat", "m2", "hi")
    assert made.texts("chat") == [("m1", "hi"), ("m2", "hi")]
    cluster.settled()


def _migrate(client: Any, port: int, keys: list[bytes]) -> None:
    client.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 2_000, "KEYS", *keys)


def test_of_several_servers_the_worst_counts() -> None:
    one = {
        "used_memory": 10,
        "maxmemory": 100,
        "aof_enabled": 1,
        "maxmemory_policy": "noeviction",
        "run_id": "b",
    }
    two = {
        "used_memory": 9,
        "maxmemory": 10,
        "aof_enabled": 0,
        "maxmemory_policy": "allkeys-lru",
        "run_id": "a",
    }
    assert worst([one, two]) == worst([two, one]) == {**two, "run_id": "a+b"}
    assert worst([one, {**two, "maxmemory": 0}])["maxmemory"] == 100
