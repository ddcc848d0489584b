"""What live readers ask of the buffer: many conversations at once, each from the version its reader has.

Where ``Buffer.read`` gives a conversation, this gives what is new in it, and of a text that only grew the new end: a
long reply costs its readers its length, not its square. One pipelined round trip serves many conversations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from models.buffer.buffer import Buffer, Place
from models.buffer.codec import View
from models.buffer.scripts import call_many
from models.errors import BufferUnavailable

#: Bytes of rows in one answer; a conversation with more new to tell is read in several.
MOST_BYTES: Final = 4 * 1024 * 1024


class FollowRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One reader's question.

    since: the version it has. names: the rows that changed between ``since`` and ``at``, None where that is not known.
    known: name -> (version, text's ref -> UTF-8 bytes), texts of which the reader has that much, under buffer epoch
    ``epoch``. awaited: name -> version of rows it wants to know committed. census: tell all that are not.
    """

    place: Place
    since: int
    at: int = 0
    names: tuple[str, ...] | None = None
    known: Mapping[str, tuple[int, Mapping[str, int]]] = msgspec.field(default_factory=dict)
    awaited: Mapping[str, int] = msgspec.field(default_factory=dict)
    census: bool = False
    most: int = MOST_BYTES
    epoch: str = ""


class FollowHead(msgspec.Struct, frozen=True):
    """See follow.lua."""

    s: str
    e: str = ""
    p: int = 0
    v: int = 0
    more: bool = False
    ph: int = 0
    gone: bool = False
    stored: tuple[str, ...] = ()
    unstored: tuple[str | int, ...] = ()


class Followed(View, array_like=True, frozen=True):
    """A row; with ``tails`` (ref, text, ref, text, …) only what was appended, and its bodies are left out."""

    tails: tuple[str, ...] | bool = False


class FollowReply(msgspec.Struct, array_like=True, frozen=True):
    """The head, and the rows in order of their versions."""

    head: FollowHead
    items: tuple[Followed, ...]


#: How often a broken connection is replaced before it counts.
_TRIES: Final = 4

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(FollowReply).decode


def follow(buffer: Buffer, requests: Sequence[FollowRequest]) -> list[FollowReply]:
    """One answer a request, in order. Raises BufferUnavailable for all of them.

    Tried again where a connection was broken: after a restart of the server every idle one of the pool is.
    """
    calls: list[tuple[Sequence[str], Sequence[Any]]] = []
    for request in requests:
        keys, uid = request.place.keys, request.place.hex
        body = {
            "since": request.since,
            "at": request.at,
            "names": False if request.names is None else request.names,
            "known": request.known,
            "awaited": request.awaited,
            "census": request.census,
            "most": request.most,
            "e": request.epoch,
            "of": buffer.of,
        }
        key_list = [keys.meta, keys.epoch, keys.rows(uid), keys.bodies(uid), keys.journal(uid)]
        calls.append((key_list, [_encode(body)]))
    for left in reversed(range(_TRIES)):
        try:
            return [_decode(b"".join(pieces)) for pieces in call_many(buffer.client, "follow", calls)]
        except BufferUnavailable as error:
            if not left or not isinstance(error.__cause__, RedisConnectionError):
                raise
    raise AssertionError("unreachable")
