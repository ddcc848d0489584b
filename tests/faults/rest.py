"""What there is when all is done: buffer, Postgres and API gathered for the checker, one conversation at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from models.buffer import codec
from models.buffer.buffer import Buffer
from models.buffer.codec import View
from models.core.records import Record, Snapshot
from models.errors import Gone, NotFound
from models.pipeline.service import Pipeline
from models.pipeline.views import ConversationView
from models.postgres.store import Store
from tests.buffer.checks import recount, recount_blind
from tests.faults.history import Place, Rest, Sight, sight_of

Key = tuple[str, str]


def gather(
    buffer: Buffer, store: Store, pipeline: Pipeline, conversations: Iterable[tuple[str, str]]
) -> Rest:
    """Everything about ``conversations`` (owner, id), and what is left to do anywhere."""
    return Rest(
        places=tuple(place_of(buffer, store, pipeline, owner, name) for owner, name in conversations),
        left=tuple(left(buffer)),
    )


def place_of(buffer: Buffer, store: Store, pipeline: Pipeline, owner: str, conversation: str) -> Place:
    """One conversation as each side has it."""
    place = buffer.place(owner, conversation)
    books = []
    try:
        recount(buffer, place)
        recount_blind(buffer, place)
    except (AssertionError, KeyError) as error:
        books.append(f"{type(error).__name__}: {error}".split("\n", 1)[0])
    reply = buffer.read(place, "full", most=0, trust=True)
    buffered = None
    if reply.head.s == "ok":
        buffered = dict(_hot(buffer, owner, conversation, item) for item in reply.items)
        if reply.head.partial:
            books.append("its journal is not replayed")
    shown, version = None, 0
    try:
        view = pipeline.read(owner, conversation, limit=1_000_000, branches=True)
        shown, version = {(s.kind, s.id): s for s in sights(view)}, view.version
    except (Gone, NotFound):
        pass
    stored = {(s.kind, s.id): s for s in _stored(store.snapshot(place.uid))}
    versions = {
        key[1]: tuple(v.content for v in store.artifact_versions(place.uid, key[1], after=None, limit=1000))
        for key in stored
        if key[0] == "a"
    }
    return Place(
        owner=owner, conversation=conversation, buffered=buffered, stored=stored, shown=shown, shown_version=version,
        versions=versions, books=tuple(books),
    )  # fmt: skip


def sights(view: ConversationView) -> tuple[Sight, ...]:
    """The items of a view."""
    items: list[Any] = [view.conversation, *view.messages, *view.tool_results, *view.artifacts]
    return tuple(sight_of(item.record, stored=item.stored) for item in items)


def _hot(buffer: Buffer, owner: str, conversation: str, item: View) -> tuple[Key, Sight]:
    place = buffer.place(owner, conversation)
    record = codec.record(place.uid, owner, conversation, item)
    sight = sight_of(record, stored=item.row.y is None)
    return (sight.kind, sight.id), sight


def _stored(snapshot: Snapshot) -> Iterable[Sight]:
    if snapshot.conversation is not None:
        yield sight_of(snapshot.conversation)
    items: list[Record] = [*snapshot.messages, *snapshot.tool_results, *snapshot.artifacts]
    yield from map(sight_of, items)


def left(buffer: Buffer) -> Iterable[str]:
    """What waits anywhere in the buffer."""
    client: Any = buffer.client
    for keys in buffer.partitions:
        for name, count in (
            ("due", client.zcard(keys.due)), ("dead", client.hlen(keys.dead)), ("blind", client.zcard(keys.blind)),
            ("leased", client.exists(keys.lease)),
        ):  # fmt: skip
            if count:
                yield f"partition {keys.number}: {name} {count}"
