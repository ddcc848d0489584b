"""What the checker holds of all conversations at once: lists, leases, and that all sides show the same at rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from models.core.commands import ACKNOWLEDGED, Delete, Put
from tests.faults.history import NEVER, Anomaly, Fault, Flush, History, Listing, Place, Save, Sight, tell_seen


def lists(history: History, faults: Sequence[Fault]) -> Iterator[Anomaly]:
    saves: list[Save] = history.of(Save)
    for listing in history.of(Listing):
        for save in saves:
            if (
                save.owner != listing.owner
                or save.end >= listing.start
                or save.conversation in listing.conversations
            ):
                continue
            if any(fault.end >= save.start and fault.start <= listing.end for fault in faults):
                continue
            chat = [s for s in saves if (s.owner, s.conversation) == (save.owner, save.conversation)]
            if not makes(save, chat):
                continue
            if any(_hides(command) for s in chat if s.start < listing.end for command in s.commands):
                continue
            yield Anomaly("unlisted", f"{save.conversation} is not in the list", (save, listing))
            return


def _hides(command: object) -> bool:
    if isinstance(command, Delete):
        return command.k == "c"
    return isinstance(command, Put) and command.k == "c" and bool(command.row.get("archived"))


def leases(history: History) -> Iterator[Anomaly]:
    by_partition: dict[int, list[Flush]] = defaultdict(list)
    for flush in history.of(Flush):
        by_partition[flush.partition].append(flush)
    for flushes in by_partition.values():
        holder: Flush | None = None
        for flush in sorted(flushes, key=lambda flush: flush.start):
            if holder is not None and flush.start < min(holder.end, holder.expired):
                yield Anomaly("shared lease", f"partition {flush.partition}", (holder, flush))
                break
            if holder is None or min(flush.end, flush.expired) > min(holder.end, holder.expired):
                holder = flush


def late_commit(flushes: Sequence[Flush], faults: Sequence[Fault]) -> bool:
    """A flusher that held rows when the buffer was lost died, or failed, before it could bring the new buffer up to date.

    What it may have committed is newer than a base that was adopted in between, until that is evicted.
    """
    broken = [flush for flush in flushes if flush.failed or flush.end == NEVER]
    return any(flush.start <= fault.end and flush.end >= fault.start for flush in broken for fault in faults)


def agreement(place: Place, *, behind: bool = False) -> Iterator[Anomaly]:
    """``behind``: the buffer may lack what is newer in Postgres (see `late_commit`)."""
    where = place.conversation
    for fault in place.books:
        yield Anomaly("not at rest", f"{where}: {fault}")
    own = place.stored.get(("c", ""))
    deleted = own is not None and own.seen.deleted
    sides = [
        ("the buffer", place.buffered, place.stored),
        ("the API", place.shown, _living(place, deleted)),
    ]
    for side, has, expected in sides:
        if has is None:
            if side == "the API" and own is not None and not deleted:
                yield Anomaly("disagreement", f"{where}: {side} shows nothing")
            continue
        wanted = {("c", ""): place.stored["c", ""]} if side == "the buffer" and deleted else expected
        for key in sorted(wanted.keys() | has.keys()):
            ours, theirs = has.get(key), wanted.get(key)
            same = ours and theirs and (ours.version, ours.position, ours.seen, ours.links) == (
                theirs.version, theirs.position, theirs.seen, theirs.links,
            )  # fmt: skip
            newer = theirs is not None and (ours is None or ours.version < theirs.version)
            if not same and not (behind and newer and place.buffered is not None):
                told = [f"{s.version} {tell_seen(s.seen)}" if s else "nothing" for s in (ours, theirs)]
                yield Anomaly(
                    "disagreement", f"{where} {key[0]}/{key[1]}: {side} {told[0]} | Postgres {told[1]}"
                )
                break


def unlinked(place: Place) -> Iterator[Anomaly]:
    """What names a living message is linked there."""
    shown = place.shown or {}
    for (kind, item_id), sight in shown.items():
        if kind in "ta":
            message = shown.get(("m", str(dict(sight.seen.row).get("message_id"))))
            if message is not None and item_id not in message.links:
                yield Anomaly(
                    "lost", f"{kind}/{item_id} is not linked in m/{message.id} of {place.conversation}"
                )


def _living(place: Place, deleted: bool) -> dict[tuple[str, str], Sight]:
    return {} if deleted else {key: s for key, s in place.stored.items() if not s.seen.deleted}


def makes(save: Save, saves: Iterable[Save]) -> bool:
    """After this save its conversation (all ``saves`` of it) is there: something other than a tombstone was acknowledged,
    and what was accepted blind cannot have met a tombstone when its base came.
    """
    tombs = {(x.k, x.id) for other in saves for x in other.commands if isinstance(x, Delete)}
    return any(
        outcome is not None
        and outcome.outcome in ACKNOWLEDGED
        and not isinstance(command, Delete)
        and not (save.blind and (command.k, command.id) in tombs)
        for command, outcome in zip(save.commands, save.outcomes, strict=False)
    )
