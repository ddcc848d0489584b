"""Reading: hot from the buffer alone, cold from Postgres alone, always one snapshot with one version.

Laws: a read that starts after an acknowledgement shows that save. A cold read looks again after loading: if the
conversation became hot, or anything of its partition was evicted meanwhile, it starts over. A reader settles what is
stale, so nobody watches a spinner for ever. A blind conversation is adopted first, one adopted under another buffer
epoch merged; with Postgres still away it is shown as far as it is known (partial), and what is not there is unknown.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec

from models.buffer import codec
from models.buffer.buffer import READ_WHOLE_BYTES, Buffer, Place, ReadReply
from models.buffer.codec import View
from models.buffer.partitions import AHEAD_MS
from models.core.commands import ItemKind
from models.core.records import (
    OPEN_STATUSES,
    Artifact,
    ArtifactVersion,
    Conversation,
    Message,
    Snapshot,
    ToolResult,
)
from models.core.threads import Node, window
from models.errors import Contention, Gone, NotFound, StoreUnavailable
from models.pipeline.adopt import TRIES, Adopter
from models.pipeline.views import ConversationView, Item, ItemPage
from models.postgres.store import Store

_Any = Conversation | Message | ToolResult | Artifact
T = TypeVar("T", Message, ToolResult, Artifact)
_PAUSE_S: Final = 0.01


class Loaded(NamedTuple):
    """A conversation as one snapshot, or the part of it that was asked for. Items of all kinds but versions."""

    conversation: Item[Conversation] | None
    items: dict[str, dict[str, Item[Any]]]
    version: int
    buffer_epoch: str
    in_flight: bool
    partial: bool
    purge_horizon: int
    #: Read from Postgres, so all of it and all of it committed.
    cold: bool = False


class Reader:
    """Reads conversations and their items. Thread-safe."""

    def __init__(self, buffer: Buffer, store: Store, adopter: Adopter, ring: Callable[[int], None]) -> None:
        self._buffer = buffer
        self._store = store
        self._adopter = adopter
        self._ring = ring
        self._pause = threading.Event()

    # ------------------------------------------------------------------ what callers ask
    def read(
        self, place: Place, *, since: int | None, limit: int, before: str | None, branches: bool
    ) -> ConversationView:
        """See service.Pipeline.read."""
        if since is not None:
            return self._since(place, since)
        loaded = self._load(place, lambda loaded: self._window(loaded, limit, before, branches).ids)
        conversation = self._living(loaded)
        shown = self._window(loaded, limit, before, branches)
        chosen = set(shown.ids)
        messages = tuple(loaded.items["m"][item_id] for item_id in shown.ids)
        linked: set[str] = set()
        for message in messages:
            linked.update(message.record.tool_result_ids, message.record.artifact_ids)
        everything = not shown.more and before is None

        def belongs(item: Item[Any]) -> bool:
            record = item.record
            if record.deleted_ms is not None:
                return False
            if (everything and branches) or record.message_id in chosen or record.id in linked:
                return True
            if record.message_id is None or record.message_id not in loaded.items["m"]:
                return before is None and record.id not in _linked_elsewhere(loaded, chosen)
            return False

        return ConversationView(
            conversation=conversation,
            messages=messages,
            tool_results=_ordered(item for item in loaded.items["t"].values() if belongs(item)),
            artifacts=_ordered(item for item in loaded.items["a"].values() if belongs(item)),
            version=loaded.version,
            buffer_epoch=loaded.buffer_epoch,
            in_flight=loaded.in_flight,
            partial=loaded.partial,
            more=shown.more,
            etag=_etag(place, loaded, f"{limit}/{before}/{branches}"),
        )

    def _since(self, place: Place, since: int) -> ConversationView:
        loaded = self._load(place, None, since=since)
        conversation = self._living(loaded)
        if 0 < since < loaded.purge_horizon:
            raise Gone("deletions before this version were purged: read the whole conversation")
        changed = {
            kind: [item for item in items.values() if item.record.version > since]
            for kind, items in loaded.items.items()
        }
        return ConversationView(
            conversation=conversation,
            messages=_ordered(changed["m"]),
            tool_results=_ordered(changed["t"]),
            artifacts=_ordered(changed["a"]),
            version=loaded.version,
            buffer_epoch=loaded.buffer_epoch,
            in_flight=loaded.in_flight,
            partial=loaded.partial,
            etag=_etag(place, loaded, f"since/{since}"),
        )

    def changed(self, place: Place, since: int) -> Loaded:
        """Of a hot conversation the rows above version ``since``, of a cold or a partial one all there is, tombstones
        included, a deleted conversation's too. Raises StoreUnavailable, BufferUnavailable, Contention.
        """
        return self._load(place, None, since=since)

    def item(self, place: Place, kind: ItemKind, item_id: str) -> tuple[Item[Any], str]:
        """One item and the buffer epoch. Raises NotFound, Gone; StoreUnavailable where only Postgres knows."""
        loaded = self._load(place, None, names=("c/", f"{kind}/{item_id}"))
        self._living(loaded)
        found = loaded.items[kind].get(item_id)
        if found is None and loaded.partial:
            raise StoreUnavailable("the item is not in reach while Postgres is away")
        if found is None:
            raise NotFound("no such item")
        if found.record.deleted_ms is not None:
            raise Gone("the item was deleted")
        return msgspec.structs.replace(found, partial=loaded.partial), loaded.buffer_epoch

    def items(self, place: Place, kind: ItemKind, *, after: str | None, limit: int) -> ItemPage[Any]:
        """A page of one kind in order; ``after``: ``position,id`` of the last one before."""
        loaded = self._load(
            place,
            lambda loaded: [item.record.id for item in self._page(loaded, kind, after, limit)],
            kind=kind,
        )
        self._living(loaded)
        page = self._page(loaded, kind, after, limit)
        more = len(page) > limit
        page = page[:limit]
        return ItemPage(
            items=tuple(page),
            after=f"{page[-1].record.position},{page[-1].record.id}" if more and page else None,
            partial=loaded.partial,
        )

    def artifact_versions(
        self, place: Place, artifact_id: str, *, after: int | None, limit: int
    ) -> tuple[ArtifactVersion, ...]:
        """Versions above number ``after``: those not committed yet from the buffer, the others from Postgres."""
        self.item(place, "a", artifact_id)
        pending = {version.number: version for version in self._pending_versions(place, artifact_id)}
        try:
            for version in self._store.artifact_versions(place.uid, artifact_id, after=after, limit=limit):
                pending.setdefault(version.number, version)
        except StoreUnavailable:
            if not pending:
                raise
        wanted = sorted(number for number in pending if after is None or number > after)
        return tuple(pending[number] for number in wanted[:limit])

    def _pending_versions(self, place: Place, artifact_id: str) -> Iterable[ArtifactVersion]:
        names = self._buffer.version_names(place, artifact_id)
        if not names:
            return ()
        reply = self._buffer.read(place, "names", names=names, trust=True)
        return [
            cast(ArtifactVersion, codec.record(place.uid, place.owner, place.id, item))
            for item in reply.items
        ]

    # ------------------------------------------------------------------ one snapshot
    def _load(
        self,
        place: Place,
        choose: Callable[[Loaded], Iterable[str]] | None,
        *,
        since: int | None = None,
        names: tuple[str, ...] = (),
        kind: str = "m",
    ) -> Loaded:
        """The conversation in one snapshot, hot, blind or cold.

        Of one too large to read whole, ``choose`` picks ids of ``kind`` from the rows; large fields of others stay None.
        Raises NotFound, StoreUnavailable, BufferUnavailable, Contention.
        """
        trust, most, settled = False, READ_WHOLE_BYTES, False
        for attempt in range(TRIES * 2):
            if attempt > 1:
                self._pause.wait(random.uniform(0, _PAUSE_S * 2**attempt))  # noqa: S311 (jitter, no secret)
            if attempt >= TRIES:
                most = 0
            if since is not None:
                reply = self._buffer.read(place, "since", since=since, trust=trust)
            elif names:
                reply = self._buffer.read(place, "names", names=names, trust=trust)
            else:
                reply = self._buffer.read(place, "full", trust=trust, most=most)
            head = reply.head
            if head.s == "uninit":
                self._buffer.initialise()
            elif head.s == "suspect":
                try:
                    self._adopter.adopt(place, keep_empty=True)
                except StoreUnavailable:
                    trust = True
            elif head.s == "cold":
                loaded = self._cold(place, head.p)
                if loaded is not None:
                    return loaded
            elif head.s == "ok":
                if head.partial and not trust and self._unblind(place):
                    continue
                if not settled and self._settle_stale(place, reply):
                    settled = True
                    continue
                loaded = self._loaded(place, reply)
                if head.whole or choose is None:
                    return loaded
                filled = self._fill(place, reply, loaded, choose(loaded), kind)
                if filled is not None:
                    return filled
        raise Contention("the conversation was moved again and again while it was being read")

    def _cold(self, place: Place, epoch: int) -> Loaded | None:
        """From Postgres, in one snapshot; None where it became hot, or may have been, meanwhile: start over."""
        base = self._store.base(place.uid)
        again = self._buffer.read(place, "names", names=())
        if again.head.s != "cold" or again.head.p != epoch:
            return None
        snapshot = base.snapshot
        now_ms = self._buffer.now_ms()
        staged = codec.stage(place.owner, place.id, snapshot, base.purge_horizon, self._buffer.stale)
        if any(deadline <= now_ms for _, deadline in staged.open):
            self._adopter.adopt(place)
            return None
        return Loaded(
            Item(snapshot.conversation, stored=True) if snapshot.conversation is not None else None,
            {
                "m": {m.id: Item(m, stored=True) for m in snapshot.messages},
                "t": {t.id: Item(t, stored=True) for t in snapshot.tool_results},
                "a": {a.id: Item(a, stored=True) for a in snapshot.artifacts},
            },
            staged.header["last"],
            again.head.e,
            bool(staged.open) or _any_open(snapshot),
            partial=False,
            purge_horizon=base.purge_horizon,
            cold=True,
        )

    def _loaded(self, place: Place, reply: ReadReply) -> Loaded:
        head = reply.head
        conversation: Item[Conversation] | None = None
        items: dict[str, dict[str, Item[Any]]] = {"m": {}, "t": {}, "a": {}}
        for found in reply.items:
            item = self._item(place, found)
            if found.kind == "c":
                conversation = item
            else:
                items[found.kind][found.id] = item
        partial = head.partial or head.suspect
        return Loaded(conversation, items, head.v, head.e, head.h.open > 0, partial, head.h.ph)

    def _item(self, place: Place, found: View) -> Item[Any]:
        record = codec.record(place.uid, place.owner, place.id, found)
        wrote = found.row.v if found.row.w is None else found.row.w
        return Item(cast(Any, record), stored=(found.row.z or 0) >= found.row.v, wrote=wrote)

    def _fill(
        self, place: Place, reply: ReadReply, loaded: Loaded, chosen: Iterable[str], kind: str
    ) -> Loaded | None:
        """``loaded`` with the bodies of what was chosen and of what is linked to it; None where it changed meanwhile."""
        names = ["c/"] + [f"{kind}/{item_id}" for item_id in chosen]
        if kind == "m":
            wanted = {name[2:] for name in names[1:]}
            for other in ("t", "a"):
                for item_id, item in loaded.items[other].items():
                    if item.record.message_id is None or item.record.message_id in wanted:
                        names.append(f"{other}/{item_id}")
            for item_id in wanted:
                message = loaded.items["m"][item_id].record
                names += [f"t/{linked}" for linked in message.tool_result_ids]
                names += [f"a/{linked}" for linked in message.artifact_ids]
        full = self._buffer.read(
            place, "names", names=tuple(dict.fromkeys(names)), trust=True, at=reply.head.v
        )
        if full.head.s != "ok" or full.head.partial != reply.head.partial:
            return None
        for found in full.items:
            if found.kind != "c":
                loaded.items[found.kind][found.id] = self._item(place, found)
        conversation = next((self._item(place, found) for found in full.items if found.kind == "c"), None)
        return loaded._replace(conversation=conversation)

    def _unblind(self, place: Place) -> bool:
        """Adopt and replay what was saved blind; False where Postgres is still away."""
        try:
            self._adopter.replay(place)
        except StoreUnavailable:
            return False
        return True

    def _settle_stale(self, place: Place, reply: ReadReply) -> bool:
        now_ms = reply.head.now
        names = [
            item.name
            for item in reply.items
            if item.row.o is not None and (item.row.o <= now_ms or (item.row.t or 0) > now_ms + AHEAD_MS)
        ]
        if not names or reply.head.partial or reply.head.suspect:
            return False
        settled = self._buffer.settle(place.keys, place.hex, names)
        if settled.ring:
            self._ring(place.keys.number)
        return not settled.suspect

    # ------------------------------------------------------------------ choosing
    @staticmethod
    def _living(loaded: Loaded) -> Item[Conversation]:
        if loaded.conversation is None and loaded.partial:
            raise StoreUnavailable("the conversation is not in reach while Postgres is away")
        if loaded.conversation is None:
            raise NotFound("no such conversation")
        if loaded.conversation.record.deleted_ms is not None:
            raise Gone("the conversation was deleted")
        return loaded.conversation

    @staticmethod
    def _window(loaded: Loaded, limit: int, before: str | None, branches: bool) -> Any:
        head_id = loaded.conversation.record.head_id if loaded.conversation is not None else None
        nodes = (
            Node(item.record.id, item.record.position, item.record.parent_id)
            for item in loaded.items["m"].values()
            if item.record.deleted_ms is None
        )
        return window(nodes, head_id=head_id, branches=branches, limit=limit, before=before)

    @staticmethod
    def _page(loaded: Loaded, kind: str, after: str | None, limit: int) -> list[Item[Any]]:
        position, _, item_id = (after or "").partition(",")
        living = (item for item in loaded.items[kind].values() if item.record.deleted_ms is None)
        ordered = _ordered(living)
        return [item for item in ordered if (item.record.position, item.record.id) > (position, item_id)][
            : limit + 1
        ]


def _ordered(items: Iterable[Item[Any]]) -> tuple[Item[Any], ...]:
    return tuple(sorted(items, key=lambda item: (item.record.position, item.record.id)))


def _linked_elsewhere(loaded: Loaded, chosen: set[str]) -> set[str]:
    """Ids that living messages outside the window link to."""
    out: set[str] = set()
    for item_id, message in loaded.items["m"].items():
        if item_id not in chosen and message.record.deleted_ms is None:
            out.update(message.record.tool_result_ids, message.record.artifact_ids)
    return out


def _any_open(snapshot: Snapshot) -> bool:
    items: tuple[Message | ToolResult | Artifact, ...] = (
        *snapshot.messages,
        *snapshot.tool_results,
        *snapshot.artifacts,
    )
    return any(item.status in OPEN_STATUSES and item.deleted_ms is None for item in items)


def _etag(place: Place, loaded: Loaded, query: str) -> str | None:
    if loaded.partial:
        return None
    text = f"{place.hex}/{loaded.version}/{query}/{loaded.buffer_epoch}/{loaded.in_flight}"
    return blake2b(text.encode(), digest_size=12).hexdigest()
