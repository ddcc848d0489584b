"""Following: what a live reader at a version lacks of a conversation, wherever it lies.

    hot      follow.lua, many conversations a round trip; texts that only grew come as their new ends
    cold     Postgres, and only if something was evicted from the partition since the last look: what changes is hot
             first, and leaves the buffer by an eviction
    partial  the blind saves alone (Postgres is away): no step forward, for what lies below them is unknown
    else     (a buffer started anew, a journal to replay) the ordinary read puts it right, then again

Law: from the version an answer reaches, the next question loses nothing. Rows come in order of version, and where an
answer is cut short (``more``), its version is that of its last row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, cast

from models.buffer import codec
from models.buffer.buffer import Buffer, Place
from models.buffer.following import Followed, FollowReply, FollowRequest, follow
from models.errors import BlotterError, Contention, Gone, NotFound
from models.pipeline.adopt import TRIES, Adopter
from models.pipeline.doorbell import Doorbell
from models.pipeline.read import Loaded, Reader
from models.pipeline.views import Item
from models.postgres.store import Store
from models.settings import Settings


class Change(NamedTuple):
    """A row above the reader's version. ``tails``: text's ref ("c" content, "0" a part) -> what was appended, and the
    record's large fields are None; None: the record is whole. ``wrote``: see views.Item.
    """

    name: str
    item: Item[Any]
    wrote: int
    tails: Mapping[str, str] | None = None


class Changes(NamedTuple):
    """``same``: nothing can have changed. ``stored``: awaited rows now committed; ``unstored``: all that are not, None
    where no census was asked. ``closed``: the conversation is deleted. ``cold``: pass it with the next question (-1: it
    is not cold).
    """

    state: Literal["whole", "partial", "same"]
    version: int
    buffer_epoch: str
    changes: tuple[Change, ...] = ()
    more: bool = False
    stored: tuple[str, ...] = ()
    unstored: Mapping[str, int] | None = None
    closed: bool = False
    cold: int = -1


class Question(NamedTuple):
    """``cold``: of the last answer; ``request.since`` 0: from the beginning."""

    request: FollowRequest
    cold: int = -1


class Follower:
    """Answers live readers. Thread-safe; make it after fork."""

    def __init__(self, buffer: Buffer, store: Store, reader: Reader) -> None:
        self.buffer = buffer
        self._store = store
        self._reader = reader

    @classmethod
    def connect(cls, settings: Settings) -> Follower:
        """A follower on the servers that ``settings`` name; they are connected to at first use."""
        buffer, store = Buffer.connect(settings), Store.open(settings, role="web")
        ring = Doorbell(settings)
        return cls(buffer, store, Reader(buffer, store, Adopter(buffer, store, ring), ring))

    def close(self) -> None:
        self.buffer.close()
        self._store.close()

    def quick(self, questions: Sequence[Question]) -> list[Changes | BlotterError | None]:
        """One answer a question, from the buffer alone and in one round trip; None: ask `answer`.

        Errors of one conversation are its answer. Raises BufferUnavailable for all.
        """
        replies = follow(self.buffer, [question.request for question in questions])
        answers: list[Changes | BlotterError | None] = []
        for question, reply in zip(questions, replies, strict=True):
            try:
                answers.append(self._quick(question, reply))
            except BlotterError as error:
                answers.append(error)
        return answers

    def answer(self, question: Question) -> Changes:
        """The answer, whatever it takes.

        Raises NotFound, Gone (deletions above the reader's version were purged), StoreUnavailable, BufferUnavailable,
        Contention.
        """
        for _ in range(TRIES):
            reply = follow(self.buffer, [question.request])[0]
            found = self._quick(question, reply)
            if found is not None:
                return found
            found = self._slow(question, reply)
            if found is not None:
                return found
        raise Contention("the conversation was moved again and again while it was being followed")

    def _quick(self, question: Question, reply: FollowReply) -> Changes | None:
        head, request = reply.head, question.request
        if head.s == "cold" and head.p == question.cold:
            return Changes("same", request.since, head.e, unstored={}, cold=head.p)
        if head.s != "ok":
            return None
        _check_horizon(request.since, head.ph)
        if not request.since and not reply.items:
            raise NotFound("no such conversation")
        census = head.unstored
        return Changes(
            "whole",
            head.v,
            head.e,
            tuple(_change(request.place, item) for item in reply.items),
            head.more,
            head.stored,
            dict(
                zip(cast("tuple[str, ...]", census[::2]), cast("tuple[int, ...]", census[1::2]), strict=True)
            )
            if request.census
            else None,
            head.gone,
        )

    def _slow(self, question: Question, reply: FollowReply) -> Changes | None:
        request, head = question.request, reply.head
        place, since = request.place, request.since
        # Who takes a census comes anew, and does not know whether the conversation was deleted. Who awaits is told by rows:
        # a buffer that was lost left none either.
        asks = request.census or request.awaited
        if head.s == "cold" and not asks and self._store.last_version(place.uid) == since:
            return Changes("same", since, head.e, unstored={}, cold=head.p)
        loaded = self._reader.changed(place, since)
        if not loaded.cold and not loaded.partial:
            return None
        changes = sorted(_changes_of(loaded, since), key=lambda change: change.item.record.version)
        if loaded.partial:
            return Changes("partial", loaded.version, loaded.buffer_epoch, tuple(changes))
        if loaded.conversation is None:
            raise NotFound("no such conversation")
        _check_horizon(since, loaded.purge_horizon)
        chosen = _within(changes, request.most)
        more = len(chosen) < len(changes)
        version = chosen[-1].item.record.version if more else loaded.version
        return Changes(
            "whole", version, loaded.buffer_epoch, tuple(chosen), more, _committed(loaded, request.awaited), {},
            closed=loaded.conversation.record.deleted_ms is not None,
            cold=head.p if head.s == "cold" and not more else -1,
        )  # fmt: skip


def _check_horizon(since: int, horizon: int) -> None:
    if 0 < since < horizon:
        raise Gone("deletions after this version were purged: read from the beginning")


def _change(place: Place, found: Followed) -> Change:
    row = found.row
    record = codec.record(place.uid, place.owner, place.id, found)
    item = Item(cast(Any, record), stored=(row.z or 0) >= row.v)
    tails = (
        None if isinstance(found.tails, bool) else dict(zip(found.tails[::2], found.tails[1::2], strict=True))
    )
    return Change(found.name, item, row.v if row.w is None else row.w, tails)


def _committed(loaded: Loaded, awaited: Mapping[str, int]) -> tuple[str, ...]:
    """Those that Postgres has in the version that is awaited."""
    stored = {name: item.record.version for name, item in _named(loaded)}
    return tuple(name for name, version in awaited.items() if stored.get(name) == version)


def _named(loaded: Loaded) -> Iterator[tuple[str, Item[Any]]]:
    if loaded.conversation is not None:
        yield "c/", loaded.conversation
    for kind, of_kind in loaded.items.items():
        for item_id, item in of_kind.items():
            yield f"{kind}/{item_id}", item


def _changes_of(loaded: Loaded, since: int) -> list[Change]:
    return [
        Change(name, item, item.wrote or item.record.version)
        for name, item in _named(loaded)
        if item.record.version > since
    ]


#: About what a row costs beside its texts, bytes.
_ROW_BYTES: Final = 200
_LARGE: Final = ("content", "parts", "metadata", "input", "output", "error_text")


def _within(changes: Sequence[Change], most: int) -> list[Change]:
    """The first of them, about ``most`` characters, at least one."""
    chosen: list[Change] = []
    for change in changes:
        if most <= 0 and chosen:
            break
        chosen.append(change)
        record = change.item.record
        most -= _ROW_BYTES + sum(len(getattr(record, field, None) or "") for field in _LARGE)
    return chosen
