"""Names derived from names: ``conversation_uid`` from (owner, conversation id), the partition from the uid.

The uid is 16 bytes of BLAKE2b over both names, each prefixed by its length, so no pair can pose as another; it names
the conversation in every buffer key and leads every primary key. Whoever does not own a conversation cannot address it.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from uuid import UUID

import uuid_utils

#: A client's id: 1-256 of these characters.
ID_PATTERN = r"^[A-Za-z0-9_.~:@-]{1,256}$"
_ID = re.compile(r"[A-Za-z0-9_.~:@-]{1,256}")


def is_id(text: str) -> bool:
    """True if ``text`` may name a conversation or an item."""
    return _ID.fullmatch(text) is not None


def conversation_uid(owner: str, conversation_id: str) -> UUID:
    """The uid of ``conversation_id`` as ``owner`` names it."""
    digest = blake2b(digest_size=16, person=b"blotter.conv")
    for name in (owner, conversation_id):
        raw = name.encode()
        digest.update(len(raw).to_bytes(4, "big"))
        digest.update(raw)
    return UUID(bytes=digest.digest())


def owner_tag(owner: str) -> str:
    """32 hex digits that name an owner in a buffer key without showing who it is."""
    return blake2b(owner.encode(), digest_size=16, person=b"blotter.owner").hexdigest()


def partition_of(uid: UUID, partitions: int) -> int:
    """0 … partitions-1, a fixed function of the uid."""
    return int.from_bytes(uid.bytes[:8], "big") % partitions


def mint_id() -> str:
    """A new UUIDv7, as text: time-ordered, so that it clusters in indexes."""
    return str(uuid_utils.uuid7())
