"""Rows as the scripts keep them, to and from records.

``Row`` mirrors the data dictionary at the head of lua/common.lua; ``record`` turns a script's view of an item into a
record, ``stage`` turns a snapshot from Postgres into the fields of a hot conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from models.core.commands import (
    PART_BYTES,
    RANK_FINAL,
    join_part,
    link_bytes,
    split_parts,
    tool_rank,
    utf16_units,
)
from models.core.records import (
    OPEN_STATUSES,
    Artifact,
    ArtifactVersion,
    Conversation,
    Message,
    Record,
    Snapshot,
    ToolResult,
)

FORMAT = 1


class Row(msgspec.Struct, omit_defaults=True):
    """One row of a conversation's hash; the names are explained in lua/common.lua."""

    st: str | None = None
    sf: str | None = None
    r: int | None = None
    v: int = 0
    w: int | None = None
    z: int | None = None
    p: str | None = None
    c: int = 0
    u: int | None = None
    d: int | None = None
    t: int | None = None
    b: int | None = None
    o: int | None = None
    i: int | None = None
    y: int | None = None
    x: int | None = None
    pl: int | None = None
    f: dict[str, Any] | None = None
    k: dict[str, tuple[int, int]] | None = None
    n: int | None = None
    pb: int | None = None
    g: dict[str, tuple[int, int, int]] | None = None
    q: dict[str, tuple[str, str]] | None = None
    lr: list[str] | None = None
    la: list[str] | None = None
    rk: int | None = None
    hn: int | None = None
    hh: str | None = None
    lm: int | None = None


class Header(msgspec.Struct, omit_defaults=True, frozen=True):
    """The header of a conversation's hash."""

    f: int = FORMAT
    owner: str = ""
    id: str = ""
    be: str = ""
    last: int = 0
    n: int = 0
    bytes: int = 0
    dirty: int = 0
    dead: int = 0
    open: int = 0
    t: int = 0
    mp: int = 0
    bl: int = 0
    ph: int = 0
    blind: int = 0


_encode = msgspec.msgpack.Encoder().encode


class View(msgspec.Struct, array_like=True, frozen=True):
    """An item as a script shows it: large fields by name, parts as (skeleton, text or False); False where there are none."""

    name: str
    row: Row
    bodies: dict[str, str] | bool = False
    parts: list[tuple[str, str | bool]] | bool = False

    @property
    def kind(self) -> str:
        return self.name[0]

    @property
    def id(self) -> str:
        return self.name[2:]


def record(uid: UUID, owner: str, conversation_id: str, item: View) -> Record:
    """The record of an item. A view without bodies gives a record whose large fields are None."""
    row, f = item.row, item.row.f or {}
    bodies = item.bodies if isinstance(item.bodies, dict) else {}
    updated = row.u if row.u is not None else row.c
    kind = item.kind
    if kind == "c":
        return Conversation(
            conversation_uid=uid, owner=owner, id=conversation_id, title=f.get("title"), metadata=bodies.get("metadata"),
            archived=bool(f.get("archived")), head_id=f.get("head_id"), last_message_ms=row.lm, revision=row.r,
            version=row.v, created_ms=row.c, updated_ms=updated, deleted_ms=row.d,
        )  # fmt: skip
    if kind == "v":
        artifact_id, number = item.id.rsplit("/", 1)
        return ArtifactVersion(
            conversation_uid=uid, id=artifact_id, number=int(number), content=bodies.get("content", ""),
            hash=row.hh or "", version=row.v, created_ms=row.c,
        )  # fmt: skip
    common: dict[str, Any] = {
        "conversation_uid": uid,
        "id": item.id,
        "position": row.p or "",
        "status": row.st or "complete",
        "status_reason": f.get("status_reason"),
        "settled_from": row.sf,
        "revision": row.r,
        "version": row.v,
        "created_ms": row.c,
        "updated_ms": updated,
        "deleted_ms": row.d,
    }
    if kind == "m":
        parts = None
        if isinstance(item.parts, list):
            parts = (
                "["
                + ",".join(
                    join_part(skeleton, text if isinstance(text, str) else None)
                    for skeleton, text in item.parts
                )
                + "]"
            )
        return Message(
            role=f.get("role") or "assistant", content=bodies.get("content"), parts=parts, metadata=bodies.get("metadata"),
            parent_id=f.get("parent_id"), tool_result_ids=tuple(row.lr or ()), artifact_ids=tuple(row.la or ()), **common,
        )  # fmt: skip
    if kind == "t":
        return ToolResult(
            message_id=f.get("message_id"), tool_call_id=f.get("tool_call_id"), tool_name=f.get("tool_name"),
            state=f.get("state"), input=bodies.get("input"), output=bodies.get("output"),
            error_text=bodies.get("error_text"), **common,
        )  # fmt: skip
    return Artifact(
        message_id=f.get("message_id"), kind=f.get("kind"), title=f.get("title"), language=f.get("language"),
        media_type=f.get("media_type"), content=bodies.get("content"), metadata=bodies.get("metadata"),
        head_number=row.hn or 0, head_hash=row.hh, **common,
    )  # fmt: skip


class Staged(NamedTuple):
    """A base ready to be installed: fields of the two hashes, the header's figures, and what is in flight."""

    rows: list[tuple[str, bytes]]
    bodies: list[tuple[str, bytes]]
    header: dict[str, Any]
    #: (name, ms at which it is stale)
    open: list[tuple[str, int]]


class StaleTimes(NamedTuple):
    """How long each kind of open item may be silent, ms."""

    plain_ms: int
    tool_ms: int
    approval_ms: int


def stage(
    owner: str,
    conversation_id: str,
    snapshot: Snapshot,
    purge_horizon: int,
    stale: StaleTimes,
) -> Staged:
    """The hot form of what Postgres holds. ``snapshot.conversation`` may be None (nothing there)."""
    out = Staged([], [], {}, [])
    size = count = last = 0
    if snapshot.conversation is not None:
        c = snapshot.conversation
        fields = _some(title=c.title, archived=c.archived or None, head_id=c.head_id)
        row = Row(
            v=c.version, w=c.version, z=c.version, c=c.created_ms, u=c.updated_ms, t=c.updated_ms, d=c.deleted_ms, r=c.revision,
            lm=c.last_message_ms, f=fields, b=0,
        )  # fmt: skip
        _bodies(out, "c/", row, metadata=c.metadata)
        out.rows.append(("c/", _encode(row)))
        size, last = row.b or 0, c.version
        if c.deleted_ms is not None:
            # Nothing of it can be read or changed any more: its tombstone is enough, and the highest version.
            for kind in (snapshot.messages, snapshot.tool_results, snapshot.artifacts):
                last = max([last, *(item.version for item in kind)])
            snapshot = Snapshot(conversation=c)
    message_ids = {m.id for m in snapshot.messages}
    for name, row in _rows(out, snapshot):
        row.o = _deadline(row, stale)
        if row.o is not None:
            out.open.append((name, row.o))
        out.rows.append((name, _encode(row)))
        size += row.b or 0
        count += 1
        last = max(last, row.v)
    waiting: dict[str, Row] = {}
    for t in snapshot.tool_results:
        if t.message_id is not None and t.message_id not in message_ids:
            links = waiting.setdefault(t.message_id, Row())
            links.lr = [*(links.lr or ()), t.id]
    for a in snapshot.artifacts:
        if a.message_id is not None and a.message_id not in message_ids:
            links = waiting.setdefault(a.message_id, Row())
            links.la = [*(links.la or ()), a.id]
    for links in waiting.values():
        links.b = link_bytes(links.lr) + link_bytes(links.la)
        size += links.b
    out.rows.extend((f"l/{message_id}", _encode(row)) for message_id, row in waiting.items())
    last = max(last, purge_horizon)
    out.header.update(
        owner=owner,
        id=conversation_id,
        n=count,
        bytes=size,
        last=last,
        mp=last,
        ph=purge_horizon,
        rows=len(out.rows),
    )
    return out


def _rows(out: Staged, snapshot: Snapshot) -> Iterator[tuple[str, Row]]:
    final = {
        t.id: t
        for t in snapshot.tool_results
        if t.deleted_ms is None and t.status not in OPEN_STATUSES and _rank(t) is None
    }
    for m in snapshot.messages:
        name = f"m/{m.id}"
        row = _common(m)
        row.f = _some(role=m.role, parent_id=m.parent_id, status_reason=m.status_reason)
        row.lr, row.la = list(m.tool_result_ids) or None, list(m.artifact_ids) or None
        row.b = link_bytes(row.lr) + link_bytes(row.la)
        _bodies(out, name, row, content=m.content, metadata=m.metadata)
        if m.parts is not None:
            _parts(out, m, row, final)
        yield name, row
    for t in snapshot.tool_results:
        name = f"t/{t.id}"
        row = _common(t)
        row.f = _some(
            message_id=t.message_id, tool_call_id=t.tool_call_id, tool_name=t.tool_name, state=t.state,
            status_reason=t.status_reason,
        )  # fmt: skip
        row.rk = _rank(t)
        _bodies(out, name, row, input=t.input, output=t.output, error_text=t.error_text)
        yield name, row
    for a in snapshot.artifacts:
        name = f"a/{a.id}"
        row = _common(a)
        row.f = _some(
            message_id=a.message_id, kind=a.kind, title=a.title, language=a.language, media_type=a.media_type,
            status_reason=a.status_reason,
        )  # fmt: skip
        row.hn, row.hh = a.head_number or None, a.head_hash
        _bodies(out, name, row, content=a.content, metadata=a.metadata)
        yield name, row


def _common(item: Message | ToolResult | Artifact) -> Row:
    return Row(
        st=item.status, sf=item.settled_from, r=item.revision, v=item.version, w=item.version, z=item.version, p=item.position,
        c=item.created_ms, u=item.updated_ms, t=item.updated_ms, d=item.deleted_ms, b=0,
    )  # fmt: skip


def _bodies(out: Staged, name: str, row: Row, **fields: str | None) -> None:
    for field, text in fields.items():
        if text is not None:
            raw = text.encode()
            out.bodies.append((f"{name}/{field}", raw))
            row.k = row.k or {}
            row.k[field] = (utf16_units(text), len(raw))
            row.b = (row.b or 0) + len(raw)


def _parts(out: Staged, m: Message, row: Row, final: Mapping[str, ToolResult]) -> None:
    parts = split_parts(m.parts or "[]")
    row.n, row.pb = len(parts), 0
    for i, part in enumerate(parts):
        text = part.text.encode() if part.text is not None else b""
        units = part.units if part.text is not None else -1
        # As text: Lua's MessagePack reads no binary strings.
        value = [part.skeleton, units, len(text), part.rank, part.call, part.waits]
        out.bodies.append((f"m/{m.id}/#{i}", _encode(value)))
        if part.text is not None:
            out.bodies.append((f"m/{m.id}/={i}", text))
        row.pb += len(part.skeleton.encode()) + len(text)
        if part.call and not _answered(m, part.call, final):
            row.q = row.q or {}
            row.q[str(i)] = (part.call, part.waits)
    row.b = (row.b or 0) + row.pb + PART_BYTES * len(parts)


def _answered(m: Message, call: str, final: Mapping[str, ToolResult]) -> bool:
    """As answered in lua/merge.lua."""
    if f"{m.id}.{call}" in final:
        return True
    named = final.get(call)
    if named is not None and named.message_id in (None, m.id):
        return True
    return any(result in final and final[result].tool_call_id == call for result in m.tool_result_ids)


def _rank(t: ToolResult) -> int | None:
    """The ``rk`` of a stored tool result: None once final. A final state on an open row was a preliminary one."""
    if t.state is None:
        return None
    rank = tool_rank(t.state, preliminary=t.status in OPEN_STATUSES or t.settled_from is not None)
    return rank if rank < RANK_FINAL else None


def _deadline(row: Row, stale: StaleTimes) -> int | None:
    """As schedule_open in lua/common.lua."""
    if row.d is not None:
        return None
    touched = row.t or 0
    waits = {w for _, w in (row.q or {}).values()}
    if row.rk is not None:
        waits = {"approval" if (row.f or {}).get("state") == "approval-requested" else "tool"}
    wait_ms = stale.approval_ms if "approval" in waits else stale.tool_ms if waits else stale.plain_ms
    if row.st in OPEN_STATUSES or (row.st == "complete" and row.q):
        return touched + wait_ms
    return None


def _some(**fields: Any) -> dict[str, Any] | None:
    return {name: value for name, value in fields.items() if value is not None} or None
