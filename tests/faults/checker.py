"""The checker: does a history keep Blotter's promise? Given a log (history.py) it answers with anomalies, best named.

What it holds, and what it calls a breach:

    lost                 an acknowledged save is neither in what is stored nor superseded by the merge rules
    not a fold           no order of the saves, unknown ones in or out, leads to what was told
    never a state        a reader (or the store) shows a content the item never had
    wrong answer         a refusal or duplicate that the rules do not give for the version it was judged against
    one version twice    two accepted saves got the same version
    version backwards    a save accepted after another one ended got a lower version
    read backwards       a read shows less than was acknowledged, or read, before it began: conversation or item
    mixed read           a view of version V lacks a change below V, or shows one above
    revived              a deleted item, or conversation, is shown or accepts a save
    order                messages not in order of position, a position that changed, or one against the order of saving
    unlisted             a conversation acknowledged before a list began is not in it
    shared lease         two flushers held a partition at once though nothing expired
    not at rest          after healing and draining something is dirty, due, dead, journaled, or the books are wrong
    disagreement         buffer, Postgres and API do not show the same

A fault declared in the log (`Fault`) relaxes what the design relaxes: saves accepted after the moment the buffer went
back to may be missing, item by item, unless they were known to be stored; until the new epoch is noticed readers may see
the old state. Nothing else. A blind save may be superseded when its base is known, and a partial view shows only what
was saved blind.

Reading the result: each anomaly tells the item, the contents it can have had, and the operations next to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from models.core.commands import ACKNOWLEDGED, Delete, Put
from tests.faults.agreement import agreement, late_commit, leases, lists, makes, unlinked
from tests.faults.chain import Chain, Glimpse, Try, Undecided
from tests.faults.history import (
    NEVER,
    Anomaly,
    Entry,
    Fault,
    Flush,
    History,
    Place,
    Read,
    Rest,
    Save,
)


class Verdict(NamedTuple):
    """``undecided``: items of which too much is unknown to say."""

    anomalies: tuple[Anomaly, ...]
    undecided: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        return {anomaly.name for anomaly in self.anomalies}

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.anomalies)) or "nothing found"


def check(history: History, rest: Rest | None = None) -> Verdict:
    """Hold ``history`` against the promise; ``rest``: everything at the end, if it came to that."""
    faults = sorted(history.of(Fault), key=lambda fault: fault.start)
    chats: dict[tuple[str, str], _Chat] = {}
    for entry in history.entries:
        if isinstance(entry, (Save, Read)):
            chats.setdefault((entry.owner, entry.conversation), _Chat(faults)).add(entry)
    found = [*lists(history, faults), *leases(history)]
    undecided: list[str] = []
    places = {(place.owner, place.conversation): place for place in rest.places} if rest else {}
    for name in {**chats, **places}:
        chat = chats.get(name, _Chat(faults))
        found += chat.check(places.get(name), undecided, ended=rest is not None)
    if rest is not None:
        found += [Anomaly("not at rest", left) for left in rest.left]
        behind = late_commit(history.of(Flush), faults)
        for place in rest.places:
            found += agreement(place, behind=behind)
            if not faults:
                # Rows go back one by one: a message may have lost a link that its result still names.
                found += unlinked(place)
    return Verdict(tuple(found), tuple(undecided))


class _Chat:
    """All that is known of one conversation."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = faults
        self.saves: list[Save] = []
        self.reads: list[Read] = []

    def add(self, entry: Save | Read) -> None:
        (self.saves if isinstance(entry, Save) else self.reads).append(entry)  # type: ignore[arg-type]

    def check(self, place: Place | None, undecided: list[str], *, ended: bool) -> Iterator[Anomaly]:
        tries = [
            Try(save, number, command, save.outcomes[number] if save.outcomes else None)
            for save in self.saves
            for number, command in enumerate(save.commands)
        ]
        yield from self._versions(tries)
        yield from self._freshness(tries)
        yield from self._deletion(tries, place)
        yield from self._order(place)
        yield from self._folds(tries, place, undecided, ended)

    # ------------------------------------------------------------------ versions
    def _versions(self, tries: Sequence[Try]) -> Iterator[Anomaly]:
        sure = [t for t in tries if t.accepted and not t.save.blind and not self._spans_a_fault(t.save)]
        by_version: dict[tuple[int, int], Try] = {}
        for t in sure:
            assert t.outcome is not None
            other = by_version.setdefault((self._era(t.save.start), t.outcome.version), t)
            if other is not t:
                yield Anomaly("one version twice", f"{t.outcome.version}", (other.save, t.save))
        highest: Try | None = None
        ended = sorted(sure, key=lambda t: t.save.end)
        at = 0
        for t in sorted(sure, key=lambda t: t.save.start):
            while at < len(ended) and ended[at].save.end < t.save.start:
                if highest is None or _version(ended[at]) > _version(highest):
                    highest = ended[at]
                at += 1
            if highest is not None and self._era(highest.save.start) != self._era(t.save.start):
                highest = None
            elif highest is not None and _version(t) < _version(highest):
                yield Anomaly(
                    "version backwards", f"{_version(t)} after {_version(highest)}", (highest.save, t.save)
                )
                return

    # ------------------------------------------------------------------ reads
    def _freshness(self, tries: Sequence[Try]) -> Iterator[Anomaly]:
        """Per conversation and per item: no read below what was told, or shown, before it began."""
        deleting = [t for t in tries if isinstance(t.command, Delete)]
        for read in self.reads:
            if read.result == "failed" or read.partial or self._unnoticed(read):
                continue
            known = [s for s in self.saves if s.end < read.start and self._same_era(s, read)]
            if read.result == "gone":
                if not any(t.command.k == "c" and t.save.start < read.end for t in deleting):
                    yield Anomaly("read backwards", "gone though nobody deleted it", (read,))
                continue
            told = [
                s for s in known if s.version and any(o and o.outcome in ACKNOWLEDGED for o in s.outcomes)
            ]
            if read.result == "nothing":
                made = [s for s in told if makes(s, self.saves)]
                if made:
                    yield Anomaly(
                        "read backwards", "nothing there though it was acknowledged", (made[-1], read)
                    )
                continue
            seen = [r for r in self.reads if r.result == "ok" and r.end < read.start and not r.partial]
            seen = [r for r in seen if self._same_era(r, read)]
            before: list[Save | Read] = [*told, *seen]
            for earlier in before:
                if earlier.version > read.version:
                    text = f"version {read.version} after {earlier.version} was told"
                    yield Anomaly("read backwards", text, (earlier, read))
                    break
            yield from self._items_fresh(read, known, seen, deleting)

    def _items_fresh(
        self, read: Read, known: Sequence[Save], seen: Sequence[Read], deleting: Sequence[Try]
    ) -> Iterator[Anomaly]:
        shown = {(s.kind, s.id): s for s in read.items}
        floor: dict[tuple[str, str], tuple[int, Entry]] = {}
        for save in known:
            for command, outcome in zip(save.commands, save.outcomes, strict=False):
                if outcome is not None and outcome.outcome in ACKNOWLEDGED and outcome.version:
                    key: tuple[str, str] = (command.k, command.id)
                    floor[key] = max(
                        floor.get(key, (0, save)), (outcome.version, save), key=lambda pair: pair[0]
                    )
        for earlier in seen:
            for sight in earlier.items:
                key = (sight.kind, sight.id)
                floor[key] = max(
                    floor.get(key, (0, read)), (sight.version, earlier), key=lambda pair: pair[0]
                )
        gone = {(t.command.k, t.command.id) for t in deleting if t.save.start < read.end}
        for key, (version, entry) in floor.items():
            now = shown.get(key)
            if now is None:
                if read.whole and key not in gone and ("c", "") not in gone:
                    yield Anomaly("read backwards", f"{key[0]}/{key[1]} is missing", (entry, read))
            elif now.version < version:
                text = f"{key[0]}/{key[1]} at {now.version} after {version} was told"
                yield Anomaly("read backwards", text, (entry, read))
        # One snapshot: nothing above its version, and of each item the last change below it.
        told: dict[tuple[str, str], list[tuple[int, Save]]] = defaultdict(list)
        for save in self.saves:
            if not save.blind and self._same_era(save, read):
                for command, outcome in zip(save.commands, save.outcomes, strict=False):
                    if outcome is not None and outcome.outcome == "accepted":
                        told[command.k, command.id].append((outcome.version, save))
        for key, sight in shown.items():
            if sight.version > read.version:
                text = f"{key[0]}/{key[1]} at {sight.version} in a view of {read.version}"
                yield Anomaly("mixed read", text, (read,))
            for version, save in told.get(key, ()):
                if sight.version < version <= read.version:
                    text = f"{key[0]}/{key[1]} at {sight.version} in a view of {read.version}, though it changed at {version}"
                    yield Anomaly("mixed read", text, (save, read))

    # ------------------------------------------------------------------ deletion
    def _deletion(self, tries: Sequence[Try], place: Place | None) -> Iterator[Anomaly]:
        for t in tries:
            if not isinstance(t.command, Delete) or not t.accepted or t.save.blind:
                continue
            key: tuple[str, str] = (t.command.k, t.command.id)
            for other in tries:
                if other.accepted and not other.save.blind and t.save.end < other.save.start:
                    hit = key in {("c", ""), (other.command.k, other.command.id)}
                    if hit and self._same_era(t.save, other.save):
                        yield Anomaly("revived", f"{key[0]}/{key[1]} accepts a save", (t.save, other.save))
            for read in self.reads:
                if read.result == "ok" and t.save.end < read.start and self._same_era(t.save, read):
                    shown = key == ("c", "") or any((s.kind, s.id) == key for s in read.items)
                    if shown and not self._unnoticed(read) and not read.partial:
                        yield Anomaly("revived", f"{key[0]}/{key[1]} is shown", (t.save, read))
            shown_at_rest = place is not None and place.shown is not None
            if shown_at_rest and all(fault.end < t.save.start for fault in self.faults):
                assert place is not None
                assert place.shown is not None
                if key == ("c", "") or key in place.shown:
                    yield Anomaly("revived", f"{key[0]}/{key[1]} is shown at rest", (t.save,))

    # ------------------------------------------------------------------ order
    def _order(self, place: Place | None) -> Iterator[Anomaly]:
        positions: dict[tuple[int, str, str], tuple[str, Read | None]] = {}
        for read in self.reads:
            if read.result != "ok" or read.partial:
                continue
            for kind in "mta":
                listed = [(s.position, s.id) for s in read.items if s.kind == kind]
                if listed != sorted(listed):
                    yield Anomaly("order", f"{kind}: not in order of position", (read,))
            if self._unnoticed(read) or self._spans_a_fault(read):
                continue
            for s in read.items:
                if s.kind != "c":
                    name = (self._era(read.start), s.kind, s.id)
                    position, earlier = positions.setdefault(name, (s.position, read))
                    if position != s.position:
                        entries = (earlier, read) if earlier is not None else (read,)
                        yield Anomaly("order", f"{s.kind}/{s.id} moved", entries)
        if place is None or place.shown is None or self.faults:
            return
        # Plain saves of new messages, one ended before the other began: in that order for ever. In a sync, a new message
        # stands before the next known one.
        made: list[tuple[Save, str]] = []
        for save in self.saves:
            for number, command in enumerate(save.commands):
                plain = isinstance(command, Put) and command.k == "m" and not save.order and not save.blind
                if plain and _created(save, number) and ("m", command.id) in place.shown:
                    made.append((save, command.id))
        shown = {item_id: place.shown["m", item_id].position for _, item_id in made}
        latest: tuple[Save, str] | None = None
        for save, item_id in sorted(made, key=lambda pair: pair[0].start):
            after = latest is not None and latest[0].end < save.start
            if latest is not None and after and shown[latest[1]] >= shown[item_id]:
                yield Anomaly("order", f"m/{item_id} stands before m/{latest[1]}", (latest[0], save))
            if latest is None or save.end < latest[0].end or latest[0].end < save.start:
                latest = (save, item_id)

    # ------------------------------------------------------------------ folds
    def _folds(
        self, tries: Sequence[Try], place: Place | None, undecided: list[str], ended: bool
    ) -> Iterator[Anomaly]:
        chains: dict[tuple[str, str], Chain] = {}
        key: tuple[str, str]
        name = self.saves[0].conversation if self.saves else place.conversation if place else ""
        for t in tries:
            key = (t.command.k, t.command.id)
            chains.setdefault(key, Chain((name, *key))).tries.append(t)
        for read in self.reads:
            if read.result == "ok" and not read.partial:
                for sight in read.items:
                    key = (sight.kind, sight.id)
                    glimpse = Glimpse(sight, read.start, read.end, read)
                    chains.setdefault(key, Chain((name, *key))).glimpses.append(glimpse)
        stored = place.stored if place is not None else {}
        own = stored.get(("c", ""))
        dropped = own is not None and own.seen.deleted
        for key in stored:
            chains.setdefault(key, Chain((name, *key)))
        erased = any(t.command.k == "c" and isinstance(t.command, Delete) for t in tries)
        for key, chain in chains.items():
            final = stored.get(key)
            must_end = ended and not (key != ("c", "") and (dropped or (erased and bool(self.faults))))
            if key == ("c", "") and final is None and not any(t.accepted for t in chain.tries):
                must_end = False
            try:
                broken = chain.check(self.faults, final=final if must_end else None, must_end=must_end)
            except Undecided as error:
                undecided.append(str(error))
                continue
            if broken is not None:
                yield Anomaly(*broken)

    # ------------------------------------------------------------------ eras
    def _era(self, moment: int) -> int:
        return sum(fault.end <= moment for fault in self.faults)

    def _same_era(self, one: Entry, other: Entry) -> bool:
        """No fault lies between the two, or within either."""
        since = min(one.start, other.start)
        until = max(end if end < NEVER else 0 for end in (one.end, other.end))
        return not any(
            fault.end >= since and fault.start <= max(until, one.start, other.start) for fault in self.faults
        )

    def _spans_a_fault(self, entry: Entry) -> bool:
        return any(entry.start <= fault.end and entry.end >= fault.start for fault in self.faults)

    def _unnoticed(self, read: Read) -> bool:
        """It began before the loss was noticed: until then an older state may be seen."""
        return any(read.start <= fault.noticed and read.end >= fault.start for fault in self.faults)


# ---------------------------------------------------------------- of one command
def _version(t: Try) -> int:
    return t.outcome.version if t.outcome is not None else 0


def _created(save: Save, number: int) -> bool:
    outcome = save.outcomes[number] if save.outcomes else None
    return outcome is not None and outcome.outcome == "accepted" and outcome.created
