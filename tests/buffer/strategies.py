"""Random texts, parts and records, for the tests that compare with a model."""

from __future__ import annotations

import string
from typing import Any
from uuid import UUID

import orjson
from hypothesis import strategies as st

from models.core.records import Artifact, Conversation, Message, Snapshot, ToolResult

#: What tends to break: astral, combining, right-to-left, marks of direction, JSON's own signs.
NASTY = '😀𝄞👩\u200d👩\u200d👧e\u0301\u05d0\u202e\u0645\u2028\ufeff\x01"\\/{}\x7f'
texts = st.text(
    st.one_of(st.sampled_from(NASTY), st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    max_size=12,
)
ids = st.text(string.ascii_letters + string.digits + "_.~:@-", min_size=1, max_size=5)
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
TOOL_STATES = (
    "input-streaming", "input-available", "approval-requested", "approval-responded", "output-available", "output-error",
    "output-denied",
)  # fmt: skip

text_parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "reasoning"]), "text": texts},
    optional={"state": st.sampled_from(["streaming", "done"]), "providerMetadata": json_values},
)
tool_parts = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["tool-x", "dynamic-tool"]),
        "toolCallId": ids,
        "state": st.sampled_from(TOOL_STATES),
    },
    optional={"input": json_values, "output": json_values, "preliminary": st.booleans()},
)
other_parts = st.dictionaries(texts, json_values, max_size=3)
parts = st.lists(st.one_of(text_parts, tool_parts, other_parts), max_size=4)

versions = st.integers(1, 2**53 - 1)
times = st.integers(0, 4_000_000_000_000)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _or_none(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


UID = UUID(int=1)
_tombstone = dict.fromkeys(("deleted_ms",))


@st.composite
def _common(draw: st.DrawFn) -> dict[str, Any]:
    status = draw(st.sampled_from(["pending", "streaming", "complete", "interrupted", "error"]))
    settled = draw(_or_none(st.sampled_from(["pending", "streaming"]))) if status == "interrupted" else None
    return {
        "conversation_uid": UID, "position": draw(st.integers(0, 10**19).map(lambda n: f"{n:020d}")), "status": status,
        "status_reason": draw(_or_none(texts)), "settled_from": settled,
        "revision": draw(_or_none(st.integers(0, 2**53 - 1))), "version": draw(versions), "created_ms": draw(times),
        "updated_ms": draw(times),
    }  # fmt: skip


@st.composite
def messages(draw: st.DrawFn, item_id: str) -> Message:
    if draw(st.booleans()) and draw(st.booleans()):
        return Message(
            id=item_id, role="user", **{**draw(_common()), "deleted_ms": draw(times), "status_reason": None}
        )
    return Message(
        id=item_id, role=draw(st.sampled_from(["system", "user", "assistant", "tool"])), content=draw(_or_none(texts)),
        parts=draw(_or_none(parts.map(_json))), metadata=draw(_or_none(json_values.map(_json))), parent_id=draw(_or_none(ids)),
        tool_result_ids=tuple(draw(st.lists(ids, unique=True, max_size=3))),
        artifact_ids=tuple(draw(st.lists(ids, unique=True, max_size=3))), **draw(_common()),
    )  # fmt: skip


@st.composite
def tool_results(draw: st.DrawFn, item_id: str) -> ToolResult:
    return ToolResult(
        id=item_id, message_id=draw(_or_none(ids)), tool_call_id=draw(_or_none(texts)), tool_name=draw(_or_none(texts)),
        state=draw(_or_none(st.sampled_from(TOOL_STATES))), input=draw(_or_none(json_values.map(_json))),
        output=draw(_or_none(json_values.map(_json))), error_text=draw(_or_none(texts)), **draw(_common()),
    )  # fmt: skip


@st.composite
def artifacts(draw: st.DrawFn, item_id: str) -> Artifact:
    number = draw(st.integers(0, 5))
    return Artifact(
        id=item_id, message_id=draw(_or_none(ids)), kind=draw(_or_none(texts)), title=draw(_or_none(texts)),
        language=draw(_or_none(texts)), media_type=draw(_or_none(texts)), content=draw(_or_none(texts)),
        metadata=draw(_or_none(json_values.map(_json))), head_number=number, head_hash="ab" * 20 if number else None,
        **draw(_common()),
    )  # fmt: skip


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A whole conversation as Postgres may hold it, of uid UID, owner "owner", id "chat"."""
    own = Conversation(
        conversation_uid=UID, owner="owner", id="chat", title=draw(_or_none(texts)),
        metadata=draw(_or_none(json_values.map(_json))), archived=draw(st.booleans()), head_id=draw(_or_none(ids)),
        last_message_ms=draw(_or_none(times)), revision=draw(_or_none(st.integers(0, 2**53 - 1))), version=draw(versions),
        created_ms=draw(times), updated_ms=draw(times),
    )  # fmt: skip
    names = st.lists(ids, unique=True, max_size=3)
    return Snapshot(
        conversation=own,
        messages=tuple(draw(messages(name)) for name in draw(names)),
        tool_results=tuple(draw(tool_results(name)) for name in draw(names)),
        artifacts=tuple(draw(artifacts(name)) for name in draw(names)),
    )
