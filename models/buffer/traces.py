"""Traces: everything in the buffer that belongs to an owner, found by looking at all of it; and how to take it away.

The owner's index names only what is dirty, so the whole buffer is walked: every key by its name, every entry of every
index by the uid it begins with. Whose a conversation is, its header says. What has neither header nor a known uid (an
entry left behind by a fault) is nobody's, until Postgres or the caller names its uid.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from redis.exceptions import RedisError

from models.buffer import keys as names
from models.buffer.buffer import Buffer
from models.buffer.codec import Header
from models.buffer.keys import PartitionKeys, owner_index
from models.buffer.scripts import call, translate
from models.identity import conversation_uid, owner_tag

_COUNT: Final = 1_000
_decode_header = msgspec.msgpack.Decoder(Header).decode


class Trace(NamedTuple):
    """What the buffer holds of an owner. ``entries``: uid (hex) -> names that indexes hold, of every conversation found.
    ``keys``, ``letters`` (dead) and ``listed`` (on the owner's index) count.
    """

    entries: dict[str, set[str]]
    keys: int
    indexed: int
    letters: int
    listed: int

    @property
    def nothing(self) -> bool:
        return not (self.keys or self.indexed or self.letters or self.listed)


class Traces:
    """Looks for an owner in a whole buffer. Every method raises BufferUnavailable."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._client: Any = buffer.client

    def find(self, owner: str, uids: Iterable[UUID] = ()) -> Trace:
        """All that is there of ``owner``, and of the conversations ``uids``."""
        try:
            return self._find(owner, {uid.hex for uid in uids})
        except RedisError as error:
            raise translate(error) from error

    def _find(self, owner: str, known: set[str]) -> Trace:
        listed = self._client.zrange(owner_index(owner_tag(owner)), 0, -1)
        known |= {uid.decode() for uid in listed}
        by_uid: dict[str, list[str]] = {}
        for raw in self._client.scan_iter(names.EVERYTHING, count=_COUNT):
            key = raw.decode()
            if (place := names.naming(key)) is not None:
                by_uid.setdefault(place[1], []).append(key)
        known |= set(self._owned(owner, {uid: keys for uid, keys in by_uid.items() if uid not in known}))
        entries: dict[str, set[str]] = {uid: set() for uid in known}
        indexed = letters = 0
        for dead, uid, name in self._entries():
            if uid in known:
                entries[uid] |= {name} if name else set()
                indexed += not dead
                letters += dead
        held = sum(len(keys) for uid, keys in by_uid.items() if uid in known)
        return Trace(entries, held, indexed, letters, len(listed))

    def _owned(self, owner: str, by_uid: dict[str, list[str]]) -> Iterator[str]:
        """Those of which one key's header says that they are ``owner``'s."""
        holders = [(uid, key) for uid, keys in by_uid.items() for key in keys if _has_header(key)]
        for start in range(0, len(holders), _COUNT):
            some = holders[start : start + _COUNT]
            pipe = self._client.pipeline(transaction=False)
            for _, key in some:
                pipe.hget(key, "h")
            for (uid, _), header in zip(some, pipe.execute(), strict=True):
                if header is not None:
                    found = _decode_header(header)
                    if found.owner == owner and conversation_uid(owner, found.id).hex == uid:
                        yield uid

    def _entries(self) -> Iterator[tuple[bool, str, str]]:
        """(a dead letter, uid, name or nothing) of every entry of every index."""
        for keys in self._buffer.partitions:
            for index in (keys.idle, keys.blind, keys.due, keys.open):
                for member, _ in self._client.zscan_iter(index, count=_COUNT):
                    yield False, member[:32].decode(), member[33:].decode()
            for index in (keys.dead, keys.trial):
                for member, _ in self._client.hscan_iter(index, count=_COUNT):
                    yield index == keys.dead, member[:32].decode(), member[33:].decode()

    def wipe(self, keys: PartitionKeys, uid: str, indexed: Sequence[str]) -> int:
        """Take a conversation away, whatever its state; how many keys and entries that were."""
        key_list = [
            keys.epoch, keys.due, keys.open, keys.idle, keys.dead, keys.trial, keys.blind, keys.rows(uid), keys.bodies(uid),
            keys.journal(uid), keys.image_rows(uid), keys.image_bodies(uid),
        ]  # fmt: skip
        return int(call(self._client, "wipe", key_list, [uid, *indexed], retries=1))

    def wipe_rest(self, owner: str, uids: Iterable[str]) -> None:
        """The owner's index, what is staged of these conversations, and a walk's cursor that names one of them."""
        wanted = set(uids)
        try:
            self._client.unlink(owner_index(owner_tag(owner)))
            for raw in self._client.scan_iter(names.EVERYTHING, count=_COUNT):
                place = names.naming(raw.decode())
                if place is not None and place[1] in wanted and names.conversation_of(raw.decode()) is None:
                    self._client.unlink(raw)
            cursor = (self._client.hget(names.CHORES, "scan_after") or b"").decode()
            if any(part in wanted for part in cursor.split("/")[1:2]):
                self._client.hdel(names.CHORES, "scan_after")  # the walk begins anew
        except RedisError as error:
            raise translate(error) from error

    def rewrite(self) -> None:
        """Ask the server for a new append-only file, which holds no more than what is there now."""
        try:
            self._client.bgrewriteaof()
        except RedisError as error:
            raise translate(error) from error

    def persistence(self) -> dict[str, Any]:
        """What the server says of its files and its replicas."""
        try:
            return {**self._client.info("persistence"), **self._client.info("replication")}
        except RedisError as error:
            raise translate(error) from error


def _has_header(key: str) -> bool:
    """Keys of rows; those of bodies and journals have none."""
    return key.split(":")[2] in ("c", "ic", "sc")


def token() -> str:
    """Names a holder of leases."""
    return f"erase-{secrets.token_hex(8)}"
