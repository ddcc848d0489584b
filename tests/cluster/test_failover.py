"""A primary that dies while saving: what a failover costs, with and without BLOTTER_ACK_REPLICAS.

A server answers a save when its own file has it; replicas are sent it at the same time. A primary that dies takes with it
what its replica was not sent: usually nothing, and with a replica that had fallen behind, all of that. WAIT bounds it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from models.errors import BufferUnavailable
from tests.cluster.conftest import PARTITIONS
from tests.cluster.nodes import Node, RunningCluster, start_cluster
from tests.cluster.writers import Writers
from tests.flow.crews import CrewRig
from tests.flow.rig import rig
from tests.servers import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

CHATS = [f"chat{n}" for n in range(8)]


@contextmanager
def saving_to(cluster: RunningCluster, database_url: str, ack_replicas: int) -> Iterator[CrewRig]:
    settings = {"BLOTTER_PARTITIONS": str(PARTITIONS), "BLOTTER_ACK_REPLICAS": str(ack_replicas)}
    with rig(cluster.url, database_url, **settings) as made:
        made.buffer.initialise()
        yield CrewRig(made.pipeline, database_url, made.rung)


def epochs(made: CrewRig) -> list[str]:
    return [made.buffer.buffer_epoch(keys) for keys in made.buffer.partitions]


def numbers_on(cluster: RunningCluster, made: CrewRig, node: Node) -> set[int]:
    return {keys.number for keys in made.buffer.partitions if cluster.owner(keys.meta) is node}


@pytest.mark.parametrize("ack_replicas", [0, 1])
def test_a_primary_is_killed_while_saving(database_url: str, ack_replicas: int) -> None:
    with start_cluster() as cluster, saving_to(cluster, database_url, ack_replicas) as made:
        victim = cluster.owner(made.place(CHATS[0]).keys.meta)
        heir = cluster.replica_of(victim)
        theirs = numbers_on(cluster, made, victim)
        before = epochs(made)
        with Writers(made, CHATS) as writers:
            eventually(lambda: all(len(ids) > 20 for ids in writers.acknowledged.values()), within_s=60)
            victim.running.kill()
            eventually(lambda: heir.role() == "master", within_s=30)
            if ack_replicas:
                # The heir has no replica until the dead one is back: its saves are refused, not lost.
                victim.running.start()
            counts = {name: len(ids) for name, ids in writers.acknowledged.items()}
            eventually(
                lambda: all(len(ids) > counts[name] + 5 for name, ids in writers.acknowledged.items()),
                within_s=60,
            )
        if not ack_replicas:
            victim.running.start()
        cluster.settled()
        lost = writers.lost()
        print(
            f"BLOTTER_ACK_REPLICAS={ack_replicas}: {writers.count} saves acknowledged, {len(lost)} of them lost,"
            f" {writers.refused} refused, {writers.longest_s:.1f} s at most without"
        )
        assert writers.faults == []
        assert lost == [] or not ack_replicas
        # Only what changed hands has a new epoch: there, nothing is decided before it was compared with Postgres.
        changed = {
            number for number, pair in enumerate(zip(before, epochs(made), strict=True)) if pair[0] != pair[1]
        }
        assert changed == theirs
        assert made.crew.drain(within_s=60).done
        assert made.crew.verifier.verify().found == ()
        assert writers.lost() == lost


@pytest.mark.parametrize("ack_replicas", [0, 1])
def test_a_primary_dies_whose_replica_had_fallen_behind(database_url: str, ack_replicas: int) -> None:
    """Between them lies more than a network's buffers hold, and the primary does not come back with it."""
    big = 400_000
    with (
        start_cluster() as cluster,
        saving_to(cluster, database_url, ack_replicas) as made,
        ExitStack() as after,
    ):
        chat = CHATS[0]
        victim = cluster.owner(made.place(chat).keys.meta)
        heir = cluster.replica_of(victim)
        made.say(chat, "m", "before")
        # What lies in the network when a primary dies may be lost too (a reset connection): the conversation itself is there.
        eventually(lambda: heir.offset() >= victim.offset(), within_s=20)
        kept, refused = ["m"], 0
        heir.running.pause()
        after.callback(heir.running.resume)
        deadline_s = time.monotonic() + 2
        for number in range(60):
            try:
                made.say(chat, f"m{number}", "x" * big)
                kept.append(f"m{number}")
            except BufferUnavailable:
                refused += 1
                if time.monotonic() > deadline_s:
                    break
        victim.running.kill()
        heir.running.resume()
        eventually(lambda: heir.role() == "master", within_s=30)
        there: set[str] = set()

        def readable() -> bool:
            nonlocal there
            try:
                there = {name for name, _ in made.texts(chat)}
            except BufferUnavailable:
                return False
            return True

        eventually(readable, within_s=30)
        lost = [name for name in kept if name not in there]
        print(
            f"BLOTTER_ACK_REPLICAS={ack_replicas}: {len(kept)} acknowledged, {len(lost)} lost, {refused} refused"
        )
        if ack_replicas:
            assert lost == []
            assert refused > 0
        else:
            # The test is worth nothing where the replica had it all.
            assert len(lost) > 0
            assert refused == 0


def test_a_switch_in_order_costs_nothing(database_url: str) -> None:
    """CLUSTER FAILOVER, as for maintenance: the old primary stops, the new one catches up, then takes over."""
    with start_cluster() as cluster, saving_to(cluster, database_url, 0) as made:
        with Writers(made, CHATS) as writers:
            eventually(lambda: writers.count > 100, within_s=60)
            for _ in range(2):
                for old in cluster.primaries():
                    heir = cluster.replica_of(old)
                    before = writers.count
                    heir.client.execute_command("CLUSTER", "FAILOVER")
                    eventually(lambda heir=heir: heir.role() == "master", within_s=30)
                    eventually(lambda before=before: writers.count > before + 50, within_s=30)
                    cluster.settled()
        assert writers.faults == []
        assert writers.lost() == []
        assert made.crew.drain(within_s=60).done
        assert made.crew.verifier.verify().found == ()
        print(f"{writers.count} saves, {writers.refused} refused, {writers.longest_s:.1f} s at most without")
