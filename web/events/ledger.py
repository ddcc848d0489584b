"""What the readers of a conversation have, and the events that bring them further. No I/O, no clock.

A ledger stands at a version. Of items that grow it remembers how long each text was and what the small fields were; so
a change that only appended becomes the appended text, however the change was read (the new end alone, or the whole).
What it does not remember comes as a whole item: always right, only longer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from models.core.commands import ItemKind, split_parts, utf16_units
from models.core.records import OPEN_STATUSES, Message
from models.pipeline.follow import Change, Changes
from web.events.offsets import Position
from web.render import NAMES, RENDERERS

#: Items whose lengths are remembered, the last ones that changed: a chat streams one to a few at a time.
KNOWN_ITEMS: Final = 64
_LARGE: Final = frozenset({"content", "parts", "metadata", "input", "output", "errorText"})

Event = dict[str, Any]


class Known(NamedTuple):
    """An item as readers have it: text's ref -> (UTF-16 units, UTF-8 bytes), and its small fields as rendered."""

    version: int
    lengths: Mapping[str, tuple[int, int]]
    fields: Mapping[str, Any]


def whole(change: Change, *, partial: bool = False) -> Event:
    """The event that carries an item as it is."""
    kind: ItemKind = change.name[0]  # type: ignore[assignment]
    rendered = RENDERERS[kind](change.item)
    event: Event = {"type": "item", "kind": NAMES[kind], "version": rendered["version"], "item": rendered}
    return {**event, "partial": True} if partial else event


def checkpoint(conversation_id: str, epoch: str, version: int, unstored: Mapping[str, int]) -> Event:
    """The event that tells the buffer's epoch, and what is not committed of all up to ``version``."""
    return {
        "type": "epoch",
        "bufferEpoch": epoch,
        "version": version,
        "unstored": [
            _named(conversation_id, name, version)
            for name, version in sorted(unstored.items(), key=lambda entry: entry[1])
        ],
    }


class Ledger:
    """What every reader at ``position`` has."""

    def __init__(self, conversation_id: str, changes: Changes, *, partial: bool = False) -> None:
        """As ``changes`` left its reader, who had what lies below."""
        self.version = changes.version
        self.epoch = changes.buffer_epoch
        self.unstored: dict[str, int] = dict(changes.unstored or {})
        self.closed = changes.closed
        self._id = conversation_id
        self._partial = partial
        self._known: OrderedDict[str, Known] = OrderedDict()
        self.learn(changes.changes)

    @property
    def position(self) -> Position:
        """Where its readers stand."""
        return Position(self.version, len(self.unstored))

    def known(self) -> dict[str, tuple[int, dict[str, int]]]:
        """What follow.lua is told: name -> (version, ref -> bytes)."""
        return {
            name: (known.version, {ref: size for ref, (_, size) in known.lengths.items()})
            for name, known in self._known.items()
        }

    def learn(self, changes: Iterable[Change]) -> None:
        """Remember open items that readers have by other ways (they caught up with them)."""
        for change in changes:
            if change.name not in self._known and change.tails is None:
                self._remember(change)

    def absorb(self, changes: Changes) -> list[Event]:
        """Go on to ``changes.version``; the events that bring along every reader who stands where this stood."""
        events: list[Event] = []
        if changes.buffer_epoch != self.epoch:
            self.epoch = changes.buffer_epoch
            # A buffer set back may have grown other texts since.
            self._known.clear()
            events.append(checkpoint(self._id, self.epoch, self.version, self.unstored))
        fresh = [change for change in changes.changes if change.item.record.version > self.version]
        self.closed = self.closed or changes.closed
        if self.closed:
            fresh = [change for change in fresh if change.name == "c/"]
            self.unstored.clear()
            self._known.clear()
        for change in fresh:
            events += self._told(change)
            if change.item.stored or self._partial:
                self.unstored.pop(change.name, None)
            else:
                self.unstored[change.name] = change.item.record.version
        for name in self._committed(changes, {change.name for change in fresh}):
            events.append({"type": "stored", **_named(self._id, name, self.unstored.pop(name))})
        self.version = max(self.version, changes.version)
        return events

    def _committed(self, changes: Changes, changed: set[str]) -> list[str]:
        """Names that were not stored and now are, in order of version. (That a census lacks one tells nothing: a buffer that
        was lost lacks it, too.)
        """
        names = [name for name in changes.stored if name in self.unstored and name not in changed]
        return sorted(names, key=lambda name: self.unstored[name])

    def _told(self, change: Change) -> list[Event]:
        known = self._known.get(change.name)
        record = change.item.record
        if known is not None and change.wrote <= known.version and record.deleted_ms is None:
            grown = _grown(change, known)
            if grown is not None:
                return self._appends(change, known, grown)
        self._known.pop(change.name, None)
        self._remember(change)
        return [whole(change, partial=self._partial)]

    def _appends(self, change: Change, known: Known, grown: Mapping[str, str]) -> list[Event]:
        kind: ItemKind = change.name[0]  # type: ignore[assignment]
        record = change.item.record
        fields = _fields(change)
        common: Event = {"type": "append", "kind": NAMES[kind], "id": record.id}
        # Whether readers have it as stored is not remembered here: commits and checkpoints tell that too.
        changed = {
            name: value
            for name, value in fields.items()
            if name == "stored" or known.fields.get(name) != value
        }
        lengths = dict(known.lengths)
        events = []
        for ref, text in grown.items() or {_last(lengths): ""}.items():
            units, size = lengths.get(ref, (0, 0))
            event = dict(common)
            if ref != "c":
                event["part"] = int(ref)
            event |= {
                "offset": units,
                "text": text,
                "status": record.status,
                "version": record.version,
                "set": changed,
            }
            lengths[ref] = (units + utf16_units(text), size + len(text.encode()))
            events.append({**event, "partial": True} if self._partial else event)
        self._known[change.name] = Known(record.version, lengths, fields)
        self._known.move_to_end(change.name)
        return events

    def _remember(self, change: Change) -> None:
        record = change.item.record
        if change.name[0] not in "ma" or record.deleted_ms is not None or record.status not in OPEN_STATUSES:
            return
        lengths = {ref: (utf16_units(text), len(text.encode())) for ref, text in texts_of(record).items()}
        self._known[change.name] = Known(record.version, lengths, _fields(change))
        if len(self._known) > KNOWN_ITEMS:
            self._known.popitem(last=False)


def texts_of(record: Any) -> dict[str, str]:
    """The texts of a whole message or artifact that may grow: "c" its content, "0", "1" … the texts of its parts."""
    texts = {"c": record.content or ""}
    if isinstance(record, Message) and record.parts is not None:
        for index, part in enumerate(split_parts(record.parts)):
            if part.text is not None:
                texts[str(index)] = part.text
    return texts


def _grown(change: Change, known: Known) -> dict[str, str] | None:
    """What was appended to which text, where anything was; None where that cannot be told."""
    if change.tails is not None:
        return dict(change.tails)
    texts = texts_of(change.item.record)
    if texts.keys() != known.lengths.keys():
        return None
    grown = {}
    for ref, text in texts.items():
        raw = text.encode()
        size = known.lengths[ref][1]
        if len(raw) < size:
            return None
        if len(raw) > size:
            grown[ref] = raw[size:].decode()
    return grown


def _fields(change: Change) -> dict[str, Any]:
    kind: ItemKind = change.name[0]  # type: ignore[assignment]
    return {name: value for name, value in RENDERERS[kind](change.item).items() if name not in _LARGE}


def _last(lengths: Mapping[str, tuple[int, int]]) -> str:
    return max((ref for ref in lengths if ref != "c"), key=int, default="c")


def _named(conversation_id: str, name: str, version: int) -> Event:
    kind: ItemKind = name[0]  # type: ignore[assignment]
    return {"kind": NAMES[kind], "id": name[2:] or conversation_id, "version": version}
