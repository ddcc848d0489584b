"""One item's life, folded: which contents it can have had at each of its versions, given what its writers were told.

Within an era (between two faults of the buffer) the versions that anybody was told order everything: accepted commands,
refusals and duplicates (told the version they were judged against), what readers saw, what is stored at the end. Between
those, other things may have happened that nobody was told of, each at most once or by rule:

- a command whose outcome is unknown, or that a retry ran a second time, took effect at some moment of its interval;
- the sweep settled an open item;
- links from other items, or the replay of a journal, gave it a new version and left its content alone;
- a blind save was applied in the order of its journal, after what was accepted before it and before what came after it:
  this one must have been tried, whether the rules let it win or not.

So the fold carries the set of contents that are possible, each with what it has used up, and a version that leaves none
is the violation. The model is tests/buffer/reference.py, one item at a time; links are checked elsewhere.

A fault makes an item go back to a state it had no earlier than the moment the buffer went back to, or than it was known
to be stored; a later one of its states may come back from Postgres, where its version is higher.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from models.core.commands import Append, Command, Delete, ItemOutcome, Put
from tests.buffer.reference import OPEN, Conversation, Item, length
from tests.faults.history import NEVER, Entry, Fault, ItemKey, Save, Seen, Sight, seen_of_item

#: Contents carried at once; beyond that the fold gives up, which it says.
MOST: Final = 4_000
LIMITS: Final = frozenset(
    {
        "item-too-large",
        "too-many-items",
        "too-many-parts",
        "too-many-links",
        "conversation-too-large",
        "unavailable",
    }
)
_ABSENT: Final = None


class Undecided(Exception):
    """Too many ways it may have been."""


class Try(NamedTuple):
    """One command of a save."""

    save: Save
    number: int
    command: Command
    outcome: ItemOutcome | None

    @property
    def accepted(self) -> bool:
        return self.outcome is not None and self.outcome.outcome == "accepted"


class Glimpse(NamedTuple):
    """An item as one read showed it; ``stored`` only if it was known to be committed."""

    sight: Sight
    start: int
    end: int
    entry: Entry | None


class Broken(NamedTuple):
    """Why no history explains an item."""

    name: str
    text: str
    entries: tuple[Entry, ...]


class Node(NamedTuple):
    """A possible content; ``used``: unseen commands that took effect; ``tried``: blind saves replayed."""

    item: Item | None
    used: frozenset[tuple[int, int]]
    tried: int


@dataclass
class Event:
    """What is known to have stood at one version."""

    version: int
    accepted: list[Try] = field(default_factory=list)
    judged: list[Try] = field(default_factory=list)
    glimpses: list[Glimpse] = field(default_factory=list)
    back: list[Node] = field(default_factory=list)

    @property
    def latest(self) -> int:
        """It had happened by then."""
        ends = [t.save.end for t in (*self.accepted, *self.judged)] + [g.end for g in self.glimpses]
        return min(ends, default=NEVER)

    @property
    def begun(self) -> int:
        """It still stood, or happened, after this."""
        starts = [t.save.start for t in (*self.accepted, *self.judged)] + [g.start for g in self.glimpses]
        return max(starts, default=-1)

    @property
    def earliest(self) -> int:
        """It had not happened before this."""
        return max((t.save.start for t in self.accepted), default=-1)

    def entries(self) -> list[Entry]:
        out: list[Entry] = [t.save for t in (*self.accepted, *self.judged)]
        return out + [g.entry for g in self.glimpses if g.entry is not None]


# ---------------------------------------------------------------- one command on one content
def judge(item: Item | None, command: Command) -> list[tuple[str, Item | None, int | None]]:
    """What may come of a command: (outcome, content after, length told). Two answers where it depends on links."""
    if command.k == "c" and isinstance(command, Delete):
        if item is not None and item.deleted:
            return [("duplicate", item, None)]
        return [("accepted", Item(revision=item.revision if item else None, deleted=True), None)]
    answers = []
    linked = isinstance(command, Put) and bool(command.results or command.artifacts)
    for known in (False, True) if linked else (False,):
        world = Conversation()
        if item is not None:
            mine = copy.deepcopy(item) if isinstance(command, Delete) or known else item
            if known and isinstance(command, Put):
                mine.results, mine.artifacts = list(command.results or ()), list(command.artifacts or ())
            world.items[command.k, command.id] = mine
        outcome = world.apply(command)
        after = world.items.get((command.k, command.id))
        if after is not None and (after.results or after.artifacts):
            after = copy.copy(after)
            after.results, after.artifacts = [], []
        answers.append((outcome, after, _length(command, after, outcome)))
    return answers


def _length(command: Command, item: Item | None, outcome: str) -> int | None:
    if item is None or isinstance(command, Delete):
        return None
    parts = item.parts or []
    if outcome == "part-gap":
        return len(parts)
    if isinstance(command, Append) and command.part is not None and command.part < len(parts):
        text = parts[command.part][1]
        return None if text is None else length(text)
    text = item.texts.get("content")
    if text is None:
        return 0 if isinstance(command, Append) else None
    return length(text)


def settled(item: Item) -> Item:
    """As the sweep leaves an open item."""
    row = {**item.row, "status_reason": "stale"}
    return Item("interrupted", item.status, item.revision, False, row, item.texts, item.parts)


# ---------------------------------------------------------------- the fold
class Chain:
    """The fold of one item. ``events`` by era, ``floats`` what may have happened unseen, ``blind`` in journal order."""

    def __init__(self, key: ItemKey) -> None:
        self.key = key
        self.kind = key[1]
        self.tries: list[Try] = []
        self.glimpses: list[Glimpse] = []
        self.nodes: dict[tuple[object, ...], Node] = {}
        self._trail: list[tuple[int, int, list[Node]]] = []
        self._seen: dict[int, tuple[Item, Seen]] = {}
        self._judged: dict[tuple[Seen | None, int, int], list[tuple[str, Item | None, int | None]]] = {}
        #: Version of the last event that was folded in.
        self._stands = 0
        self._back: list[tuple[int, int, list[Node]]] = []

    # ------------------------------------------------------------------ sorting out
    def check(self, faults: Sequence[Fault], *, final: Sight | None, must_end: bool) -> Broken | None:
        """Fold it through all eras. ``final``: what is stored at the end; ``must_end`` False: that is not known."""
        self._keep([Node(_ABSENT, frozenset(), 0)])
        self._trail = [(0, -1, list(self.nodes.values()))]
        bounds = [-1, *(fault.end for fault in faults)]
        blind = sorted((t for t in self.tries if t.save.blind and _journaled(t)), key=_told)
        for number, begin in enumerate(bounds):
            fault = faults[number] if number < len(faults) else None
            until = NEVER + 1 if fault is None else fault.start
            events = self._events(begin, until, glimpsed=fault is None and must_end, final=final)
            floats = [t for t in self.tries if self._may_float(t, faults)]
            # A journal is part of the buffer: what lies in it may go back, too, and be applied to what lacks it.
            mandatory = [t for t in blind if t.save.start > begin and t.save.end < until]
            floats += [t for t in blind if t not in mandatory]
            if number:
                self._keep(Node(n.item, n.used, 0) for n in self.nodes.values())
            last = final.version if final is not None and fault is None else NEVER
            broken = self._era(events, floats, mandatory, last)
            if broken:
                return broken
            if fault is None:
                if final is None and must_end:
                    self._unseen(Event(NEVER), floats, mandatory, -1)
                    self._keep(n for n in self.nodes.values() if n.tried == len(mandatory))
                continue
            self._go_back(fault)
        there = all(node.item is not None and not node.item.deleted for node in self.nodes.values())
        if final is None and must_end and there:
            return Broken("lost", f"{self._name} is not stored", self._last_saves())
        return None

    def _events(self, begin: int, until: int, *, glimpsed: bool, final: Sight | None) -> list[Event]:
        found: dict[int, Event] = {}

        def at(version: int) -> Event:
            return found.setdefault(version, Event(version))

        for t in self.tries:
            if t.save.start <= begin or t.save.end >= until or t.save.blind or t.outcome is None:
                continue
            if t.accepted:
                at(t.outcome.version).accepted.append(t)
            elif t.outcome.version > 0 and t.outcome.outcome not in LIMITS:
                at(t.outcome.version).judged.append(t)
        for glimpse in self.glimpses:
            if glimpse.start > begin and glimpse.end < until:
                at(glimpse.sight.version).glimpses.append(glimpse)
        if glimpsed and final is not None:
            at(final.version).glimpses.append(Glimpse(final, NEVER, NEVER, None))
        if begin >= 0:
            for version, _, nodes in self._back:
                at(version).back.extend(nodes)
        return [found[version] for version in sorted(found)]

    @staticmethod
    def _may_float(t: Try, faults: Sequence[Fault]) -> bool:
        if t.outcome is None:
            return True
        if t.outcome.outcome in LIMITS:
            return t.outcome.outcome == "unavailable"
        if not t.save.blind and any(
            t.save.start <= fault.end and t.save.end >= fault.start for fault in faults
        ):
            return True
        repeatable = isinstance(t.command, (Append, Delete)) or getattr(t.command, "rev", None) is not None
        return not t.accepted and repeatable and t.save.retried

    def _go_back(self, fault: Fault) -> None:
        stored = max(
            (g.sight.version for g in self.glimpses if g.sight.stored and g.end < fault.start), default=0
        )
        first = 0
        for number, (version, latest, _) in enumerate(self._trail):
            if 0 < version <= stored or latest <= fault.to:
                first = number
        self._back = [
            (v, latest, [n._replace(tried=0) for n in nodes]) for v, latest, nodes in self._trail[first:]
        ]
        self._keep(node for _, _, nodes in self._back for node in nodes)

    # ------------------------------------------------------------------ one era
    def _era(
        self, events: Sequence[Event], floats: Sequence[Try], blind: Sequence[Try], final: int
    ) -> Broken | None:
        since, self._stands = -1, 0
        for event in events:
            if (event.accepted or event.glimpses) and event.version > final:
                return self._broken(
                    "lost", event, list(self.nodes.values()), f"version {final} is what is stored"
                )
            before = list(self.nodes.values())
            self._unseen(event, floats, blind, since)
            if len(event.accepted) > 1:
                return self._broken("one version twice", event, before)
            if event.accepted:
                stay = [*event.back]
                self._apply(event.accepted[0], stay)
                if not self.nodes:
                    return self._broken("not a fold", event, before)
            elif event.back:
                self._keep([*self.nodes.values(), *event.back])
            self._in_vain(event, blind)
            had = list(self.nodes.values())
            due = sum(t.save.end < event.begun for t in blind)
            self._keep(n for n in had if n.tried >= due)
            if not self.nodes:
                return self._broken("lost", event, had, "a blind save was never applied")
            wanted = {glimpse.sight.seen for glimpse in event.glimpses}
            if wanted:
                had = list(self.nodes.values())
                self._keep(n for n in had if n.item is not None and self._look(n.item) in wanted)
                if len(wanted) > 1 or not self.nodes:
                    return self._broken("never a state", event, had)
            for t in event.judged:
                had = list(self.nodes.values())
                self._keep(n for n in had if self._answers(n.item, t))
                if not self.nodes:
                    return self._broken("wrong answer", event, had)
            since = max(since, event.earliest)
            self._trail.append((event.version, event.latest, list(self.nodes.values())))
            self._stands = event.version
        return None

    def _unseen(self, event: Event, floats: Sequence[Try], blind: Sequence[Try], since: int) -> None:
        """Add what the contents may have become before ``event`` without anybody being told."""
        open_ = [t for t in floats if t.save.start < event.latest and t.save.end > since]
        todo = list(self.nodes.values())
        while todo:
            node = todo.pop()
            for new in self._next(node, event, open_, blind):
                key = self._key(new)
                if key not in self.nodes:
                    if len(self.nodes) >= MOST:
                        raise Undecided(self._name)
                    self.nodes[key] = new
                    todo.append(new)

    def _next(self, node: Node, event: Event, floats: Sequence[Try], blind: Sequence[Try]) -> Iterable[Node]:
        item = node.item
        if item is None and self.kind == "c":
            yield node._replace(item=Item())
        if item is not None and self.kind != "c" and item.status in OPEN and not item.deleted:
            yield node._replace(item=settled(item))
        for t in floats:
            name = (id(t.save), t.number)
            # Its first run had come before the version that its second was told.
            told = t.outcome.version if t.outcome and not t.accepted and not t.save.blind else 0
            late = 0 < told <= self._stands
            if name in node.used or late:
                continue
            for outcome, after, _ in self._judge(item, t):
                if outcome == "accepted":
                    yield Node(after, node.used | {name}, node.tried)
        if node.tried < len(blind) and blind[node.tried].save.start < event.latest:
            t = blind[node.tried]
            used = node.used | {(id(t.save), t.number)}
            for outcome, after, _ in self._judge(item, t):
                yield Node(after if outcome == "accepted" else item, used, node.tried + 1)

    def _in_vain(self, event: Event, blind: Sequence[Try]) -> None:
        """Blind saves replayed while ``event``'s version stood, that changed nothing and so left it."""
        todo = list(self.nodes.values())
        while todo:
            node = todo.pop()
            if node.tried == len(blind) or blind[node.tried].save.start >= event.begun:
                continue
            t = blind[node.tried]
            if any(outcome != "accepted" for outcome, _, _ in self._judge(node.item, t)):
                new = Node(node.item, node.used | {(id(t.save), t.number)}, node.tried + 1)
                if self._key(new) not in self.nodes:
                    self.nodes[self._key(new)] = new
                    todo.append(new)

    def _apply(self, t: Try, stay: list[Node]) -> None:
        assert t.outcome is not None
        new = list(stay)
        for node in self.nodes.values():
            for outcome, after, told in self._judge(node.item, t):
                if outcome == "accepted" and _told_right(t.outcome, after, told):
                    new.append(node._replace(item=after))
        self._keep(new)

    def _answers(self, item: Item | None, t: Try) -> bool:
        assert t.outcome is not None
        return any(
            outcome == t.outcome.outcome and _told_right(t.outcome, item, told)
            for outcome, _, told in self._judge(item, t)
        )

    # ------------------------------------------------------------------ small things
    def _judge(self, item: Item | None, t: Try) -> list[tuple[str, Item | None, int | None]]:
        key = (None if item is None else self._look(item), id(t.save), t.number)
        if key not in self._judged:
            self._judged[key] = judge(item, t.command)
        return self._judged[key]

    def _look(self, item: Item) -> Seen:
        found = self._seen.get(id(item))
        if found is None:
            found = self._seen[id(item)] = (item, seen_of_item(self.kind, item))
        return found[1]

    def _key(self, node: Node) -> tuple[object, ...]:
        return (None if node.item is None else self._look(node.item), node.used, node.tried)

    def _keep(self, nodes: Iterable[Node]) -> None:
        self.nodes = {self._key(node): node for node in nodes}

    @property
    def _name(self) -> str:
        return f"{self.key[1]}/{self.key[2]} of {self.key[0]}"

    def _last_saves(self) -> tuple[Entry, ...]:
        return tuple(t.save for t in self.tries[-3:])

    def _broken(self, name: str, event: Event, before: Sequence[Node], why: str = "") -> Broken:
        from tests.faults.history import tell_seen

        states = sorted({"nothing" if n.item is None else tell_seen(self._look(n.item)) for n in before})
        saw = sorted({tell_seen(g.sight.seen) for g in event.glimpses})
        lines = [f"{self._name} at version {event.version}{': ' + why if why else ''}"]
        lines += [f"  it can have been: {state}" for state in states[:6]]
        lines += [f"  it was shown as:  {state}" for state in saw[:3]]
        near = [t.save for t in self.tries if t.outcome and t.outcome.version <= event.version][-3:]
        unknown = [t.save for t in self.tries if t.outcome is None][-3:]
        entries = {id(entry): entry for entry in (*near, *unknown, *event.entries())}
        return Broken(name, "\n".join(lines), tuple(entries.values()))


def _journaled(t: Try) -> bool:
    """A blind save that lies in the journal: accepted, or one that may change what only the base has."""
    if t.outcome is None:
        return False
    if t.outcome.outcome not in ("duplicate", "noop") or isinstance(t.command, Delete):
        return t.accepted
    if not isinstance(t.command, Append):
        return True
    return not (t.command.st is None and t.command.rev is None and t.command.reason is None)


def _told(t: Try) -> tuple[int, bool]:
    """Order of the journal: what changed nothing was told the version that another made."""
    return (t.outcome.version if t.outcome is not None else 0, not t.accepted)


def _told_right(outcome: ItemOutcome, item: Item | None, told: int | None) -> bool:
    if outcome.length is not None and told is not None and outcome.length != told:
        return False
    return item is None or outcome.status is None or outcome.kind == "c" or item.status == outcome.status
