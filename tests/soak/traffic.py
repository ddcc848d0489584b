"""The clients: many short conversations, each save logged with what came of it.

Two kinds, told apart by their owner's name:

    chat…   speak the whole API: messages, growing replies, tool results, artifacts, titles, deletions, syncs, reads, lists,
            two writers at one message. Logged as the checker of tests/faults wants it, an owner at a time.
    snap…   one writer and one message that is saved whole as it grows, each save with its number in its text. Any server can
            do that, rivals too. The ledger holds the last number acknowledged against the one that is stored.

What was not acknowledged is sent again, unchanged, a few times; then the conversation is left as it is, as by a user who
closes the tab. Answers are counted under the fault of the moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import orjson

from models.core import commands as c
from models.core.commands import (
    BODY_FIELDS,
    ROW_FIELDS,
    Append,
    Command,
    Delete,
    ItemKind,
    ItemOutcome,
    Outcome,
    utf16_units,
)
from tests.acceptance.webserver import token
from tests.faults.history import Listing, Read, Save, Seen, Sight
from tests.soak.wire import Answer, Http, Unanswered, Unsent

TRIES: Final = 4
TIMEOUT_S: Final = 4.0
WORDS: Final = (
    "the", "save", "that", "was", "told", "is", "kept,", "日本語,", "naïve", "🌊,", "and", "\\", '"quotes"', "\n",
)  # fmt: skip
#: 503s that say that nothing was written.
SURE: Final = ("/problems/buffer-full", "/problems/buffer-unfit", "/problems/keys-unavailable")
Fate: TypeAlias = Literal["acknowledged", "refused", "unknown"]


def now() -> int:
    """The log's clock, ns."""
    return time.monotonic_ns()


class Snapshot:
    """One message of a snap… owner: what was told of its saves 1 … n."""

    def __init__(self) -> None:
        #: number → (fate, begun, ended)
        self.saves: dict[int, tuple[Fate, int, int]] = {}


@dataclass
class Log:
    """What all clients did. ``counts``: fate by the fault of the moment (``now_on``)."""

    entries: dict[str, list[Any]] = field(default_factory=dict)
    snapshots: dict[tuple[str, str, str], Snapshot] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    now_on: str = "(none)"
    #: (owner, conversation, message, when): deletions that were acknowledged.
    deleted: list[tuple[str, str, str, int]] = field(default_factory=list)
    #: What no client should be told: 500s and answers that are none of the API's.
    surprises: list[str] = field(default_factory=list)
    slowest_ms: float = 0.0

    def count(self, fate: str) -> None:
        self.counts.setdefault(self.now_on, Counter())[fate] += 1

    @property
    def acknowledged(self) -> int:
        return sum(counts["acknowledged"] for counts in self.counts.values())


class Left(Exception):
    """The client leaves this conversation as it is."""


class Client:
    """A lane of conversations, one after another, on a connection of its own."""

    def __init__(self, log: Log, port: int, number: int, seed: int, pace_s: float = 0.0) -> None:
        self.pace_s = pace_s
        self.log = log
        self.port = port
        self.number = number
        self.random = random.Random(f"{seed}/{number}")
        self.http = Http(port, TIMEOUT_S)
        self.turn = 0
        self.stopping = False
        self.owner = ""
        self.token = ""

    async def run(self, *, chats: bool) -> None:
        """Until ``stopping``: then the conversation in hand is still ended."""
        while not self.stopping:
            self.turn += 1
            snap = not chats or self.random.random() < 0.2
            # An owner has a few conversations; the checker looks at an owner at a time.
            self.owner = f"{'snap' if snap else 'chat'}-{self.number}-{self.turn // 3}"
            self.token = token(self.owner, ttl_s=86_400)
            try:
                await (self._grow() if snap else self._chat())
            except Left:
                await asyncio.sleep(self.random.uniform(0.1, 0.5))
        self.http.close()

    async def _call(
        self, method: str, path: str, body: Any = None, http: Http | None = None
    ) -> tuple[Fate, Answer | None]:
        """One request and what it means for a save."""
        began = time.perf_counter()
        try:
            answer = await (http or self.http).call(method, path, self.token, body)
        except Unsent:
            return "refused", None
        except Unanswered:
            return "unknown", None
        self.log.slowest_ms = max(self.log.slowest_ms, (time.perf_counter() - began) * 1000)
        if answer.status < 300:
            return "acknowledged", answer
        kind = (answer.body or {}).get("type", "") if isinstance(answer.body, dict) else ""
        if answer.status >= 500 and kind not in SURE:
            if answer.status != 503:
                self.log.surprises.append(f"{method} {path}: {answer.status} {answer.body}")
            return "unknown", answer
        if answer.status in (400, 401, 403, 405, 413, 415, 422):
            self.log.surprises.append(f"{method} {path}: {answer.status} {answer.body}")
        return "refused", answer

    # ------------------------------------------------------------------ snapshots
    async def _grow(self) -> None:
        """A message saved whole, over and over, as it grows."""
        chat = f"{self.owner}-{self.turn}"
        mine = self.log.snapshots[self.owner, chat, "m"] = Snapshot()
        last = self.random.randint(4, 25)
        for number in range(1, last + 1):
            body = {
                "id": "m", "role": "assistant", "revision": number,
                "content": f"{number}:{'text ' * number}", "status": "complete" if number == last else "streaming",
            }  # fmt: skip
            began = now()
            fate, answer = await self._call("PUT", f"/api/conversations/{chat}/messages", body)
            mine.saves[number] = (fate, began, now())
            self.log.count(fate)
            if self.pace_s:
                await asyncio.sleep(self.pace_s)
            if fate != "acknowledged":
                # A stream does not stop for one snapshot: the next one says it all again.
                await asyncio.sleep(0.2)
                if answer is not None and answer.status in (409, 410):
                    raise Left

    # ------------------------------------------------------------------ the whole API
    async def _save(
        self, chat: str, method: str, path: str, body: Any, sent: Sequence[Command], *, order: Sequence[str] = (),
        http: Http | None = None, client: str = "",
    ) -> Answer:  # fmt: skip
        """Save, again where nobody knows. Raises Left where it will not do."""
        for _ in range(TRIES):
            begun = now()
            fate, answer = await self._call(method, f"/api/conversations/{chat}{path}", body, http)
            self.log.count(fate)
            if fate == "refused" and answer is None:
                await asyncio.sleep(0.2)
                continue
            save = Save(
                client=client or f"client {self.number}", start=begun, end=now(), owner=self.owner,
                conversation=chat, commands=tuple(sent), order=tuple(order),
            )  # fmt: skip
            save.outcomes = _outcomes(sent, fate, answer)
            if answer is not None and answer.status < 300 and isinstance(answer.body, dict):
                save.blind = answer.body.get("base") == "unknown"
                if answer.body.get("outcome", "accepted") in c.ACKNOWLEDGED:
                    save.version = answer.body["version"]
            self.log.entries.setdefault(self.owner, []).append(save)
            if fate == "acknowledged" and answer is not None:
                return answer
            if answer is not None and answer.status < 500:
                raise Left
            await asyncio.sleep(self.random.uniform(0.1, 0.3))
        raise Left

    async def _put(
        self, chat: str, kind: ItemKind, item: str, fields: dict[str, Any], *, revision: int | None = None,
        status: str | None = None, **how: Any,
    ) -> Answer:  # fmt: skip
        place = {"c": "", "m": "/messages", "t": "/tool-results", "a": "/artifacts"}[kind]
        body = _body(kind, item, fields, revision, status)
        sent = c.put(kind, item, fields, revision=revision, status=status)
        return await self._save(chat, "PATCH" if kind == "c" else "PUT", place, body, [sent], **how)

    def _text(self) -> str:
        return " ".join(self.random.choices(WORDS, k=self.random.randint(2, 25)))

    async def _chat(self) -> None:
        chat, draw = f"{self.owner}-{self.turn}", self.random.random
        for turn in range(self.random.randint(1, 2)):
            await self._put(chat, "m", f"q{turn}", {"role": "user", "content": self._text()})
            await self._reply(chat, f"r{turn}")
            if draw() < 0.3:
                await self._read(chat)
        if draw() < 0.3:
            fields = {
                "tool_call_id": "t1",
                "tool_name": "look",
                "state": "output-available",
                "output": {"n": [1, self._text()]},
            }
            await self._put(chat, "t", "t1", {**fields, "message_id": "r0"})
        if draw() < 0.3:
            for text in (self._text(), self._text()):
                await self._put(chat, "a", "a1", {"kind": "text", "title": "A", "content": text})
        if draw() < 0.3:
            await self._put(chat, "c", "", {"title": self._text()})
        if draw() < 0.2:
            await self._two_writers(chat)
        if draw() < 0.2:
            await self._sync(chat)
        if draw() < 0.1:
            await self._save(chat, "DELETE", "/messages/q0", None, [Delete("m", "q0")])
            self.log.deleted.append((self.owner, chat, "q0", now()))
        if draw() < 0.1:
            await self._list()
        if draw() < 0.3:
            # Cold by then: back from Postgres for the next save.
            await asyncio.sleep(self.random.uniform(4, 9))
            await self._put(chat, "m", "late", {"role": "user", "content": self._text()})
        await self._read(chat)

    async def _reply(self, chat: str, item: str) -> None:
        await self._put(chat, "m", item, {"role": "assistant", "content": ""}, status="streaming")
        length, steps = 0, self.random.randint(2, 12)
        for step in range(steps):
            text = self._text()
            units = utf16_units(text)
            status = "complete" if step == steps - 1 else None
            body: dict[str, Any] = {"append": {"offset": length, "text": text}}
            if status:
                body["status"] = status
            sent = Append("m", item, length, text, units, st=status)
            await self._save(chat, "PATCH", f"/messages/{item}", body, [sent])
            length += units

    async def _two_writers(self, chat: str) -> None:
        """Two tabs edit one message; each names its revision."""
        other = Http(self.port, TIMEOUT_S)

        async def edit(revision: int, http: Http | None) -> None:
            fields = {"role": "user", "content": self._text()}
            with contextlib.suppress(Left):
                await self._put(
                    chat, "m", "shared", fields, revision=revision, http=http, client=f"tab {revision}"
                )

        await asyncio.gather(edit(1, None), edit(2, other))
        other.close()

    async def _sync(self, chat: str) -> None:
        items = [
            (f"s{n}", {"role": "user", "content": self._text()}) for n in range(self.random.randint(2, 6))
        ]
        body = {"messages": [_body("m", item, fields, None, None) for item, fields in items]}
        sent = [c.put("m", item, fields) for item, fields in items]
        await self._save(chat, "POST", "/sync", body, sent, order=[item for item, _ in items])

    async def _read(self, chat: str) -> None:
        begun = now()
        _, answer = await self._call("GET", f"/api/conversations/{chat}?limit=200&branches=all")
        if answer is None or answer.status not in (200, 404, 410):
            return
        read = Read(
            client=f"reader {self.number}", start=begun, end=now(), owner=self.owner, conversation=chat, result="ok"
        )  # fmt: skip
        if answer.status == 200:
            read.version, read.partial = answer.body["version"], answer.body.get("partial", False)
            read.items = sights(answer.body)
        else:
            read.result = "nothing" if answer.status == 404 else "gone"
        self.log.entries.setdefault(self.owner, []).append(read)

    async def _list(self) -> None:
        begun = now()
        _, answer = await self._call("GET", "/api/conversations?limit=100")
        if answer is not None and answer.status == 200 and not answer.body.get("degraded"):
            ids = tuple(each["id"] for each in answer.body["conversations"])
            self.log.entries.setdefault(self.owner, []).append(
                Listing(client=f"lister {self.number}", start=begun, end=now(), owner=self.owner, conversations=ids)
            )  # fmt: skip


def _body(
    kind: ItemKind, item: str, fields: dict[str, Any], revision: int | None, status: str | None
) -> dict[str, Any]:
    body: dict[str, Any] = {} if kind == "c" else {"id": item}
    body |= {_camel(name): value for name, value in fields.items()}
    if revision is not None:
        body["revision"] = revision
    if status is not None:
        body["status"] = status
    return body


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


#: Problems that say for sure that nothing was changed.
_REFUSALS: Final[dict[str, Outcome]] = {
    "stale-revision": "stale-revision",
    "revision-conflict": "revision-conflict",
    "append-gap": "append-gap",
    "append-mismatch": "append-mismatch",
    "terminal": "terminal",
    "gone": "gone",
    "not-found": "not-found",
}


def _outcomes(sent: Sequence[Command], fate: Fate, answer: Answer | None) -> tuple[ItemOutcome | None, ...]:
    """As the checker wants them: None where nobody knows. Refusals over HTTP tell no version."""
    if fate == "unknown" or answer is None:
        return (None,) * len(sent)
    if answer.status >= 300:
        outcome = _REFUSALS.get(answer.body["type"].rpartition("/")[2])
        if outcome is None:
            return (None,) * len(sent)
        return tuple(ItemOutcome(kind=cmd.k, id=cmd.id, outcome=outcome) for cmd in sent)
    if answer.status == 204:
        # A tombstone's version is not told over HTTP.
        return (None,) * len(sent)
    told = (
        answer.body.get("items", [answer.body]) if len(sent) > 1 or "items" in answer.body else [answer.body]
    )
    found = []
    for command, one in zip(sent, told, strict=True):
        outcome = one["outcome"]
        found.append(
            None
            if outcome == "unavailable"
            else ItemOutcome(
                kind=command.k,
                id=command.id,
                outcome=outcome,
                version=one.get("version") or 0,
                revision=one.get("revision"),
                length=one.get("length"),
            )
        )
    return tuple(found)


# ---------------------------------------------------------------- what a read shows
def sights(body: dict[str, Any]) -> tuple[Sight, ...]:
    """The items of a conversation as the API answers it."""
    found = [_sight("c", body["conversation"])]
    for kind, name in (("m", "messages"), ("t", "toolResults"), ("a", "artifacts")):
        found += [_sight(kind, item) for item in body[name]]  # type: ignore[arg-type]
    return tuple(found)


def _sight(kind: ItemKind, item: dict[str, Any]) -> Sight:
    row = {name: item.get(_camel(name)) for name in ROW_FIELDS[kind]}
    filled = {name: value for name, value in row.items() if value not in (None, False)}
    texts = {}
    for name, is_json in BODY_FIELDS[kind].items():
        value = item.get(_camel(name))
        if value is not None:
            texts[name] = orjson.dumps(value).decode() if is_json else value
    parts = item.get("parts")
    seen = Seen(
        "complete" if kind == "c" else item["status"],
        # Not shown; these clients leave nothing open but what streams.
        "streaming" if item.get("status") == "interrupted" else None,
        item["revision"],
        "deletedAt" in item,
        tuple(sorted(filled.items())),
        tuple(sorted(texts.items())),
        None if parts is None else "[" + ",".join(orjson.dumps(part).decode() for part in parts) + "]",
    )
    links = frozenset([*(item.get("toolResultIds") or ()), *(item.get("artifactIds") or ())])
    item_id = "" if kind == "c" else item["id"]
    return Sight(kind, item_id, item["version"], item.get("position") or "", item["stored"], seen, links)
