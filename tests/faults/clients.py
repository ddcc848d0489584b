"""Clients of a simulated world: requests as actors, logged with what came of them.

An order says what a request is about in terms that make sense whatever the state is ("append behind what you believe to
be there"); it becomes a command when the request starts, from what its client was told so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from models.core import commands as c
from models.core.commands import Append, Command, Delete, ItemOutcome, SetPart, utf16_units
from models.errors import BlotterError, Gone, NotFound
from models.pipeline.views import SaveResult
from tests.faults.history import Listing, Read, Save
from tests.faults.rest import sights
from tests.faults.world import Actor, World

OWNER: Final = "ann"
STATES: Final = (
    "input-streaming", "input-available", "approval-requested", "output-available", "output-error",
)  # fmt: skip


class Clients:
    """Requests as clients make them; they remember what they were told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.count = 0
        #: (conversation, kind, id, part) → the text its writer believes to be there.
        self.believed: dict[tuple[str, str, str, int | None], str] = {}
        self.sent: list[Save] = []

    def start_save(self, conversation: str, sent: Sequence[Command], *, order: Sequence[str] = ()) -> Actor:
        """A request as an actor."""
        self.count += 1
        save = Save(
            client=f"client {self.count}", start=self.world.tick + 1, owner=OWNER, conversation=conversation,
            commands=tuple(sent), order=tuple(order), retried=False,
        )  # fmt: skip
        self.world.history.add(save)
        self.sent.append(save)
        return self.world.start(save.client, lambda: self._save(save))

    def save(self, conversation: str, *sent: Command) -> Save:
        """A request from beginning to end."""
        self.start_save(conversation, sent).finish()
        return self.sent[-1]

    def _save(self, save: Save) -> None:
        world = self.world
        pipeline = world.pipeline
        try:
            if save.order:
                result = pipeline.sync(OWNER, save.conversation, save.commands, order=save.order)
            else:
                result = pipeline.save(OWNER, save.conversation, save.commands)
        except Gone:
            outcomes = [ItemOutcome(kind=cmd.k, id=cmd.id, outcome="gone") for cmd in save.commands]
            save.outcomes = tuple(outcomes)
            save.end, save.error = world.tick, "Gone"
        except BlotterError as error:
            # What it did is unknown; if anything, it did it by now.
            save.end, save.error = world.tick, f"{type(error).__name__}: {error}"
            save.outcomes = (None,) * len(save.commands)
        else:
            self._told(save, result)
        finally:
            me = world.me
            save.retried = me is not None and me.retried

    def _told(self, save: Save, result: SaveResult) -> None:
        save.end, save.version, save.blind = self.world.tick, result.version, result.base == "unknown"
        save.outcomes = tuple(None if o.outcome == "unavailable" else o for o in result.items)
        for command, outcome in zip(save.commands, save.outcomes, strict=True):
            if outcome is not None and outcome.outcome == "accepted":
                self._believe(save.conversation, command)

    def _believe(self, conversation: str, command: Command) -> None:
        if isinstance(command, Append):
            key = (conversation, command.k, command.id, command.part)
            before = self.believed.get(key, "").encode("utf-16-le")[: command.offset * 2]
            self.believed[key] = before.decode("utf-16-le", "ignore") + command.text
        elif isinstance(command, c.Put):
            content = command.body.get("content")
            if content is not None:
                self.believed[conversation, command.k, command.id, None] = (
                    content[0] if isinstance(content, tuple) else ""
                )
            for number, part in enumerate(command.parts if isinstance(command.parts, list) else ()):
                self.believed[conversation, command.k, command.id, number] = part.text or ""
        elif isinstance(command, SetPart):
            self.believed[conversation, command.k, command.id, command.index] = command.part.text or ""

    def command(self, conversation: str, order: dict[str, Any]) -> Command:
        """What an order comes to now."""
        what, kind, item_id, text = order["what"], order["k"], order["id"], order["text"]
        if what == "delete":
            return Delete(kind, item_id)
        if what.startswith("append") and kind in "ma":
            part = order["index"] if what == "append part" and kind == "m" else None
            believed = self.believed.get((conversation, kind, item_id, part), "")
            length = utf16_units(believed)
            if order["at"] in (1, 2) and believed:
                # Sent again with more (or with something else) behind it.
                offset = length - 1 - order["more"] % min(length, 4)
                said = believed.encode("utf-16-le")[offset * 2 :].decode("utf-16-le", "replace") + text
                text = said if order["at"] == 1 else text
                length = offset
            elif order["at"] == 3:
                length += 1 + order["more"] % 3
            text = text.replace("\ufffd", "?")
            return Append(kind, item_id, length, text, utf16_units(text), part, order["rev"], order["st"])
        if what == "part" and kind == "m":
            return SetPart(
                kind, item_id, order["index"], c.split_part(_part(order)), order["rev"], order["st"]
            )
        return c.put(kind, item_id, _fields(order), revision=order["rev"], status=order["st"])

    def read(self, conversation: str) -> Actor:
        """A read as an actor."""
        self.count += 1
        name, start = f"reader {self.count}", self.world.tick + 1
        return self.world.start(name, lambda: self._read(name, start, conversation))

    def _read(self, name: str, start: int, conversation: str) -> None:
        read = Read(
            client=name, start=start, end=start, owner=OWNER, conversation=conversation, result="failed"
        )
        try:
            view = self.world.pipeline.read(OWNER, conversation, limit=1_000_000, branches=True)
        except NotFound:
            read.result = "nothing"
        except Gone:
            read.result = "gone"
        except BlotterError:
            return
        else:
            read.result, read.version, read.partial, read.items = (
                "ok",
                view.version,
                view.partial,
                sights(view),
            )
        read.end = self.world.tick
        self.world.history.add(read)

    def list(self) -> Actor:
        """An owner's list as an actor."""
        self.count += 1
        name, start = f"lister {self.count}", self.world.tick + 1

        def ask() -> None:
            try:
                page = self.world.pipeline.conversations(OWNER, archived=False, after=None, limit=100)
            except BlotterError:
                return
            if not page.degraded:
                ids = tuple(item.record.id for item in page.conversations)
                listing = Listing(
                    client=name, start=start, end=self.world.tick, owner=OWNER, conversations=ids
                )
                self.world.history.add(listing)

        return self.world.start(name, ask)


def _fields(order: dict[str, Any]) -> dict[str, Any]:
    kind, text, more = order["k"], order["text"], order["more"]
    if kind == "c":
        return {"title": text or None} if more % 2 else {"metadata": {"n": more % 5}}
    if kind == "t":
        fields: dict[str, Any] = {
            "state": STATES[more % 5],
            "message_id": f"m{more % 3}",
            "output": {"text": text},
        }
        return {**fields, "preliminary": True} if more % 7 == 0 else fields
    if kind == "a":
        return {"content": text, "message_id": f"m{more % 4}", "title": f"t{more % 3}"}
    if order["what"] == "part" or more % 4 == 0:
        return {
            "role": "assistant",
            "parts": [_part({**order, "more": more + n}) for n in range(order["index"])],
        }
    return {"content": text, "role": "user"} if more % 3 else {"content": text}


def _part(order: dict[str, Any]) -> dict[str, Any]:
    more = order["more"]
    if more % 3 == 0:
        return {"type": "tool-look", "toolCallId": f"t{more % 2}", "state": STATES[more % 5]}
    part = {"type": "text", "text": order["text"]}
    return {**part, "state": "streaming" if more % 2 else "done"} if more % 5 else part
