"""What clients did and saw, as a log: the only thing the checker looks at, wherever it was taken.

One entry for each operation, with the times at which it began and ended by one monotonic clock (any unit; of the times
only the order counts). A simulation writes it, and so may a campaign against real processes:

    Save     the commands sent together and what came of each: acknowledged (a version), refused (an outcome), unknown
    Read     a conversation as it was shown, or that it was gone, or not there
    Listing  an owner's conversations as they were shown
    Flush    a flusher at work in a partition: the lease allows one at a time, unless it expired
    Fault    what was done to the servers that relaxes the promise: buffer rolled back or emptied
    Rest     everything at the end: buffer, Postgres and API, item by item

`Seen` is an item as a reader sees it, in a form that can be compared: from a record, or from the model's item.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from models.core.commands import BODY_FIELDS, ROW_FIELDS, Command, ItemOutcome, join_part, split_parts
from models.core.records import Artifact, Conversation, Message, Record, ToolResult
from tests.buffer.reference import Item

#: An operation whose client never learned its end.
NEVER: Final = 1 << 62
#: (conversation, kind, id); the conversation's own row is kind "c" with the empty id.
ItemKey: TypeAlias = tuple[str, str, str]


class Seen(NamedTuple):
    """An item's content. ``row`` and ``texts``: the fields that hold something, by name; ``parts``: their JSON."""

    status: str
    settled_from: str | None
    revision: int | None
    deleted: bool
    row: tuple[tuple[str, Any], ...]
    texts: tuple[tuple[str, str], ...]
    parts: str | None


class Sight(NamedTuple):
    """An item in a view."""

    kind: str
    id: str
    version: int
    position: str
    stored: bool
    seen: Seen
    links: frozenset[str] = frozenset()


class Save(msgspec.Struct, kw_only=True):
    """``outcomes``: one a command, None where it is unknown. ``blind``: accepted without its base. ``error``: why."""

    client: str
    start: int
    end: int = NEVER
    owner: str
    conversation: str
    commands: tuple[Command, ...]
    outcomes: tuple[ItemOutcome | None, ...] = ()
    #: The conversation's version told with the acknowledgement; 0 where none was.
    version: int = 0
    blind: bool = False
    error: str = ""
    #: It may have run more than once: its answer was lost and it was sent again.
    retried: bool = True
    #: A sync: the message ids in the client's order.
    order: tuple[str, ...] = ()


class Read(msgspec.Struct, kw_only=True):
    """``result``: ok, gone (deleted), nothing (never there), failed. ``whole``: every living item is in ``items``."""

    client: str
    start: int
    end: int
    owner: str
    conversation: str
    result: Literal["ok", "gone", "nothing", "failed"]
    version: int = 0
    partial: bool = False
    whole: bool = True
    items: tuple[Sight, ...] = ()


class Listing(msgspec.Struct, kw_only=True):
    """``conversations``: ids, latest activity first."""

    client: str
    start: int
    end: int
    owner: str
    conversations: tuple[str, ...]


class Flush(msgspec.Struct, kw_only=True):
    """A flusher that held the lease of a partition from ``start`` to ``end``; ``expired``: until then only. ``failed``: it
    met an error, and let the partition pause.
    """

    client: str
    start: int
    end: int = NEVER
    partition: int
    expired: int = NEVER
    failed: bool = False


class Fault(msgspec.Struct, kw_only=True):
    """The buffer went back to what it was at ``to`` (emptied: to nothing). ``noticed``: when its epoch changed."""

    what: Literal["rolled back", "emptied"]
    start: int
    end: int
    to: int = -1
    noticed: int = NEVER


class Place(msgspec.Struct, kw_only=True):
    """One conversation at rest: items by (kind, id), each (version, content), tombstones included; None: not held.

    ``buffered`` is None where it is cold. ``shown``: what the API answers, living items only; None: gone or not there.
    ``versions``: contents of an artifact by number. ``books``: what the buffer's own figures say that they should not.
    """

    owner: str
    conversation: str
    buffered: dict[tuple[str, str], Sight] | None
    stored: dict[tuple[str, str], Sight]
    shown: dict[tuple[str, str], Sight] | None
    shown_version: int = 0
    versions: dict[str, tuple[str, ...]] = {}
    books: tuple[str, ...] = ()


class Rest(msgspec.Struct, kw_only=True):
    """Everything after healing and draining. ``left``: what is dirty, due, dead, journaled or leased, by name."""

    places: tuple[Place, ...]
    left: tuple[str, ...] = ()


Entry: TypeAlias = Save | Read | Listing | Flush | Fault


class History:
    """The log of one run."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> Any:
        self.entries.append(entry)
        return entry

    def of(self, kind: type[Any]) -> list[Any]:
        return [entry for entry in self.entries if isinstance(entry, kind)]


# ---------------------------------------------------------------- what is seen of an item
def seen_of_item(kind: str, item: Item) -> Seen:
    """Of the model's item."""
    parts = None
    if item.parts is not None:
        parts = "[" + ",".join(join_part(skeleton, text) for skeleton, text, _ in item.parts) + "]"
    return _seen(
        kind, item.status, item.settled_from, item.revision, item.deleted, item.row, item.texts, parts
    )


def seen_of_record(record: Record) -> Seen:
    """Of a record."""
    kind = kind_of(record)
    fields = msgspec.structs.asdict(record)
    row = {name: value for name in ROW_FIELDS[kind] if (value := fields[name]) not in (None, False)}
    texts = {name: value for name in BODY_FIELDS[kind] if (value := fields[name]) is not None}
    return _seen(
        kind, fields.get("status", "complete"), fields.get("settled_from"), fields["revision"],
        fields["deleted_ms"] is not None, row, texts, fields.get("parts"),
    )  # fmt: skip


def sight_of(record: Record, *, stored: bool = True) -> Sight:
    """A record as a reader sees it."""
    kind = kind_of(record)
    links = getattr(record, "tool_result_ids", ()) + getattr(record, "artifact_ids", ())
    item_id = "" if kind == "c" else record.id
    return Sight(
        kind,
        item_id,
        record.version,
        getattr(record, "position", ""),
        stored,
        seen_of_record(record),
        frozenset(links),
    )


def item_of(sight: Sight) -> Item:
    """The model's item that looks like this."""
    seen = sight.seen
    parts = None
    if seen.parts is not None:
        parts = [(part.skeleton, part.text, part.rank) for part in split_parts(seen.parts)]
    return Item(
        seen.status, seen.settled_from, seen.revision, seen.deleted, dict(seen.row), dict(seen.texts), parts
    )


def kind_of(record: Record) -> Any:
    """Its letter."""
    return {Conversation: "c", Message: "m", ToolResult: "t", Artifact: "a"}[type(record)]


def _seen(
    kind: str, status: str, settled_from: str | None, revision: int | None, deleted: bool, row: dict[str, Any],
    texts: dict[str, str], parts: str | None,
) -> Seen:  # fmt: skip
    if kind == "c":
        status, settled_from = "complete", None
    filled = {name: value for name, value in row.items() if value not in (None, False)}
    return Seen(
        status,
        settled_from,
        revision,
        deleted,
        tuple(sorted(filled.items())),
        tuple(sorted(texts.items())),
        parts,
    )


# ---------------------------------------------------------------- told in words
def tell(entry: Entry) -> str:
    """One line about one entry."""
    end = "…" if entry.end == NEVER else entry.end
    when = f"[{entry.start}, {end}]"
    if isinstance(entry, Save):
        pairs = zip(entry.commands, entry.outcomes or (None,) * len(entry.commands), strict=True)
        said = "; ".join(f"{tell_command(command)} → {tell_outcome(outcome)}" for command, outcome in pairs)
        blind = " (blind)" if entry.blind else ""
        return f"{when} {entry.client} saves {entry.conversation}{blind}: {said}{_because(entry.error)}"
    if isinstance(entry, Read):
        items = "; ".join(f"{s.kind}/{s.id}@{s.version} {tell_seen(s.seen)}" for s in entry.items)
        partial = ", partial" if entry.partial else ""
        return f"{when} {entry.client} reads {entry.conversation}: {entry.result}, version {entry.version}{partial}: {items}"
    if isinstance(entry, Listing):
        return f"{when} {entry.client} lists {entry.owner}: {', '.join(entry.conversations)}"
    if isinstance(entry, Flush):
        return f"{when} {entry.client} flushes partition {entry.partition}"
    return f"{when} the buffer is {entry.what} (to {entry.to})"


def tell_command(command: Command) -> str:
    """A command in a few words."""
    fields = [
        f"{name}={value!r}"
        for name in command.__struct_fields__
        if name not in ("k", "id", "units") and (value := getattr(command, name)) not in (None, {}, ())
    ]
    return f"{type(command).__name__.lower()} {command.k}/{command.id} {' '.join(fields)}".rstrip()


def tell_outcome(outcome: ItemOutcome | None) -> str:
    if outcome is None:
        return "unknown"
    length = "" if outcome.length is None else f", length {outcome.length}"
    return f"{outcome.outcome} @{outcome.version}{length}"


def tell_seen(seen: Seen) -> str:
    if seen.deleted:
        return "deleted"
    fields = [f"{name}={value!r}" for name, value in (*seen.row, *seen.texts)]
    settled = f"<{seen.settled_from}" if seen.settled_from else ""
    revision = "" if seen.revision is None else f" r{seen.revision}"
    return " ".join([f"{seen.status}{settled}{revision}", *fields, seen.parts or ""]).rstrip()


def tell_all(entries: Iterable[Entry]) -> str:
    return "\n".join(
        "  " + tell(entry) for entry in sorted(entries, key=lambda entry: (entry.start, entry.end))
    )


def _because(error: str) -> str:
    return f" ({error})" if error else ""


def same_conversation(entries: Sequence[Entry], conversation: str) -> list[Entry]:
    """The entries that concern a conversation."""
    return [entry for entry in entries if getattr(entry, "conversation", conversation) == conversation]


class Anomaly(NamedTuple):
    """A breach: its name, what exactly, and the entries that show it."""

    name: str
    text: str
    entries: tuple[Entry, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {self.text}\n{tell_all(self.entries)}".rstrip()
