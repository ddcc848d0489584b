"""What a caller asks of one item, as a value: put, append, set a part, delete; and what came of it.

A command is encoded with MessagePack and handed to the scripts as it is. To Lua all JSON is opaque text, so this module
does what needs a parser: it splits an AI SDK ``parts`` array into skeletons and texts, ranks the states of parts and
tools, and counts UTF-16 code units (``string.length`` in a browser).

Numbers: ``rank`` 0 … 5 orders the states of a part or tool result, 5 is final; a lower one never replaces a higher one
unless a higher revision says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
import orjson

from models.core.records import FINAL_TOOL_STATES

ItemKind: TypeAlias = Literal["c", "m", "t", "a"]

#: Parts of one message, at most; each is two fields of a hash, so a row with many is slow to read however few its bytes.
MAX_PARTS: Final = 1_000
#: Tool results, and artifacts, linked to one message, at most (of each).
MAX_LINKS: Final = 1_000
#: What a part counts beside its text, and a link beside its id, bytes. As at the head of lua/common.lua.
PART_BYTES: Final = 256
LINK_BYTES: Final = 16

RANK_FINAL: Final = 5
_TOOL_RANKS: Final[Mapping[str, int]] = {
    "input-streaming": 0,
    "input-available": 1,
    "approval-requested": 2,
    "approval-responded": 3,
    "output-available": RANK_FINAL,
    "output-error": RANK_FINAL,
    "output-denied": RANK_FINAL,
}
_RANK_PRELIMINARY: Final = 4

#: Fields kept beside the item's own row because they may be large: name -> is it JSON.
BODY_FIELDS: Final[Mapping[ItemKind, Mapping[str, bool]]] = {
    "c": {"metadata": True},
    "m": {"content": False, "metadata": True},
    "t": {"input": True, "output": True, "error_text": False},
    "a": {"content": False, "metadata": True},
}
#: Small fields kept in the item's row.
ROW_FIELDS: Final[Mapping[ItemKind, frozenset[str]]] = {
    "c": frozenset({"title", "archived", "head_id"}),
    "m": frozenset({"role", "parent_id", "status_reason"}),
    "t": frozenset({"message_id", "tool_call_id", "tool_name", "state", "status_reason"}),
    "a": frozenset({"message_id", "kind", "title", "language", "media_type", "status_reason"}),
}


def link_bytes(ids: Iterable[str] | None) -> int:
    """What links to ``ids`` count, bytes (ids are ASCII)."""
    return sum(len(item_id) + LINK_BYTES for item_id in ids or ())


def utf16_units(text: str) -> int:
    """Length of ``text`` in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


class Part(msgspec.Struct, array_like=True, frozen=True):
    """One element of ``parts``: its JSON with ``text`` emptied, the text itself, and what the merge rules need of it."""

    skeleton: str
    text: str | None
    units: int
    rank: int
    #: The tool call this part waits for: (tool call id, "tool" or "approval"); empty where it waits for nothing.
    call: str = ""
    waits: str = ""


class Put(msgspec.Struct, tag_field="op", tag="put", omit_defaults=True, frozen=True):
    """Create or update: fields absent from ``row`` and ``body`` stay, False clears."""

    k: ItemKind
    id: str
    rev: int | None = None
    st: str | None = None
    row: dict[str, str | bool | int] = {}
    #: name -> (text, UTF-16 units) or False
    body: dict[str, tuple[str, int] | bool] = {}
    parts: list[Part] | bool | None = None
    results: list[str] | None = None
    artifacts: list[str] | None = None
    #: Tool results: rank of the state sent.
    rank: int | None = None
    #: Fractional position for a new message that stands before a known one in a sync.
    pos: str | None = None
    #: The message that follows a new one in a sync whose base is out of reach.
    before: str | None = None

    def weight(self) -> int:
        """About how many characters it carries."""
        size = 256 + sum(len(value[0]) for value in self.body.values() if isinstance(value, tuple))
        if isinstance(self.parts, list):
            size += sum(PART_BYTES + len(part.skeleton) + len(part.text or "") for part in self.parts)
        return size + link_bytes(self.results) + link_bytes(self.artifacts)


class Append(msgspec.Struct, tag_field="op", tag="append", omit_defaults=True, frozen=True):
    """``text`` belongs at ``offset`` (UTF-16 units) of ``content`` (part None) or of a part's text."""

    k: ItemKind
    id: str
    offset: int
    text: str
    units: int
    part: int | None = None
    rev: int | None = None
    st: str | None = None
    reason: str | None = None


class SetPart(msgspec.Struct, tag_field="op", tag="part", omit_defaults=True, frozen=True):
    """Set one part: ``index`` at most the number of parts there are."""

    k: ItemKind
    id: str
    index: int
    part: Part
    rev: int | None = None
    st: str | None = None
    reason: str | None = None


class Delete(msgspec.Struct, tag_field="op", tag="delete", omit_defaults=True, frozen=True):
    """A tombstone, also where nothing was. Kind "c" with the empty id: the conversation."""

    k: ItemKind
    id: str


Command: TypeAlias = Put | Append | SetPart | Delete

Outcome: TypeAlias = Literal[
    "accepted",  # stored in the buffer under a new version
    "duplicate",  # equal to what is there: nothing changed, acknowledged all the same
    "noop",  # an older snapshot: nothing changed, acknowledged all the same
    "stale-revision",  # 409
    "revision-conflict",  # 409: equal revision, other content
    "append-gap",  # 409, length
    "append-mismatch",  # 409, length
    "part-gap",  # 409, length = number of parts
    "terminal",  # 409
    "surrogate-split",  # 422
    "not-text",  # 422: the part has no text
    "not-found",  # 404: append or part step to an item that is not there
    "gone",  # 410
    "item-too-large",  # 413
    "too-many-items",  # 413
    "too-many-parts",  # 413
    "too-many-links",  # 413: of the message, also of one that a tool result or artifact names
    "conversation-too-large",  # 413
    "unavailable",  # 503: not tried, or unknown
]
ACKNOWLEDGED: Final[frozenset[str]] = frozenset({"accepted", "duplicate", "noop"})


class ItemOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one command. ``length``: UTF-16 units of the text appended to (or of ``content``); parts for part-gap."""

    kind: ItemKind = msgspec.field(name="k")
    id: str
    outcome: Outcome = msgspec.field(name="o")
    version: int = msgspec.field(name="v", default=0)
    revision: int | None = msgspec.field(name="r", default=None)
    length: int | None = msgspec.field(name="n", default=None)
    status: str | None = msgspec.field(name="s", default=None)
    #: True where the item did not exist before.
    created: bool = msgspec.field(name="c", default=False)


def tool_rank(state: str | None, *, preliminary: bool = False) -> int:
    """Rank of a tool state; unknown and absent states are final, so that they never block."""
    if state is None:
        return RANK_FINAL
    if state in FINAL_TOOL_STATES and preliminary:
        return _RANK_PRELIMINARY
    return _TOOL_RANKS.get(state, RANK_FINAL)


def split_part(value: Mapping[str, Any]) -> Part:
    """The Part that stands for one AI SDK ``UIMessage`` part (any JSON object)."""
    kind = value.get("type")
    state = value.get("state")
    if isinstance(kind, str) and (kind == "dynamic-tool" or kind.startswith("tool-")):
        state = state if isinstance(state, str) else None
        rank = tool_rank(state, preliminary=value.get("preliminary") is True)
        call = value.get("toolCallId")
        waits = "" if rank == RANK_FINAL else ("approval" if state == "approval-requested" else "tool")
        call_id = call if waits and isinstance(call, str) else ""
        return Part(_json(value), None, 0, rank, call_id, waits)
    text = value.get("text")
    if kind in ("text", "reasoning") and isinstance(text, str):
        skeleton = dict(value)
        skeleton["text"] = ""
        rank = 0 if state == "streaming" else RANK_FINAL
        return Part(_json(skeleton), text, utf16_units(text), rank)
    return Part(_json(value), None, 0, RANK_FINAL)


def join_part(skeleton: str, text: str | None) -> str:
    """Inverse of split_part: the part's JSON, keys in their order."""
    if text is None:
        return skeleton
    value = orjson.loads(skeleton)
    value["text"] = text
    return _json(value)


def split_parts(json_text: str) -> list[Part]:
    """The parts of a stored ``parts`` column (JSON text of an array of objects)."""
    return [split_part(value) for value in orjson.loads(json_text)]


def put(
    kind: ItemKind,
    item_id: str,
    fields: Mapping[str, Any],
    *,
    revision: int | None = None,
    status: str | None = None,
    position: str | None = None,
) -> Put:
    """A Put from validated values.

    ``fields``: snake_case names of the API's fields that were sent (ROW_FIELDS, BODY_FIELDS, ``parts``,
    ``tool_result_ids``, ``artifact_ids``; tool results also ``preliminary``); None clears; JSON fields are Python
    values, already checked.
    """
    row: dict[str, str | bool | int] = {}
    body: dict[str, tuple[str, int] | bool] = {}
    body_fields = BODY_FIELDS[kind]
    for name, value in fields.items():
        if name in ROW_FIELDS[kind]:
            row[name] = False if value is None else value
        elif name in body_fields:
            if value is None:
                body[name] = False
            else:
                text = _json(value) if body_fields[name] else value
                body[name] = (text, utf16_units(text))
    parts: list[Part] | bool | None = None
    if "parts" in fields:
        parts = False if fields["parts"] is None else [split_part(value) for value in fields["parts"]]
    rank = None
    if kind == "t" and fields.get("state") is not None:
        rank = tool_rank(fields["state"], preliminary=bool(fields.get("preliminary")))
    return Put(
        kind,
        item_id,
        revision,
        status,
        row,
        body,
        parts,
        _ids(fields.get("tool_result_ids")),
        _ids(fields.get("artifact_ids")),
        rank,
        position,
    )


def _ids(value: Sequence[str] | None) -> list[str] | None:
    return list(dict.fromkeys(value)) if value else None


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
