"""A real Valkey Cluster: three primaries, a replica each, with the buffer's real settings, on loopback.

with start_cluster() as cluster:
    cluster.url                             what REDIS_URL says
    cluster.owner(key)                      the node that has a key's slot, asked of the cluster itself
    cluster.replica_of(node)
    cluster.move(key, to)                   a slot, whole, to another primary (Valkey 9)
    cluster.settled()                       every slot is served, every primary has its replica
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.servers import Running, eventually, start_valkey
from web.cli.folder import free_port

#: ms without an answer after which a node counts as gone; an election follows. (Busy machines pause for a second.)
NODE_TIMEOUT_MS = 3_000
SLOTS = 16_384
_DIRECTIVES = {
    "cluster_enabled": "yes",
    "cluster_node_timeout": str(NODE_TIMEOUT_MS),
    # What lies on the other servers is saved and read while one is away.
    "cluster_require_full_coverage": "no",
    # A replica that was cut off for a while may still take over: there is no other.
    "cluster_replica_validity_factor": "0",
    "repl_diskless_sync_delay": "0",
    "maxmemory": "268435456",
}


class Node:
    """One server."""

    def __init__(self, running: Running, bus_port: int) -> None:
        self.running = running
        self.bus_port = bus_port
        self.port = running.port
        self.client: Any = redis.Redis(
            port=running.port, socket_timeout=2.0, retry=Retry(NoBackoff(), 0), single_connection_client=False
        )
        self.id = self.client.execute_command("CLUSTER", "MYID").decode()

    def role(self) -> str:
        """Master or slave, in small letters; empty where it does not answer."""
        try:
            return str(self.client.info("replication")["role"])
        except RedisError:
            return ""

    def offset(self) -> int:
        """How much of the stream of replication it has."""
        return int(self.client.info("replication")["master_repl_offset"])

    def __repr__(self) -> str:
        return f"node {self.port}"


class RunningCluster:
    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def primaries(self) -> list[Node]:
        return [node for node in self.nodes if node.role() == "master"]

    def owner(self, key: str) -> Node:
        """Who serves a key, as the first node that answers has it."""
        slot = key_slot(key.encode())
        for low, high, primary, *_ in self._slots():
            if low <= slot <= high:
                return self.node(primary[1])
        raise AssertionError(f"slot {slot} is nobody's")

    def node(self, port: int) -> Node:
        return next(node for node in self.nodes if node.port == port)

    def replica_of(self, node: Node) -> Node:
        return self.node(int(node.client.info("replication")["slave0"]["port"]))

    def _slots(self) -> Any:
        for node in self.nodes:
            with contextlib.suppress(RedisError):
                return node.client.execute_command("CLUSTER", "SLOTS")
        raise AssertionError("no node answers")

    def move(self, key: str, to: Node) -> None:
        """Give a key's slot, with all that is in it, to another primary, and wait until that serves it."""
        slot = key_slot(key.encode())
        source = self.owner(key)
        source.client.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to.id)
        eventually(lambda: self.owner(key) is to and self._agreed(), within_s=20)

    def _agreed(self) -> bool:
        """All nodes that answer tell the same of who serves what."""
        maps = set()
        for node in self.nodes:
            with contextlib.suppress(RedisError):
                slots = node.client.execute_command("CLUSTER", "SLOTS")
                maps.add(tuple(sorted((low, high, primary[1]) for low, high, primary, *_ in slots)))
        return len(maps) == 1

    def settled(self) -> None:
        """Wait until all slots are served, by nodes that agree on it, and each primary has a replica in step."""
        eventually(self._is_settled, within_s=30, every_s=0.05)

    def _is_settled(self) -> bool:
        primaries = self.primaries()
        served = sum(high - low + 1 for low, high, *_ in self._slots())
        in_step = all(
            node.client.info("replication").get("slave0", {}).get("state") == "online" for node in primaries
        )
        fit = all(_says(node, "INFO", "cluster_state:ok") for node in self.nodes)
        return len(primaries) == 3 and served == SLOTS and in_step and fit and self._agreed()

    def empty(self) -> None:
        for node in self.primaries():
            node.client.flushall()
            node.client.script_flush()


@contextlib.contextmanager
def start_cluster(**directives: str) -> Iterator[RunningCluster]:
    """A ready cluster."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for _ in range(6):
            bus_port = free_port()
            running = stack.enter_context(
                start_valkey(**{**_DIRECTIVES, "cluster_port": str(bus_port), **directives})
            )
            nodes.append(Node(running, bus_port))
        first, *others = nodes
        bounds = [0, 5461, 10923, SLOTS]
        for number, node in enumerate(nodes[:3]):
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            # Before they meet: else they would have to find out whose number is the greater.
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in others:
            node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus_port)
        eventually(lambda: all(_says(node, "INFO", "cluster_known_nodes:6") for node in nodes), within_s=20)
        for primary, replica in zip(nodes[:3], nodes[3:], strict=True):
            replica.client.execute_command("CLUSTER", "REPLICATE", primary.id)
        made = RunningCluster(nodes)
        made.settled()
        yield made
        for node in nodes:
            node.client.close()


def _says(node: Node, what: str, words: str) -> bool:
    """CLUSTER INFO or NODES of a node tells ``words``."""
    found = node.client.execute_command("CLUSTER", what)
    if isinstance(found, dict):
        found = "\n".join(f"{name}:{value}" for name, value in found.items())
    return words in (found.decode() if isinstance(found, bytes) else found)
