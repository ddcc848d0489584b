"""The buffer on a Redis or Valkey Cluster: where each key lives, and what is asked of all servers at once.

    REDIS_URL=redis+cluster://[:password@]host:port[,host:port…]      (rediss+cluster:// with TLS)

All keys of a partition share a slot, so a partition lives on one primary, whole, and every script is atomic there. Routes,
pools and topology are redis-py's (``RedisCluster``); here stands what it leaves to its callers: it connects at first use,
fails as a single server's client does, never sends a save twice, and a save's connections are each thread's own (wire.py).

Laws:
- What was sent and not answered is not sent again here: who calls knows whether it may run twice.
- A redirected command did not run: it goes where it was told to, with the map of slots learned anew.
- A server that takes over is met by new connections, and asked for its partitions' epochs on each (``Meeting``).
- What a slot that is being moved key by key refuses is unavailable (503) until it has moved; Valkey 9 moves slots whole.

A figure of "the server" is that of the one that is worst off: the fullest, the one that cannot write its file.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, ClusterPipeline
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    ConnectionError as RedisConnectionError,
    MovedError,
    RedisClusterException,
    TimeoutError as RedisTimeoutError,
    TryAgainError,
)
from redis.retry import Retry

from models.buffer.wire import Server, Wire, replies_or_first_error

#: How often a command is sent on, where the map of slots is being redrawn.
_HOPS: Final = 5


def is_cluster(url: str) -> bool:
    """REDIS_URL names a cluster."""
    return url.partition("://")[0] in ("redis+cluster", "rediss+cluster")


def _start(url: str) -> tuple[str, list[ClusterNode]]:
    """A plain URL of the first node named, and the other ones. Raises ValueError for what is no address."""
    parts = urlsplit(url.replace("+cluster", "", 1))
    user, at, hosts = parts.netloc.rpartition("@")
    first, *others = hosts.split(",")
    node: Any = ClusterNode
    nodes = [node(split.hostname, split.port or 6379) for split in (urlsplit(f"//{host}") for host in others)]
    return urlunsplit(parts._replace(netloc=f"{user}{at}{first}")), nodes


def addresses(url: str, keys: Sequence[str], timeout_s: float) -> list[tuple[str, list[str]]]:
    """Each server that has some of ``keys``, as a plain URL, with those it has now; for one server: that one, and all.

    Raises redis.exceptions.ConnectionError where no server answers.
    """
    if not is_cluster(url):
        return [(url, list(keys))]
    parts = urlsplit(_start(url)[0])
    user, at, _ = parts.netloc.rpartition("@")
    with closing(Cluster(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)) as cluster:
        found: dict[str, list[str]] = {}
        for key in keys:
            node = cluster.nodes.node_of(key)
            host = f"[{node.host}]" if ":" in node.host else node.host
            there = urlunsplit(parts._replace(netloc=f"{user}{at}{host}:{node.port}"))
            found.setdefault(there, []).append(key)
    return list(found.items())


class Cluster:
    """Stands where ``redis.Redis`` stands for a single server. Thread-safe; make it after fork. Connects at first use.

    Besides what is written here it has all commands of redis-py's RedisCluster.
    """

    def __init__(self, url: str, *, met: Callable[[Any], None] | None = None, **how: Any) -> None:
        """``met(connection)`` is called with each new connection; ``how``: as for a pool of connections of one server."""
        self._url = url
        self._how = how
        self.met = met
        self._lock = threading.Lock()
        self._nodes: Any = None

    @property
    def nodes(self) -> Any:
        """redis-py's client of the whole. Raises redis.exceptions.ConnectionError where no server answers."""
        if self._nodes is None:
            with self._lock:
                if self._nodes is None:
                    self._nodes = self._connect()
        return self._nodes

    def _connect(self) -> Any:
        url, others = _start(self._url)
        try:
            return _Nodes(
                url=url, startup_nodes=others, redis_connect_func=self._met, require_full_coverage=False,
                retry=Retry(NoBackoff(), 0), **self._how,
            )  # fmt: skip
        except RedisClusterException as error:
            raise RedisConnectionError("no server of the cluster answers") from error

    def _met(self, connection: Any) -> None:
        if self.met is not None:
            self.met(connection)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.nodes, name)

    def close(self) -> None:
        made, self._nodes = self._nodes, None
        if made is not None:
            made.disconnect_connection_pools()
            made.close()

    # ------------------------------------------------------------------ who has what
    def primaries(self) -> list[Any]:
        """A client of each primary, in a steady order."""
        nodes = self.nodes
        found: list[Any] = [
            nodes.get_redis_connection(node) for node in sorted(nodes.get_primaries(), key=lambda n: n.name)
        ]
        if not found:
            raise RedisConnectionError("the cluster has no primary")
        return found

    def by_server(self, keys: Iterable[str]) -> list[tuple[Any, list[str]]]:
        """Clients of the primaries that have ``keys``, each with those it has."""
        nodes = self.nodes
        found: dict[str, tuple[Any, list[str]]] = {}
        for key in keys:
            node = nodes.node_of(key)
            found.setdefault(node.name, (nodes.get_redis_connection(node), []))[1].append(key)
        return list(found.values())

    # ------------------------------------------------------------------ what is asked of all
    def info(self, *sections: str) -> dict[str, Any]:
        """INFO of all primaries as one: of each figure the one that is worst for us (`worst`)."""
        return worst([server.info(*sections) for server in self.primaries()])

    def config_get(self, *names: str) -> dict[str, Any]:
        """Where servers differ, their values are joined: nobody takes that for a good one."""
        found: dict[str, list[str]] = {}
        for server in self.primaries():
            for name, value in server.config_get(*names).items():
                found.setdefault(_text(name), []).append(_text(value))
        return {name: ", ".join(sorted(set(values))) for name, values in found.items()}

    def bgrewriteaof(self) -> None:
        for server in self.primaries():
            server.bgrewriteaof()

    def time(self) -> tuple[int, int]:
        """The clock of one of them: theirs agree, as those of all machines here have to."""
        found: tuple[int, int] = self.primaries()[0].time()
        return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


#: Figures of INFO that add up, and those of which the least counts. Of the others that are numbers, the greatest does.
_SUMS: Final = frozenset({"aof_delayed_fsync"})
_LEAST: Final = frozenset({"aof_enabled", "connected_slaves"})
#: What each should say; where one server says otherwise, that is what counts.
_GOOD: Final = {
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "maxmemory_policy": "noeviction",
}


def worst(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One INFO for several servers: memory of the fullest, run ids side by side, of everything else the worst."""
    together: dict[str, Any] = dict(infos[0])
    for name in together:
        values = [info[name] for info in infos if name in info]
        if name in _GOOD:
            together[name] = next((value for value in values if value != _GOOD[name]), values[0])
        elif name == "run_id":
            together[name] = "+".join(sorted(values))
        elif all(isinstance(value, (int, float)) for value in values):
            together[name] = (sum if name in _SUMS else min if name in _LEAST else max)(values)
    if "used_memory" in together:
        # A server without maxmemory is never full, and says nothing of those that have one.
        fullest = max(infos, key=lambda info: info["used_memory"] / (info.get("maxmemory") or float("inf")))
        together |= {name: fullest[name] for name in ("used_memory", "maxmemory") if name in fullest}
    return together


class _Nodes(redis.RedisCluster):
    """redis-py's, with its errors as those of a single server."""

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        untyped: Any = super()
        if args[0] == "TIME" and "target_nodes" not in kwargs:
            kwargs["target_nodes"] = untyped.get_default_node()
        try:
            return untyped.execute_command(*args, **kwargs)
        except (RedisClusterException, ClusterError) as error:
            raise _as_of_one(error) from error

    def pipeline(self, transaction: bool | None = None, shard_hint: str | None = None) -> Any:
        return _Pipeline(
            nodes_manager=self.nodes_manager,
            commands_parser=self.commands_parser,
            startup_nodes=self.nodes_manager.startup_nodes,  # type: ignore[arg-type]
            result_callbacks=self.result_callbacks,
            cluster_response_callbacks=self.cluster_response_callbacks,
            reinitialize_steps=self.reinitialize_steps,
            retry=self.retry,
            lock=self._lock,
        )

    def node_of(self, key: str) -> ClusterNode:
        """Raises redis.exceptions.ConnectionError where nobody has its slot."""
        try:
            return self.nodes_manager.get_node_from_slot(key_slot(key.encode()))
        except RedisClusterException as error:
            raise _as_of_one(error) from error


class _Pipeline(ClusterPipeline):
    """Commands for several servers, in one round trip."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        try:
            found = super().execute(raise_on_error)
        except (RedisClusterException, ClusterError) as error:
            raise _as_of_one(error) from error
        wrong = (RedisClusterException, ClusterError)
        return [_as_of_one(answer) if isinstance(answer, wrong) else answer for answer in found]


def _as_of_one(error: Exception) -> Exception:
    """CLUSTERDOWN is an answer; all else says that we found nobody to ask."""
    if isinstance(error, ClusterDownError):
        return error
    return RedisConnectionError("the cluster is not to be reached, or is changing")


class ClusterWire:
    """`wire.Wire` for each server of a cluster: a connection for each thread and server. Thread-safe."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._wires: dict[str, Wire] = {}
        self._primaries: frozenset[str] = frozenset()
        self._last = threading.local()

    def execute_command(self, *command: Any) -> Any:
        """Send one command, return its reply. Raises redis.exceptions.RedisError."""
        return replies_or_first_error(self.execute_all((command,)))[0]

    def execute_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands of one slot together; the reply of each, errors among them. The first is an EVALSHA with its
        keys, or a command without any (SCRIPT LOAD), for the server that this thread spoke to last.

        Raises redis.exceptions.RedisError where nothing can be said of any of them.
        """
        first = commands[0]
        nodes = self._cluster.nodes
        for _ in range(_HOPS):
            name = nodes.node_of(first[3]).name if first[0] == "EVALSHA" else self._last.name
            try:
                replies = self._wire(nodes, name).execute_all(commands)
            except (RedisConnectionError, RedisTimeoutError):
                self._learn(nodes, last_failed_node_name=name)
                raise
            self._last.name = name
            if isinstance(replies[0], MovedError):
                self._learn(nodes, additional_startup_nodes_info=[(replies[0].host, replies[0].port)])
                continue
            if isinstance(replies[0], AskError):
                raise TryAgainError("TRYAGAIN its slot is on its way to another server")
            if isinstance(replies[0], ClusterDownError):
                self._learn(nodes)
            return replies
        raise RedisConnectionError("the cluster is changing all the time")

    def _wire(self, nodes: Any, name: str) -> Wire:
        wire = self._wires.get(name)
        if wire is None:
            node = nodes.get_node(node_name=name)
            if node is None:
                raise RedisConnectionError("the server left the cluster")
            wire = self._wires.setdefault(name, Wire(nodes.get_redis_connection(node).connection_pool))
        return wire

    def _learn(self, nodes: Any, **how: Any) -> None:
        """Ask for the map of slots. Where other servers are primaries than before, all connections are over: one that
        took over is met by new ones, though it may have been a primary before, too.
        """
        try:
            nodes.nodes_manager.initialize(**how)
        except (RedisClusterException, redis.RedisError):
            return
        primaries = frozenset(node.name for node in nodes.get_primaries())
        if primaries != self._primaries:
            self._primaries = primaries
            self._wires = {}

    def close(self) -> None:
        wires, self._wires = self._wires, {}
        for wire in wires.values():
            wire.close()


class Meeting:
    """Asks each new connection's server who it is, and which partitions it has from another server's hand: one that was
    started anew, took over from its primary, or was given the partition's slot. Those get a new epoch before anything
    else is asked. (For one server see ``wire.Greeting``.)
    """

    def __init__(self, metas: Sequence[str], met: Callable[[Any, str, int], None]) -> None:
        """``metas``: the key of each partition's meta; ``met(server, run_id, partition)``."""
        self._ask = [("HGET", meta, "run") for meta in metas]
        self._met = met

    def __call__(self, connection: Any) -> None:
        server = Server(connection)
        found = re.search(rb"run_id:(\w+)", server.execute_command("INFO", "server"))
        run_id = b"" if found is None else found[1]
        for number, run in enumerate(server.execute_all(self._ask)):
            # An error: the partition lies elsewhere, or this is a replica. None: not laid out.
            if isinstance(run, bytes) and run != run_id:
                self._met(server, run_id.decode(), number)
