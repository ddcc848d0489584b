"""Every key of the buffer: its name, type, owner and lifetime. No key string stands anywhere else.

All keys of a partition share the hash tag ``{pN}``, so each script is atomic on a cluster too. ``U`` is the
conversation's uid as 32 hex digits, ``K`` a kind's letter (m, t, a; c is the conversation's own row, v an artifact
version), ``I`` an item's id (which holds no slash).

======================== ====== =====================================================================================
key                      type   what it holds; who writes it; when it goes
======================== ====== =====================================================================================
blotter:{pN}:meta        hash   e buffer epoch, n partitions (0: closed, was: before), f format, run the server's run_id; init,
                                relay; never
blotter:{pN}:epoch       string eviction counter, the guard of adoption; evict, outdate raise it; never
blotter:{pN}:c:U         hash   "h" header (counters), "c/" the conversation's row, "K/I" an item's row, "v/I/number" a
                                version not yet committed, "l/I" links that wait for message I; save, ack, settle; evict
blotter:{pN}:b:U         hash   bodies: "K/I/field", part skeletons "m/I/#i", part texts "m/I/=i", each text followed by
                                its chunks "…+level.digit" while it grows; the same writers; evict
blotter:{pN}:due         zset   "U/K/I" → ms when it should be in Postgres; save, ack; ack removes
blotter:{pN}:open        zset   "U/K/I" → ms when it is stale; save; settled or finished: removed
blotter:{pN}:idle        zset   "U" → ms of the last save; save; evict
blotter:{pN}:bell        string the doorbell is out; save sets (TTL 5 s), begin deletes
blotter:{pN}:lease       string token of the flusher at work; begin (TTL 10 s), release
blotter:{pN}:hold        string not-before after a transient error; flush (TTL = the pause)
blotter:{pN}:fails       string transient errors in a row; release sets (TTL 2 min) and deletes
blotter:{pN}:trial       hash   ref → n: batches begun with it and never handled; flush (TTL 1 day); deleted after any outcome
blotter:{pN}:dead        hash   "U/K/I" → why it can't be stored (no chat text); bury; revived or overtaken: removed
blotter:{pN}:blind       zset   "U" → ms of the first blind save; save; replay removes
blotter:{pN}:j:U         list   blind journal: saves kept without their base, in order; save appends; replay pops
blotter:{pN}:ic:U, ib:U  hash   image of the blind saves alone, shaped like c and b; blind save; end of replay
blotter:{pN}:sc:U:T, sb  hash   staging of adoption T; stage (TTL 60 s); install renames it into place
blotter:{pN}:sp:U:K/I    list   `traceparent`s of the saves that a row holds, 32 at most; only where traces are on; web adds
                                (TTL 1 h), the flush that committed the row takes them
blotter:{pN}:live        channel (shard) "U version [before name …]" after every accepted change, "U version" when rows
                                became committed: a hint to live readers, never the truth
blotter:o:{O}            zset   U → version of the conversation's row while that row is dirty; save adds, flush removes
blotter:workers          zset   "host:pid" of a worker process → ms until which it counts as alive; itself
blotter:beat             string a sweep that beat asked for ran lately; sweep (TTL)
blotter:sweep            string any sweep ran lately; sweep, or a worker in beat's place (TTL)
blotter:sampled          string a sample was taken lately; sweep (TTL)
blotter:samples          list   the figures of the last hour, newest first (models/core/series.py); sweep, the oldest beyond 360 go
blotter:setback          string Postgres was found to lack what it had committed; sweep; a whole `verify --repair` deletes it
blotter:stats            hash   workers' counters since the buffer was empty (models/pipeline/figures.py); never
blotter:chores           hash   how far the daily chores have come: cursor and end of the scan, end of the purge; never
======================== ====== =====================================================================================
"""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

PREFIX: Final = "blotter"


class PartitionKeys:
    """The keys of one partition."""

    __slots__ = (
        "bell", "blind", "dead", "due", "epoch", "fails", "hold", "idle", "lease", "live", "meta", "number", "open",
        "stem", "trial",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.stem = f"{PREFIX}:{{p{number}}}:"
        for name in (
            "meta",
            "epoch",
            "due",
            "open",
            "idle",
            "bell",
            "lease",
            "hold",
            "fails",
            "trial",
            "dead",
            "blind",
            "live",
        ):
            setattr(self, name, self.stem + name)

    meta: str
    epoch: str
    due: str
    open: str
    idle: str
    bell: str
    lease: str
    hold: str
    fails: str
    trial: str
    dead: str
    blind: str
    live: str

    def rows(self, uid: str) -> str:
        return f"{self.stem}c:{uid}"

    def bodies(self, uid: str) -> str:
        return f"{self.stem}b:{uid}"

    def journal(self, uid: str) -> str:
        return f"{self.stem}j:{uid}"

    def spans(self, uid: str, name: str) -> str:
        return f"{self.stem}sp:{uid}:{name}"

    def image_rows(self, uid: str) -> str:
        return f"{self.stem}ic:{uid}"

    def image_bodies(self, uid: str) -> str:
        return f"{self.stem}ib:{uid}"

    def staged_rows(self, uid: str, token: str) -> str:
        return f"{self.stem}sc:{uid}:{token}"

    def staged_bodies(self, uid: str, token: str) -> str:
        return f"{self.stem}sb:{uid}:{token}"


#: The keys of the whole buffer, each in a slot of its own.
WORKERS: Final = f"{PREFIX}:workers"
BEAT: Final = f"{PREFIX}:beat"
SWEEP: Final = f"{PREFIX}:sweep"
SAMPLED: Final = f"{PREFIX}:sampled"
SAMPLES: Final = f"{PREFIX}:samples"
SET_BACK: Final = f"{PREFIX}:setback"
STATS: Final = f"{PREFIX}:stats"
CHORES: Final = f"{PREFIX}:chores"


def owner_index(owner_tag: str) -> str:
    """The dirty conversations of an owner (identity.owner_tag)."""
    return f"{PREFIX}:o:{{{owner_tag}}}"


def ref(uid: UUID, kind: str, item_id: str) -> str:
    """A member of ``due``, ``open`` and ``dead``: the item's name within its partition."""
    return f"{uid.hex}/{kind}/{item_id}"


#: Matches the keys that hold a conversation, hot, blind or journaled (`conversation_of` tells them from others).
CONVERSATIONS: Final = f"{PREFIX}:{{p*}}:*:*"
_CONVERSATION = re.compile(rf"{PREFIX}:\{{p(\d+)\}}:(?:c|b|j|ic|ib):([0-9a-f]{{32}})")


def conversation_of(key: str) -> tuple[int, str] | None:
    """(partition, uid hex) of a key that holds a conversation; None for any other."""
    found = _CONVERSATION.fullmatch(key)
    return None if found is None else (int(found[1]), found[2])


#: Matches every key of Blotter.
EVERYTHING: Final = f"{PREFIX}:*"
_NAMING = re.compile(rf"{PREFIX}:\{{p(\d+)\}}:(?:c|b|j|ic|ib|sc|sb|sp):([0-9a-f]{{32}})(?::.*)?")


def naming(key: str) -> tuple[int, str] | None:
    """As `conversation_of`, of keys that hold a conversation under adoption, or name it, too."""
    found = _NAMING.fullmatch(key)
    return None if found is None else (int(found[1]), found[2])


def split_ref(text: str) -> tuple[str, str, str]:
    """(uid hex, kind, id) of a ref; the id of a version is ``artifact/number``."""
    uid, kind, item_id = text.split("/", 2)
    return uid, kind, item_id
