"""Random histories: the scripts against the reference model, in step, recounted after every step; and growing texts
against Python's own strings.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import HealthCheck, event, given, settings, strategies as st

from models.buffer.buffer import Buffer
from models.buffer.codec import View
from models.core.commands import Append, Command, Delete, SetPart, join_part, split_part, utf16_units
from tests.buffer import reference
from tests.buffer.chat import Chat, put
from tests.buffer.strategies import NASTY, TOOL_STATES

_numbers = itertools.count()
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

pieces = st.text(st.sampled_from("ab" + NASTY), max_size=4)
statuses = st.sampled_from(
    [None, None, "pending", "streaming", "streaming", "complete", "interrupted", "error"]
)
revisions = st.sampled_from([None, None, None, 0, 1, 2])
CONTENTS = (None, "", "a", "ab", "ab😀", "b😀𝄞")
one_part = st.one_of(
    st.builds(
        lambda text, state: {"type": "text", "text": text, **({"state": state} if state else {})},
        st.sampled_from(["", "a", "ab", "a😀"]),
        st.sampled_from([None, "streaming", "done"]),
    ),
    st.builds(
        lambda state, more: {"type": "tool-x", "toolCallId": "t1", "state": state, **more},
        st.sampled_from(TOOL_STATES),
        st.sampled_from([{}, {"preliminary": True}]),
    ),
    st.just({"type": "step-start"}),
)


@st.composite
def puts(draw: st.DrawFn) -> Command:
    kind: Any = draw(st.sampled_from("mmmta"))
    fields: dict[str, Any] = {}

    def maybe(name: str, values: Any) -> None:
        if draw(st.booleans()):
            fields[name] = draw(st.sampled_from(values))

    maybe("status_reason", [None, "stop"])
    if kind == "m":
        maybe("content", CONTENTS)
        maybe("metadata", [None, {}, {"a": 1}])
        maybe("parent_id", [None, "m0"])
        maybe("tool_result_ids", [["t1"], ["t9", "t1"]])
        if draw(st.booleans()):
            fields["parts"] = draw(st.one_of(st.none(), st.lists(one_part, max_size=3)))
    elif kind == "t":
        maybe("state", [None, *TOOL_STATES])
        maybe("preliminary", [True, False])
        maybe("output", [None, 1, "x"])
        maybe("message_id", [None, "m1", "m2"])
    else:
        maybe("content", CONTENTS)
        maybe("title", [None, "t"])
        maybe("message_id", [None, "m1", "m2"])
    return put(
        kind,
        draw(st.sampled_from([f"{kind}1", f"{kind}2"])),
        rev=draw(revisions),
        st=draw(statuses),
        **fields,
    )


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, Any]:
    what = draw(
        st.sampled_from(
            ["put"] * 6
            + ["append"] * 6
            + ["part"] * 3
            + ["flush", "peek", "ack", "evict", "settle", "delete"]
        )
    )
    if what == "put":
        return what, draw(puts())
    if what == "append":
        kind = draw(st.sampled_from("mma"))
        return what, (
            kind, draw(st.sampled_from([f"{kind}1", f"{kind}2"])), draw(st.sampled_from([None, None, 0, 1])) if kind == "m" else None,
            draw(st.integers(-3, 1)), draw(pieces), draw(revisions), draw(statuses), draw(st.sampled_from([None, None, "why"])),
        )  # fmt: skip
    if what == "part":
        return what, SetPart(
            "m", draw(st.sampled_from(["m1", "m2"])), draw(st.integers(0, 3)), split_part(draw(one_part)), draw(revisions),
            draw(statuses), draw(st.sampled_from([None, None, "why"])),
        )  # fmt: skip
    if what == "delete":
        kind = draw(st.sampled_from("mta"))
        return what, Delete(kind, draw(st.sampled_from([f"{kind}1", f"{kind}3"])))
    if what == "settle":
        return what, draw(st.sampled_from(["m/m1", "m/m2", "t/t1", "a/a1"]))
    return what, None


def stored_text(item: reference.Item | None, part: int | None) -> str:
    """The text an append would go to."""
    if item is None:
        return ""
    if part is None:
        return item.texts.get("content", "")
    return (item.parts or [])[part][1] or "" if part < len(item.parts or []) else ""


def resolve(model: reference.Conversation, what: str, detail: Any) -> Command:
    """An append's offset is drawn relative to the text's end, and its text often repeats what stands there."""
    if what != "append":
        command: Command = detail
        return command
    kind, item_id, part, relative, text, rev, status, reason = detail
    stored = stored_text(model.items.get((kind, item_id)), part)
    offset = max(0, utf16_units(stored) + relative)
    if not text.startswith("b") and offset < utf16_units(stored):
        overlap = stored.encode("utf-16-le")[offset * 2 :].decode("utf-16-le", "ignore")
        text = overlap + text
    return Append(kind, item_id, offset, text, utf16_units(text), part, rev, status, reason)


def shown(chat: Chat, views: dict[str, View] | None = None) -> dict[tuple[str, str], reference.Item]:
    """What a reader sees, in the model's terms."""
    out = {}
    for view in (chat.views() if views is None else views).values():
        if view.kind == "c":
            continue
        row = view.row
        bodies = view.bodies if isinstance(view.bodies, dict) else {}
        parts = None
        if isinstance(view.parts, list):
            parts = [
                (skeleton, text if isinstance(text, str) else None, _rank(skeleton, text))
                for skeleton, text in view.parts
            ]
        out[view.kind, view.id] = reference.Item(
            row.st or "",
            row.sf,
            row.r,
            row.d is not None,
            dict(row.f or {}),
            dict(bodies),
            parts,
            row.lr or [],
            row.la or [],
        )
    return out


def _rank(skeleton: str, text: Any) -> int:
    import orjson

    return split_part(orjson.loads(join_part(skeleton, text if isinstance(text, str) else None))).rank


def versions_of(chat: Chat) -> dict[str, list[str]]:
    """All artifact versions there are, stored or waiting."""
    found = {(v.id, v.number): v.content for v in chat.store.versions()}
    for ref, row in chat.peek():
        if ref[33:].startswith("v/"):
            found[row.id, row.number] = row.content  # type: ignore[union-attr]
    out: dict[str, list[str]] = {}
    for (artifact, number), content in sorted(found.items()):
        out.setdefault(artifact, []).append(content)
        assert len(out[artifact]) == number
    return out


@given(history=st.lists(steps(), min_size=4, max_size=40))
@quick.__class__(quick, max_examples=120)
def test_the_scripts_do_what_the_reference_says(quick_buffer: Buffer, history: list[tuple[str, Any]]) -> None:
    chat = Chat(quick_buffer, "owner", f"chat{next(_numbers)}")
    model = reference.Conversation()
    told: dict[tuple[str, str], int] = {}
    peeked: list[Any] = []
    chat.adopt()
    for what, detail in history:
        if what == "flush":
            chat.flush()
        elif what == "peek":
            peeked = chat.peek()
        elif what == "ack":
            chat.acknowledge(chat.commit(peeked))
        elif what == "evict":
            chat.flush()
            if chat.evict() == 1:
                chat.adopt()
        elif what == "settle":
            kind, item_id = detail.split("/")
            row = chat.check().get(detail, {})
            if "o" in row:
                chat.settle_stale(detail)
                model.settle(kind, item_id)
        else:
            command = resolve(model, what, detail)
            before = chat.header()["last"]
            out = chat.save(command)
            expected = model.apply(command)
            event(f"{type(command).__name__} {expected}")
            assert out.outcome == expected, command
            key = (command.k, command.id)
            if expected == "accepted":
                assert out.version > before
                told[key] = out.version
            elif expected in ("duplicate", "noop"):
                assert out.version >= told[key]
                assert chat.header()["last"] == before
        assert shown(chat) == model.items
        now = chat.views()
        for (kind, item_id), version in told.items():
            assert now[f"{kind}/{item_id}"].row.v >= version
    assert versions_of(chat) == model.versions


@given(
    data=st.lists(
        st.tuples(st.sampled_from(["c", "c", "c", "0", "1", "2", "set", "part", "flush", "close"]), st.text(st.sampled_from("a" + NASTY), min_size=1, max_size=5)),
        min_size=1, max_size=30,
    ),
    repeat=st.integers(1, 24),
)  # fmt: skip
@quick.__class__(quick, max_examples=60)
def test_growing_texts_equal_pythons_own(
    quick_buffer: Buffer, data: list[tuple[str, str]], repeat: int
) -> None:
    """Appends to content and parts in any order, each many times, so that chunks of several levels come together."""
    chat = Chat(quick_buffer, "owner", f"chat{next(_numbers)}", checked=False)
    texts = {"c": "", "0": "", "1": "", "2": ""}
    parts = [{"type": "text", "text": ""} for _ in range(3)]
    chat.adopt()
    chat.put("m", "m1", st="streaming", content="", parts=parts)
    revision = 0
    for target, piece in data:
        if target in texts:
            for _ in range(repeat):
                out = chat.append(
                    "m1", utf16_units(texts[target]), piece, part=None if target == "c" else int(target)
                )
                texts[target] += piece
                assert (out.outcome, out.length) == ("accepted", utf16_units(texts[target]))
        elif target == "set":
            revision += 1
            texts["c"] = piece
            assert chat.put("m", "m1", content=piece, rev=revision, st="streaming").outcome in (
                "accepted",
                "duplicate",
            )
        elif target == "part":
            revision += 1
            texts["1"] = piece
            chat.part("m1", 1, {"type": "text", "text": piece}, rev=revision)
        elif target == "flush":
            chat.flush()
        else:
            revision += 1
            chat.append("m1", utf16_units(texts["c"]), "", st="complete")
            assert not [name for name in chat.buffer.client.hkeys(chat.bodies_key) if b"+" in name]
            chat.append("m1", utf16_units(texts["c"]), "", st="streaming", rev=revision)
        chat.check()
    view = chat.views()["m/m1"]
    assert isinstance(view.bodies, dict)
    assert isinstance(view.parts, list)
    assert view.bodies["content"] == texts["c"]
    assert [text for _, text in view.parts] == [texts["0"], texts["1"], texts["2"]]


def test_a_text_of_thousands_of_appends_has_few_fields(quick_buffer: Buffer) -> None:
    chat = Chat(quick_buffer, "owner", f"chat{next(_numbers)}", checked=False)
    chat.put("m", "m1", st="streaming", content="")
    text = ""
    for step in range(16**3 + 16**2 + 16 + 1):
        piece = NASTY[step % len(NASTY)]
        chat.append("m1", utf16_units(text), piece)
        text += piece
        if step in (14, 15, 16, 255, 256, 4094, 4095, 4096):
            assert chat.message("m1").content == text
            chat.check()
    assert chat.buffer.client.hlen(chat.bodies_key) == 1 + 4
    assert chat.message("m1").content == text
    chat.check()
