"""The merge rules once more, from the words of the design alone: slow, plain, without versions, chunks or indexes.

A save is judged by making the item it would lead to and comparing that with the item there is.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from models.core.commands import Append, Command, Delete, Part, Put, SetPart

OPEN = ("pending", "streaming")
STATE_RANKS = {"input-streaming": 0, "input-available": 1, "approval-requested": 2, "approval-responded": 3}
PRELIMINARY, FINAL = 4, 5


def utf16(text: str) -> bytes:
    return text.encode("utf-16-le")


def length(text: str) -> int:
    return len(utf16(text)) // 2


def splits_a_pair(text: str, offset: int) -> bool:
    unit = utf16(text)[offset * 2 : offset * 2 + 2]
    return len(unit) == 2 and 0xDC00 <= int.from_bytes(unit, "little") <= 0xDFFF


@dataclass
class Item:
    status: str = "complete"
    settled_from: str | None = None
    revision: int | None = None
    deleted: bool = False
    row: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    #: (skeleton, text or None, rank)
    parts: list[tuple[str, str | None, int]] | None = None
    results: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)

    @property
    def was(self) -> str:
        """The status that counts: what a settled item was before."""
        return self.settled_from or self.status

    @property
    def rank(self) -> int | None:
        """How far a tool result has come; a final state of an open one is preliminary."""
        state = self.row.get("state")
        if state is None:
            return None
        return STATE_RANKS.get(state, PRELIMINARY if self.was in OPEN else FINAL)

    def restore(self) -> None:
        """What the sweep did is undone first."""
        if self.settled_from is not None:
            self.status, self.settled_from = self.settled_from, None
            if self.row.get("status_reason") == "stale":
                del self.row["status_reason"]


def unite(links: list[str], more: Sequence[str] | None) -> None:
    links += [one for one in dict.fromkeys(more or ()) if one not in links]


class Conversation:
    """Items by (kind, id); each command answers the outcome's name."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Item] = {}
        self.waiting: dict[str, tuple[list[str], list[str]]] = {}
        self.versions: dict[str, list[str]] = {}
        self.deleted = False

    def apply(self, command: Command) -> str:
        if isinstance(command, Delete):
            return self._delete(command)
        item = self.items.get((command.k, command.id))
        if self.deleted or (item is not None and item.deleted):
            return "gone"
        if isinstance(command, Put):
            outcome, after = self._put(command, item)
        elif item is None:
            return "not-found"
        else:
            outcome, after = (
                self._append(command, item) if isinstance(command, Append) else self._part(command, item)
            )
        if after is not None:
            self.items[command.k, command.id] = after
            if item is not None and item.row.get("message_id") != after.row.get("message_id"):
                self._forget_waiting(command.k, command.id, item.row.get("message_id"))
            self._consequences(command.k, command.id, after, new=item is None, put=isinstance(command, Put))
        return outcome

    def settle(self, kind: str, item_id: str) -> None:
        item = self.items[kind, item_id]
        if item.status in OPEN and not item.deleted:
            item.settled_from, item.status = item.status, "interrupted"
            item.row.setdefault("status_reason", "stale")

    # ------------------------------------------------------------------ whole saves
    def _put(self, command: Put, item: Item | None) -> tuple[str, Item | None]:
        newer = command.rev is not None and (
            item is None or item.revision is None or command.rev > item.revision
        )
        if item is not None and command.rev is not None and not newer and command.rev != item.revision:
            return "stale-revision", None
        rank = FINAL if command.rank == PRELIMINARY and command.st not in (None, *OPEN) else command.rank
        if item is not None and command.rev is None and self._is_older(command, rank, item):
            return "noop", None
        after = self._with(command, rank, item, newer)
        if item is not None and command.rev is not None and not newer:
            unsettled = copy.deepcopy(item)
            unsettled.restore()
            # Comparing is about what was sent; that the sweep settled it in between is no difference.
            if after != unsettled:
                return "revision-conflict", None
            return ("accepted", after) if item.settled_from else ("duplicate", None)
        if item is not None and after == item:
            return "duplicate", None
        return "accepted", after

    @staticmethod
    def _is_older(command: Put, rank: int | None, item: Item) -> bool:
        if rank is not None and item.rank is not None and rank < item.rank:
            return True
        if command.st not in OPEN:
            return False
        if item.was not in OPEN:
            return True
        if "content" in command.body:
            sent = command.body["content"]
            if length(sent[0] if isinstance(sent, tuple) else "") < length(item.texts.get("content", "")):
                return True
        if command.parts is not None:
            sent_parts = command.parts if isinstance(command.parts, list) else []
            stored = item.parts or []
            if len(sent_parts) < len(stored):
                return True
            return any(_older_part(new, old, True) for new, old in zip(sent_parts, stored, strict=False))
        return False

    @staticmethod
    def _with(command: Put, rank: int | None, item: Item | None, newer: bool) -> Item:
        """The item as the save would leave it."""
        after = copy.deepcopy(item) if item is not None else Item()
        if item is None and command.k == "m":
            after.row["role"] = "assistant"
        if item is None and command.k == "t":
            after.row["tool_call_id"] = command.id
        status = command.st
        if item is None:
            status = status or ("streaming" if rank is not None and rank < FINAL else "complete")
        else:
            was = item.was
            if status == "pending" and was == "streaming" and not newer:
                status = "streaming"
            if status is None and rank == FINAL and was in OPEN:
                status = "complete"
            if status is None and rank is not None and rank < FINAL and newer:
                status = "streaming"
            after.restore()
            status = status or was
        after.status = status
        for name, value in command.row.items():
            if value is False:
                if item is not None:
                    after.row.pop(name, None)
            else:
                after.row[name] = value
        for name, text in command.body.items():
            if isinstance(text, tuple):
                after.texts[name] = text[0]
            else:
                after.texts.pop(name, None)
        if command.parts is False:
            after.parts = None
        elif isinstance(command.parts, list):
            after.parts = [_plain(part) for part in command.parts]
        unite(after.results, command.results)
        unite(after.artifacts, command.artifacts)
        if newer:
            after.revision = command.rev
        return after

    # ------------------------------------------------------------------ steps
    def _append(self, command: Append, item: Item) -> tuple[str, Item | None]:
        if command.part is None:
            stored = item.texts.get("content", "")
        else:
            if command.part >= len(item.parts or []):
                return "part-gap", None
            text = (item.parts or [])[command.part][1]
            if text is None:
                return "not-text", None
            stored = text
        if _stale(command, item):
            return "stale-revision", None
        newer = command.rev is not None and command.rev != item.revision
        closed = item.was not in OPEN and not (newer and command.st in OPEN)
        if command.offset > length(stored):
            return "terminal" if closed else "append-gap", None
        if splits_a_pair(stored, command.offset):
            return "surrogate-split", None
        there, sent = utf16(stored)[command.offset * 2 :], utf16(command.text)
        shared = min(len(there), len(sent))
        if there[:shared] != sent[:shared] or splits_a_pair(command.text, shared // 2):
            return "append-mismatch", None
        added = sent[shared:].decode("utf-16-le")
        if added and closed:
            return "terminal", None
        after = copy.deepcopy(item)
        if added:
            if command.part is None:
                after.texts["content"] = stored + added
            else:
                assert after.parts is not None
                skeleton, _, rank = after.parts[command.part]
                after.parts[command.part] = (skeleton, stored + added, rank)
        return self._step(command, item, after, changed=bool(added))

    def _part(self, command: SetPart, item: Item) -> tuple[str, Item | None]:
        if _stale(command, item):
            return "stale-revision", None
        stored = item.parts or []
        if command.index > len(stored):
            return "part-gap", None
        newer = command.rev is not None and command.rev != item.revision
        if not newer and command.st in OPEN and item.was not in OPEN:
            return "noop", None
        new = _plain(command.part)
        same = command.index < len(stored) and stored[command.index] == new
        judged = command.index < len(stored) and not same and not newer
        if judged and _older_part(
            command.part, stored[command.index], command.st in OPEN or command.rev is not None
        ):
            return "noop", None
        after = copy.deepcopy(item)
        if not same:
            after.parts = [*stored[: command.index], new, *stored[command.index + 1 :]]
        return self._step(command, item, after, changed=not same)

    @staticmethod
    def _step(
        command: Append | SetPart, item: Item, after: Item, *, changed: bool
    ) -> tuple[str, Item | None]:
        newer = command.rev is not None and command.rev != item.revision
        status = command.st or item.was
        if not newer:
            if status in OPEN and item.was not in OPEN:
                status = item.was
            if status == "pending" and item.was == "streaming":
                status = "streaming"
        if changed and status == "pending" and item.was == "pending":
            status = "streaming"
        after.restore()
        after.status = status
        if newer:
            after.revision = command.rev
        if command.reason is not None:
            after.row["status_reason"] = command.reason
        return ("duplicate", None) if after == item else ("accepted", after)

    # ------------------------------------------------------------------ deletion, links, versions
    def _delete(self, command: Delete) -> str:
        if command.k == "c":
            if self.deleted:
                return "duplicate"
            self.deleted = True
            self.items.clear()
            return "accepted"
        if self.deleted:
            return "gone"
        item = self.items.setdefault(
            (command.k, command.id), Item(row={"role": "assistant"} if command.k == "m" else {})
        )
        if item.deleted:
            return "duplicate"
        item.deleted, item.texts, item.parts = True, {}, None
        item.row = {name: item.row[name] for name in ("role", "parent_id", "message_id") if name in item.row}
        self.waiting.pop(command.id, None) if command.k == "m" else None
        return "accepted"

    def _forget_waiting(self, kind: str, item_id: str, message_id: str | None) -> None:
        links = self.waiting.get(message_id or "", ([], []))[kind == "a"]
        if item_id in links:
            links.remove(item_id)

    def _consequences(self, kind: str, item_id: str, item: Item, *, new: bool, put: bool) -> None:
        if kind == "m" and new:
            results, artifacts = self.waiting.pop(item_id, ([], []))
            # Those that waited come first.
            item.results, sent = list(results), item.results
            unite(item.results, sent)
            item.artifacts, sent = list(artifacts), item.artifacts
            unite(item.artifacts, sent)
        message_id = item.row.get("message_id")
        if kind in "ta" and put and message_id:
            message = self.items.get(("m", message_id))
            if message is None:
                links = self.waiting.setdefault(message_id, ([], []))
                unite(links[kind == "a"], [item_id])
            elif not message.deleted:
                unite(message.results if kind == "t" else message.artifacts, [item_id])
        if kind == "a" and item.status == "complete" and "content" in item.texts:
            made = self.versions.setdefault(item_id, [])
            if not made or made[-1] != item.texts["content"]:
                made.append(item.texts["content"])


def _stale(command: Append | SetPart, item: Item) -> bool:
    return command.rev is not None and item.revision is not None and command.rev < item.revision


def _plain(part: Part) -> tuple[str, str | None, int]:
    return part.skeleton, part.text, part.rank


def _older_part(new: Part, old: tuple[str, str | None, int], says_open: bool) -> bool:
    if new.rank < old[2]:
        return True
    unfinished = says_open or new.rank < FINAL
    return new.text is not None and old[1] is not None and unfinished and length(new.text) < length(old[1])
