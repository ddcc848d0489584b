"""The buffer as the pipeline sees it: one method a script, values in and out.

Everything that concerns one conversation is named by a ``Place`` (its uid, partition and keys). Times in ms.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple, cast
from uuid import UUID

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from models.buffer import codec
from models.buffer.cluster import Cluster, ClusterWire, Meeting, is_cluster
from models.buffer.codec import Header, Row, Staged, StaleTimes, View
from models.buffer.kept import Kept
from models.buffer.keys import PartitionKeys, owner_index
from models.buffer.scripts import call, translate
from models.buffer.wire import Greeting, Wire
from models.core.commands import MAX_LINKS, MAX_PARTS, Append, Command, Delete, ItemOutcome
from models.core.records import Record
from models.errors import BufferPolicyError, BufferUnavailable
from models.identity import conversation_uid, owner_tag, partition_of
from models.settings import Settings

#: The doorbell is asked for when something is due within this; it is the bell's countdown.
WINDOW_MS: Final = 200
#: A bell nobody answered is forgotten after this.
BELL_MS: Final = 5_000
#: A flusher that does not renew for this long has lost its partition.
LEASE_MS: Final = 10_000
#: Transient errors in a row are counted together when no more than this lies between them.
FAILS_MS: Final = 120_000
#: A base that was staged and not installed goes after this.
STAGING_MS: Final = 60_000
#: Most bytes of one staging call, so that no script holds the server for long.
STAGING_PIECE_BYTES: Final = 1024 * 1024
#: Entries of a blind journal replayed in one script.
REPLAY_ENTRIES: Final = 20
#: Bytes of the journal from which on no more entries are taken into that script: no script holds the server for long.
REPLAY_BYTES: Final = 256 * 1024
#: Conversations up to this size are read whole in one script; larger ones by rows first.
READ_WHOLE_BYTES: Final = 1024 * 1024

_encode = msgspec.msgpack.Encoder().encode


class Place(NamedTuple):
    """Where a conversation lives."""

    owner: str
    id: str
    uid: UUID
    hex: str
    keys: PartitionKeys


class SaveReply(msgspec.Struct, frozen=True):
    """What save.lua answers."""

    s: str
    e: str = ""
    p: int = 0
    v: int = 0
    items: tuple[ItemOutcome, ...] = ()
    ring: bool = False
    list: int | None = None
    left: int = 0
    #: Outcome → blind saves that lost by the rules.
    lost: dict[str, int] = {}


class ReadHead(msgspec.Struct, frozen=True):
    """What read.lua answers: ``s`` uninit, cold (``p`` epoch), suspect, moved or ok; ``e`` buffer epoch, ``v`` version.
    ``partial``: blind saves alone; ``suspect``: perhaps older than Postgres (only where ``trust`` was asked).
    """

    s: str
    e: str = ""
    p: int = 0
    v: int = 0
    h: Header = Header()
    now: int = 0
    partial: bool = False
    suspect: bool = False
    whole: bool = True


class ReadReply(msgspec.Struct, array_like=True, frozen=True):
    """The head, and the items asked for."""

    head: ReadHead
    items: tuple[View, ...]


class ConversationRow(NamedTuple):
    """A conversation's client-given id and its own row."""

    id: str
    view: View


class _Found(msgspec.Struct, array_like=True, frozen=True):
    version: int
    view: View | None = None
    owner: str = ""
    id: str = ""


_decode_row = msgspec.msgpack.Decoder(Row).decode
_decode_header = msgspec.msgpack.Decoder(Header).decode
_decode_save = msgspec.msgpack.Decoder(SaveReply).decode
_decode_read = msgspec.msgpack.Decoder(ReadReply).decode
_decode_rows = msgspec.msgpack.Decoder(list[_Found]).decode


class RipeRow(NamedTuple):
    """A due row, whole. ``record`` is None where the due entry is stale, or (``waits``) its journal is not replayed."""

    ref: str
    version: int
    record: Record | None
    waits: bool = False


class Settled(NamedTuple):
    """``settled`` items were. ``ring``: send the doorbell. ``suspect``: nothing was; adopt, then again."""

    settled: int
    ring: bool
    suspect: bool


class Begun(NamedTuple):
    """``state``: taken, busy (another flusher holds the lease) or paused; ``failures``: transient errors in a row."""

    state: Literal["taken", "busy", "paused"]
    failures: int


_BEGUN: Final[dict[int, Literal["taken", "busy", "paused"]]] = {1: "taken", 0: "busy", -1: "paused"}


class Buffer:
    """The Redis side of the pipeline. Thread-safe; make it after fork."""

    def __init__(
        self, client: redis.Redis | Cluster, settings: Settings, wire: Wire | ClusterWire | None = None
    ) -> None:
        """``wire``: calls the scripts that saves and reads wait for; ``client`` does by default."""
        # Untyped on purpose: redis-py's annotations answer for sync and async clients at once.
        self.client: Any = client
        self.wire: Any = wire or client
        #: In the wire's place where saves wait for replicas.
        self._kept: Kept | None = None
        self._kept_list: Kept | None = None
        if settings.ack_replicas:
            # Within the time that the connection waits for all of its answer.
            within_ms = settings.buffer_timeout_ms // 2
            self._kept = Kept(self.wire, settings.ack_replicas, within_ms)
            self._kept_list = Kept(self.wire, settings.ack_replicas, within_ms, mark=False)
        self.settings = settings
        self.partitions = tuple(PartitionKeys(n) for n in range(settings.partitions))
        self.stale = StaleTimes(
            round(settings.stale_seconds * 1000),
            round(settings.stale_tool_seconds * 1000),
            round(settings.stale_approval_seconds * 1000),
        )
        self._common = {
            "stream_ms": round(settings.stream_flush_seconds * 1000),
            "stale_ms": self.stale.plain_ms,
            "stale_tool_ms": self.stale.tool_ms,
            "stale_approval_ms": self.stale.approval_ms,
            "window_ms": WINDOW_MS,
            "bell_ms": BELL_MS,
        }
        #: As meta holds the number of partitions: scripts refuse who knows another.
        self.of = str(len(self.partitions))
        self._limits = {
            "item": settings.max_item_bytes,
            "items": settings.max_conversation_items,
            "bytes": settings.max_conversation_bytes,
            "parts": MAX_PARTS,
            "links": MAX_LINKS,
        }
        #: An owner's index lies in another slot than his conversations: on a cluster no script can write both. (A plain
        #: client learns it from the first refusal.)
        self.index_apart = isinstance(client, Cluster)
        #: 0: the server's clock. Tests set it (µs).
        self.now_us = 0

    @classmethod
    def connect(cls, settings: Settings, *, connections: int = 64) -> Buffer:
        """A buffer on ``settings.redis_url`` with bounded connections and times, without redis-py's own retries."""
        seconds = settings.buffer_timeout_ms / 1000
        how: dict[str, Any] = {
            "max_connections": connections, "timeout": seconds, "socket_timeout": seconds,
            "socket_connect_timeout": min(seconds, 1.0),
        }  # fmt: skip
        if is_cluster(settings.redis_url):
            cluster = Cluster(settings.redis_url, connection_pool_class=redis.BlockingConnectionPool, **how)
            made = cls(cluster, settings, ClusterWire(cluster))
            cluster.met = Meeting([keys.meta for keys in made.partitions], made._met_with)
            return made
        pool = redis.BlockingConnectionPool.from_url(settings.redis_url, retry=Retry(NoBackoff(), 0), **how)
        made = cls(redis.Redis(connection_pool=pool), settings, Wire(pool))
        pool.connection_kwargs["redis_connect_func"] = Greeting(made._met)
        return made

    @property
    def has_lane(self) -> bool:
        """Whether saves may be made by strands: one server, without TLS, and no replicas to wait for."""
        return isinstance(self.wire, Wire) and self.wire.has_lane and self._kept is None

    def close(self) -> None:
        if self.wire is not self.client:
            self.wire.close()
        self.client.close()
        if not isinstance(self.client, Cluster):
            self.client.connection_pool.disconnect()

    def place(self, owner: str, conversation_id: str) -> Place:
        uid = conversation_uid(owner, conversation_id)
        return Place(
            owner,
            conversation_id,
            uid,
            uid.hex,
            self.partitions[partition_of(uid, len(self.partitions))],
        )

    def keys_of(self, uid: UUID) -> PartitionKeys:
        return self.partitions[partition_of(uid, len(self.partitions))]

    def info(self, *sections: str) -> dict[str, Any]:
        """INFO, of a cluster the worst of all servers; without a cluster by the connection that saves use, so that a strand
        waits for no thread. Raises redis' own errors.
        """
        if not isinstance(self.wire, Wire):
            return cast("dict[str, Any]", self.client.info(*sections))
        raw = self.wire.execute_command("INFO", *sections)
        return cast("dict[str, Any]", self.client.response_callbacks["INFO"](raw))

    # ------------------------------------------------------------------ start
    def initialise(self) -> str:
        """Write each partition's meta where there is none, or note that the server is another than before.

        Returns the buffer epoch. Raises BufferPolicyError where the buffer was laid out for another number of partitions
        or in another format.
        """
        run_ids = self._run_ids()
        fresh = secrets.token_hex(8)
        epoch = fresh
        for keys in self.partitions:
            args = [fresh, len(self.partitions), codec.FORMAT, run_ids[keys.meta], 0]
            found = call(self.client, "init", [keys.meta, keys.epoch], args, retries=1)
            epoch, partitions, layout = (part.decode() for part in found)
            if (fault := self._fault(partitions, layout)) is not None:
                raise BufferPolicyError(fault)
            # On a cluster one partition may have been set back while the others were not: each has an epoch of its own.
            fresh = secrets.token_hex(8) if isinstance(self.client, Cluster) else epoch
        return epoch

    def layout_fault(self) -> str | None:
        """Why `initialise` would refuse this buffer, reason and step; None where it would not. Writes nothing.
        Raises BufferUnavailable.
        """
        try:
            # It is the first to be closed for another layout, and the last to be opened.
            partitions, layout = self.client.hmget(self.partitions[0].meta, "n", "f")
        except RedisError as error:
            raise translate(error) from error
        return None if partitions is None else self._fault(partitions.decode(), layout.decode())

    def _fault(self, partitions: str, layout: str) -> str | None:
        if partitions == "0":
            return "the buffer is getting another number of partitions: `blotter repartition` is at it; if that broke off, run it again"
        if partitions != self.of:
            return (
                f"the buffer was laid out with {partitions} partitions, BLOTTER_PARTITIONS says {self.of}: "
                f"set it to {partitions} and start what runs with it anew, or have the buffer laid out anew by `blotter repartition {self.of}`"
            )
        if int(layout) != codec.FORMAT:
            return f"the buffer's records have format {layout}, this version writes {codec.FORMAT}: go on with the version that wrote them"
        return None

    def _run_ids(self) -> dict[str, str]:
        """The run_id of the server that has each partition, by its meta."""
        metas = [keys.meta for keys in self.partitions]
        try:
            apart = isinstance(self.client, Cluster)
            servers = self.client.by_server(metas) if apart else [(self.client, metas)]
            return {meta: server.info("server")["run_id"] for server, those in servers for meta in those}
        except RedisError as error:
            raise translate(error) from error

    def _met_with(self, server: Any, run_id: str, partition: int) -> None:
        """As `_met`, of one partition of a cluster."""
        keys = self.partitions[partition]
        args = [secrets.token_hex(8), len(self.partitions), codec.FORMAT, run_id, 1]
        call(server, "init", [keys.meta, keys.epoch], args)

    def _met(self, server: Any, run_id: str) -> None:
        """A connection met a server that this process has not seen: if it is another than the one that wrote the buffer,
        what it holds may be older than what was acknowledged, and nothing is decided on it before it was merged.
        """
        fresh = secrets.token_hex(8)
        for keys in self.partitions:
            args = [fresh, len(self.partitions), codec.FORMAT, run_id, 1]
            found = call(server, "init", [keys.meta, keys.epoch], args)
            if not found:
                return
            fresh = found[0].decode()

    def laid_out(self) -> int | None:
        """The number of partitions the buffer was laid out with (being closed, it is the old one); None where it is empty.
        Raises BufferUnavailable.
        """
        try:
            found, before = self.client.hmget(self.partitions[0].meta, "n", "was")
        except RedisError as error:
            raise translate(error) from error
        return None if found is None else int(before or found)

    # ------------------------------------------------------------------ save
    def save(
        self,
        place: Place,
        commands: Sequence[Command],
        *,
        mode: Literal["hot", "blind", "replay"] = "hot",
        fresh: bool = False,
        base: int = -1,
        pull: bool = False,
        expect_mp: int = -1,
        beyond: bool = False,
    ) -> SaveReply:
        """Run save.lua; its header tells what the arguments and answers mean. ``beyond``: a replay that a full buffer takes."""
        keys, uid = place.keys, place.hex
        request = {
            "mode": mode, "uid": uid, "owner": place.owner, "id": place.id, "now_us": self.now_us, "commands": commands,
            "count": REPLAY_ENTRIES, "replay_bytes": REPLAY_BYTES, "fresh": fresh, "base": base, "pull": pull,
            "expect_mp": expect_mp, "of": self.of, **self._common, **self._limits,
        }  # fmt: skip
        # A second run of a save that carries a revision or an offset is told to be a duplicate; any other may say noop
        # where it was accepted, or overwrite what came between.
        repeatable = mode == "replay" or all(
            isinstance(c, (Append, Delete)) or getattr(c, "rev", None) is not None for c in commands
        )
        erasing = mode != "replay" and len(commands) > 0 and all(isinstance(c, Delete) for c in commands)
        key_list = [
            keys.meta, keys.epoch, keys.rows(uid), keys.bodies(uid), keys.due, keys.open, keys.idle, keys.bell, keys.hold,
            keys.dead, keys.journal(uid), keys.blind, keys.image_rows(uid), keys.image_bodies(uid),
        ]  # fmt: skip
        name, retries, args = (
            "erase" if erasing else "replay" if beyond else "save",
            1 if repeatable else 0,
            [_encode(request), keys.live],
        )
        wire = self._kept or self.wire
        if not self.index_apart:
            index = owner_index(owner_tag(place.owner))
            try:
                return _decode_save(call(wire, name, [*key_list, index], args, retries=retries))
            except ResponseError as error:
                if "CROSSSLOT" not in str(error) and "same slot" not in str(error):
                    raise
                self.index_apart = True
        return _decode_save(call(wire, name, key_list, args, retries=retries))

    def list_for_owner(self, place: Place, version: int) -> None:
        """Put the conversation on its owner's index (its row is dirty at ``version``)."""
        index = owner_index(owner_tag(place.owner))
        call(self._kept_list or self.wire, "enlist", [index], [place.hex, version], retries=1)

    # ------------------------------------------------------------------ read
    def read(
        self,
        place: Place,
        mode: Literal["rows", "full", "names", "since"] = "full",
        *,
        names: Sequence[str] = (),
        since: int = 0,
        trust: bool = False,
        at: int = 0,
        most: int = READ_WHOLE_BYTES,
    ) -> ReadReply:
        """Run read.lua; its header tells what the arguments and answers mean."""
        keys, uid = place.keys, place.hex
        request = {
            "mode": mode,
            "names": names,
            "since": since,
            "trust": trust,
            "at": at,
            "most": most,
            "of": self.of,
        }
        key_list = [
            keys.meta, keys.epoch, keys.rows(uid), keys.bodies(uid), keys.journal(uid), keys.image_rows(uid),
            keys.image_bodies(uid),
        ]  # fmt: skip
        return _decode_read(b"".join(call(self.wire, "read", key_list, [_encode(request)], retries=1)))

    def now_ms(self) -> int:
        """The buffer server's clock, by which everything here is due or stale."""
        if self.now_us:
            return self.now_us // 1000
        try:
            seconds, micros = self.client.time()
        except RedisError as error:
            raise translate(error) from error
        return int(seconds) * 1000 + int(micros) // 1000

    def stored_versions(self, place: Place, names: Sequence[str]) -> tuple[str | None, dict[str, int | None]]:
        """The buffer's epoch, and name -> the version known to be in Postgres; None where there is no row.

        A row that left the buffer is in Postgres, but only while the epoch is that of its save: a buffer that lost its
        contents has no rows either. The epoch is read after the rows, so that a loss before them shows.
        """
        try:
            with self.client.pipeline(transaction=False) as pipe:
                pipe.hmget(place.keys.rows(place.hex), list(names))
                pipe.hget(place.keys.meta, "e")
                raw, epoch = pipe.execute()
        except RedisError as error:
            raise translate(error) from error
        out: dict[str, int | None] = {}
        for name, value in zip(names, raw, strict=True):
            row = _decode_row(value) if value is not None else None
            out[name] = None if row is None else (row.v if row.y is None else row.z or 0)
        return None if epoch is None else epoch.decode(), out

    def version_names(self, place: Place, artifact_id: str) -> list[str]:
        """Rows of an artifact's versions that are not committed yet."""
        try:
            names = self.client.hkeys(place.keys.rows(place.hex))
        except RedisError as error:
            raise translate(error) from error
        prefix = f"v/{artifact_id}/"
        return [name for raw in names if (name := raw.decode()).startswith(prefix)]

    # ------------------------------------------------------------------ an owner's list
    def listed(self, owner: str) -> dict[UUID, int]:
        """The owner's conversations whose own row is dirty, each with the version it was listed at."""
        try:
            raw = self.client.zrange(owner_index(owner_tag(owner)), 0, -1, withscores=True)
        except RedisError as error:
            raise translate(error) from error
        return {UUID(hex=uid.decode()): int(score) for uid, score in raw}

    def listed_at(self, place: Place) -> int | None:
        """The version at which the conversation stands on its owner's index; None where it does not."""
        try:
            found = self.client.zscore(owner_index(owner_tag(place.owner)), place.hex)
        except RedisError as error:
            raise translate(error) from error
        return None if found is None else int(found)

    def conversation_rows(self, uids: Sequence[UUID]) -> dict[UUID, ConversationRow]:
        """The conversations' own rows as the buffer has them (hot or blind, the newer); absent where it has none."""
        if not uids:
            return {}
        pipe = self.client.pipeline(transaction=False)
        for uid in uids:
            keys = self.keys_of(uid)
            for rows, bodies in (
                (keys.image_rows(uid.hex), keys.image_bodies(uid.hex)),
                (keys.rows(uid.hex), keys.bodies(uid.hex)),
            ):
                pipe.hmget(rows, ["h", "c/"])
                pipe.hget(bodies, "c//metadata")
        try:
            raw = pipe.execute()
        except RedisError as error:
            raise translate(error) from error
        out: dict[UUID, ConversationRow] = {}
        for index, uid in enumerate(uids):
            for at in (4 * index, 4 * index + 2):
                header, row = raw[at]
                if header is not None and row is not None:
                    large = {"metadata": raw[at + 1].decode()} if raw[at + 1] is not None else False
                    found = ConversationRow(_decode_header(header).id, View("c/", _decode_row(row), large))
                    if uid not in out or out[uid].view.row.v <= found.view.row.v:
                        out[uid] = found
        return out

    # ------------------------------------------------------------------ adoption
    def adopt(
        self,
        place: Place,
        staged: Staged,
        epoch: int,
        *,
        force: bool = False,
        beyond: bool = False,
        between: Callable[[], None] = lambda: None,
    ) -> str:
        """Stage a base in pieces and install it, guarded by the partition's ``epoch`` as it was before the load.
        ``between`` is called between the two. ``beyond``: maxmemory does not count.

        Returns ok, merged, hot (somebody else did), moved (load again), lost (staging expired) or uninit.
        """
        keys, uid = place.keys, place.hex
        token = secrets.token_hex(8)
        target = [keys.staged_rows(uid, token), keys.staged_bodies(uid, token)]
        for rows, bodies in _pieces(staged):
            flat = [part for field in (*rows, *bodies) for part in field]
            stage = "restage" if beyond else "stage"
            call(self.client, stage, target, [STAGING_MS, len(rows), *flat], retries=1)
        between()
        request = {
            "uid": uid,
            "epoch": epoch,
            "header": staged.header,
            "open": staged.open,
            "force": force,
            "of": self.of,
        }
        answer: bytes = call(
            self.client,
            "reinstall" if beyond else "install",
            [
                keys.meta, keys.epoch, keys.rows(uid), keys.bodies(uid), *target, keys.due, keys.open, keys.idle, keys.dead,
                keys.journal(uid),
            ],
            [_encode(request)],
        )  # fmt: skip
        return answer.decode()

    def epoch(self, place: Place) -> int:
        """The partition's eviction counter."""
        try:
            return int(self.client.get(place.keys.epoch) or 0)
        except RedisError as error:
            raise translate(error) from error

    def outdate(self, keys: PartitionKeys) -> None:
        """Refuse every base of the partition that was loaded before now."""
        call(self.client, "outdate", [keys.epoch], [], retries=1)

    def buffer_epoch(self, keys: PartitionKeys) -> str:
        """The buffer epoch a partition is in; empty where it is not laid out."""
        try:
            return (self.client.hget(keys.meta, "e") or b"").decode()
        except RedisError as error:
            raise translate(error) from error

    # ------------------------------------------------------------------ flush
    def begin(self, keys: PartitionKeys, token: str) -> Begun:
        """Take the partition's lease and answer its bell."""
        key_list = [keys.lease, keys.bell, keys.hold, keys.fails]
        state, failures = call(self.client, "begin", key_list, [token, LEASE_MS])
        return Begun(_BEGUN[int(state)], int(failures))

    def renew(self, keys: PartitionKeys, token: str) -> bool:
        return int(call(self.client, "renew", [keys.lease], [token, LEASE_MS])) == 1

    def release(self, keys: PartitionKeys, token: str, *, pause_ms: int = 0, failures: int = 0) -> bool:
        """Give the lease back. True: something is ripe, ring again.

        ``pause_ms``: leave the partition alone that long, after ``failures`` transient errors in a row.
        """
        key_list = [keys.lease, keys.due, keys.bell, keys.hold, keys.fails]
        args = [token, WINDOW_MS, BELL_MS, pause_ms, failures, FAILS_MS]
        return int(call(self.client, "release", key_list, args, retries=1)) == 1

    def ripe(self, keys: PartitionKeys, limit: int, skip: int = 0) -> list[str]:
        """Refs that are due, most overdue first."""
        autosave_ms = round(self.settings.autosave_seconds * 1000)
        found = call(self.client, "ripe", [keys.due], [limit, autosave_ms, skip], retries=1)
        return [ref.decode() for ref in found]

    def rows(self, keys: PartitionKeys, refs: Sequence[str], max_bytes: int) -> list[RipeRow]:
        """Whole rows of ``refs`` (one partition's), grouped by conversation; fewer where ``max_bytes`` ran out.

        Raises BufferSlow where they cannot be read in time: not asked again, the server may still be at it.
        """
        ordered = sorted(refs)
        key_list: list[str] = []
        args: list[Any] = [max_bytes]
        for number, (uid, group) in enumerate(groupby(ordered, key=lambda ref: ref[:32]), 1):
            key_list += [keys.rows(uid), keys.bodies(uid)]
            for ref in group:
                args += [number, ref[33:]]
        found = _decode_rows(b"".join(call(self.client, "rows", key_list, args)))
        out = []
        for ref, entry in zip(ordered, found, strict=False):
            if entry.view is None:
                out.append(RipeRow(ref, 0, None, entry.version == -1))
            else:
                record = codec.record(UUID(hex=ref[:32]), entry.owner, entry.id, entry.view)
                out.append(RipeRow(ref, entry.version, record))
        return out

    def acknowledge(self, keys: PartitionKeys, committed: Iterable[tuple[str, int]]) -> tuple[int, int]:
        """Forget what is in Postgres at these versions (0: only clear a stale due entry). (made clean, still dirty)"""
        key_list = [keys.due, keys.dead, keys.trial]
        args: list[Any] = [
            round(self.settings.autosave_seconds * 1000),
            self._common["stream_ms"],
            keys.live,
        ]
        for number, (uid, group) in enumerate(groupby(sorted(committed), key=lambda pair: pair[0][:32]), 1):
            key_list += [keys.rows(uid), keys.bodies(uid)]
            pairs = [(ref[33:], version) for ref, version in group]
            args += [number, uid, len(pairs)]
            for pair in pairs:
                args += pair
        clean, dirty = call(self.client, "ack", key_list, args, retries=1)
        return int(clean), int(dirty)

    def unlist(self, owner: str, committed: Iterable[tuple[UUID, int]]) -> int:
        """Take conversations off the owner's index, unless a newer row was listed since."""
        args = [part for uid, version in committed for part in (uid.hex, version)]
        return int(call(self.client, "unlist", [owner_index(owner_tag(owner))], args, retries=1))

    # ------------------------------------------------------------------ dead letters
    def bury(self, ref: str, version: int, why: str) -> bool:
        """Set a row aside; ``why`` is JSON without chat text. False: it changed meanwhile."""
        uid, name = ref[:32], ref[33:]
        keys = self.keys_of(UUID(hex=uid))
        key_list = [keys.rows(uid), keys.bodies(uid), keys.due, keys.dead, keys.trial]
        return int(call(self.client, "bury", key_list, [uid, name, version, why], retries=1)) == 1

    def revive(self, ref: str, action: Literal["replay", "purge"]) -> bool:
        """Make a dead letter due again, or drop it. False: there is no such dead letter."""
        uid, name = ref[:32], ref[33:]
        keys = self.keys_of(UUID(hex=uid))
        key_list = [keys.rows(uid), keys.bodies(uid), keys.due, keys.dead, keys.open]
        return int(call(self.client, "revive", key_list, [uid, name, action], retries=1)) == 1

    # ------------------------------------------------------------------ settle, evict
    def settle(self, keys: PartitionKeys, uid: str, names: Sequence[str]) -> Settled:
        """End what is stale among ``names``."""
        request = {"uid": uid, "now_us": self.now_us, "names": names, **self._common}
        key_list = [
            keys.meta, keys.rows(uid), keys.bodies(uid), keys.due, keys.open, keys.bell, keys.hold, keys.dead,
        ]  # fmt: skip
        settled, ring, suspect = call(
            self.client, "settle", key_list, [_encode(request), keys.live], retries=1
        )
        return Settled(int(settled), ring == 1, suspect == 1)

    def evict(self, keys: PartitionKeys, uid: str, idle_ms: int) -> int:
        """Take a conversation out of the buffer: 1 gone, 0 kept, -1 not there."""
        key_list = [
            keys.epoch,
            keys.idle,
            keys.rows(uid),
            keys.bodies(uid),
            keys.journal(uid),
        ]
        return int(call(self.client, "evict", key_list, [uid, idle_ms], retries=1))


def _pieces(
    staged: Staged,
) -> Iterable[tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]]]:
    """The staged fields in pieces of at most STAGING_PIECE_BYTES (a larger field is a piece of its own)."""
    rows: list[tuple[str, bytes]] = []
    bodies: list[tuple[str, bytes]] = []
    size = 0
    tagged = [(rows, field) for field in staged.rows] + [(bodies, field) for field in staged.bodies]
    for target, field in tagged:
        weight = len(field[0]) + len(field[1])
        if size and (size + weight > STAGING_PIECE_BYTES or len(rows) + len(bodies) >= 2000):
            yield list(rows), list(bodies)
            rows.clear()
            bodies.clear()
            size = 0
        target.append(field)
        size += weight
    if size:
        yield list(rows), list(bodies)


__all__ = ["Buffer", "BufferUnavailable", "Place", "ReadReply", "RipeRow", "SaveReply"]
