"""Adoption: what Postgres holds becomes hot exactly as it was; guarded by the epoch; merged by version where the buffer
may have been rolled back.
"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from models.buffer import codec
from models.buffer.buffer import STAGING_MS, STAGING_PIECE_BYTES, Buffer, _pieces
from models.buffer.codec import stage
from models.core.records import Snapshot
from tests.buffer.chat import Chat, put
from tests.buffer.checks import recount
from tests.buffer.strategies import snapshots

_numbers = itertools.count()


def of_chat(chat: Chat, snapshot: Snapshot) -> Snapshot:
    """``snapshot`` with the uid of ``chat``."""

    def own(record: Any) -> Any:
        return msgspec.structs.replace(record, conversation_uid=chat.place.uid)

    conversation = snapshot.conversation
    return Snapshot(
        conversation=conversation and msgspec.structs.replace(own(conversation), id=chat.place.id),
        messages=tuple(map(own, snapshot.messages)),
        tool_results=tuple(map(own, snapshot.tool_results)),
        artifacts=tuple(map(own, snapshot.artifacts)),
    )


def read_back(chat: Chat) -> Snapshot:
    """The conversation as the buffer shows it."""
    records: dict[str, list[Any]] = {kind: [] for kind in "cmta"}
    for view in chat.views().values():
        records[view.kind].append(codec.record(chat.place.uid, chat.place.owner, chat.place.id, view))
    return Snapshot(
        conversation=records["c"][0] if records["c"] else None,
        messages=tuple(records["m"]),
        tool_results=tuple(records["t"]),
        artifacts=tuple(records["a"]),
    )


def by_id(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "c": snapshot.conversation,
        **{f"m/{m.id}": m for m in snapshot.messages},
        **{f"t/{t.id}": t for t in snapshot.tool_results},
        **{f"a/{a.id}": a for a in snapshot.artifacts},
    }


@given(snapshot=snapshots())
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_adopted_comes_back_equal(quick_buffer: Buffer, snapshot: Snapshot) -> None:
    chat = Chat(quick_buffer, "owner", f"chat{next(_numbers)}", checked=False)
    base = of_chat(chat, snapshot)
    staged = stage("owner", chat.place.id, base, 0, quick_buffer.stale)
    assert quick_buffer.adopt(chat.place, staged, quick_buffer.epoch(chat.place)) == "ok"
    chat.check()
    assert by_id(read_back(chat)) == by_id(base)
    assert chat.due() == []
    # Changed in the buffer and flushed, an item differs in version and time alone.
    if base.messages and base.messages[0].deleted_ms is None:
        out = chat.put("m", base.messages[0].id, rev=2**53 - 1, st="complete")
        if out.outcome == "accepted":
            [(_, given_row)] = chat.peek([f"{chat.place.hex}/m/{base.messages[0].id}"])
            assert given_row.version == out.version > base.messages[0].version
            assert given_row.parts == base.messages[0].parts  # type: ignore[union-attr]


def test_adoption_keeps_links_that_wait(chat: Chat) -> None:
    chat.put("t", "t1", message_id="m1")
    chat.put("a", "a1", message_id="m1", content="x")
    chat.put("t", "t2", message_id="m2")
    chat.put("m", "m2")
    chat.flush()
    assert chat.evict() == 1
    assert chat.adopt() == "ok"
    chat.put("m", "m1")
    kept = chat.message("m1")
    assert (kept.tool_result_ids, kept.artifact_ids) == (("t1",), ("a1",))
    assert "l/m2" not in chat.check()


def test_adoption_keeps_deadlines(chat: Chat) -> None:
    tool = {"type": "tool-x", "toolCallId": "c1", "state": "input-available"}
    asked = {"type": "tool-x", "toolCallId": "c2", "state": "approval-requested"}
    chat.put("m", "m1", st="streaming", parts=[tool, {"type": "text", "text": "x", "state": "streaming"}])
    chat.put("m", "m2", parts=[tool, asked])
    chat.put("m", "m3", parts=[tool])
    chat.put("m", "m4", st="pending")
    chat.put("t", "m3.c1", state="output-available", message_id="m3")
    chat.put("t", "t9", state="approval-requested")
    chat.put("t", "t8", state="output-available", preliminary=True)
    chat.put("t", "r", state="output-available", tool_call_id="c2", message_id="m2")
    chat.flush()
    before = {
        name: (row.get("o"), row.get("q"), row.get("rk")) for name, row in chat.check().items() if name != "h"
    }
    # An open conversation leaves the buffer only by losing it.
    chat.buffer.client.flushall()
    chat.buffer.initialise()
    assert chat.adopt() == "ok"
    after = {
        name: (row.get("o"), row.get("q"), row.get("rk")) for name, row in chat.check().items() if name != "h"
    }
    for name, (deadline, waits, rank) in before.items():
        assert after[name][1:] == (waits, rank), name
        assert (after[name][0] is None) == (deadline is None), name


# ------------------------------------------------------------------ guards
def test_a_base_loaded_before_an_eviction_is_not_installed_after_it(chat: Chat) -> None:
    """Prevents: a base older than a commit since."""
    chat.put("m", "m1", content="old")
    chat.flush()
    chat.evict()
    epoch = chat.buffer.epoch(chat.place)
    old = stage("owner", "chat", chat.store.snapshot(), 0, chat.buffer.stale)
    chat.put("m", "m1", content="new")
    chat.flush()
    assert chat.buffer.adopt(chat.place, old, epoch) == "hot"
    assert chat.evict() == 1
    assert chat.buffer.adopt(chat.place, old, epoch) == "moved"
    assert chat.check() == {}
    assert chat.buffer.client.keys("*s[cb]:*") == []
    assert chat.adopt() == "ok"
    assert chat.message("m1").content == "new"


def test_a_save_on_a_cold_conversation_needs_the_epoch_at_which_postgres_had_nothing(chat: Chat) -> None:
    """Prevents: a save between load and installation of a base."""
    epoch = chat.buffer.epoch(chat.place)
    reply = chat.buffer.save(chat.place, [put("m", "m1")])
    assert (reply.s, reply.p) == ("cold", epoch)
    other = Chat(chat.buffer, "owner", "other")
    while other.place.keys is not chat.place.keys:
        other = Chat(chat.buffer, "owner", other.place.id + "x")
    other.put("m", "m1")
    other.flush()
    assert other.evict() == 1
    assert chat.buffer.save(chat.place, [put("m", "m1")], base=epoch).s == "cold"
    assert chat.buffer.save(chat.place, [put("m", "m1")], base=epoch + 1).s == "done"


def test_a_half_staged_base_is_not_installed(chat: Chat) -> None:
    chat.put("m", "m1", content="x")
    chat.flush()
    chat.evict()
    staged = stage("owner", "chat", chat.store.snapshot(), 0, chat.buffer.stale)
    staged.header["rows"] += 1
    assert chat.buffer.adopt(chat.place, staged, chat.buffer.epoch(chat.place)) == "lost"
    assert chat.check() == {}


def test_staging_goes_by_itself_and_is_installed_without_a_lifetime(chat: Chat) -> None:
    chat.put("m", "m1", content="x", parts=[{"type": "text", "text": "x"}])
    chat.flush()
    chat.evict()
    keys, uid = chat.place.keys, chat.place.hex
    from models.buffer.scripts import call

    call(
        chat.buffer.client,
        "stage",
        [keys.staged_rows(uid, "t"), keys.staged_bodies(uid, "t")],
        [STAGING_MS, 1, "a", "b", "c", "d"],
    )
    for key in (keys.staged_rows(uid, "t"), keys.staged_bodies(uid, "t")):
        assert STAGING_MS - 5000 < chat.buffer.client.pttl(key) <= STAGING_MS
    assert chat.buffer.client.hgetall(keys.staged_rows(uid, "t")) == {b"a": b"b"}
    assert chat.buffer.client.hgetall(keys.staged_bodies(uid, "t")) == {b"c": b"d"}
    assert chat.buffer.read(chat.place).head.s == "cold"
    assert chat.adopt() == "ok"  # the recount finds no lifetime


def test_a_base_is_staged_in_pieces(chat: Chat) -> None:
    for number in range(9):
        chat.put("m", f"m{number}", content="x" * 400_000, metadata={"n": number})
    chat.flush()
    chat.evict()
    staged = stage("owner", "chat", chat.store.snapshot(), 0, chat.buffer.stale)
    pieces = [list(map(list, piece)) for piece in _pieces(staged)]
    assert len(pieces) > 3
    for rows, bodies in pieces:
        assert sum(len(name) + len(value) for name, value in [*rows, *bodies]) <= STAGING_PIECE_BYTES
    assert [field for rows, _ in pieces for field in rows] == staged.rows
    assert [field for _, bodies in pieces for field in bodies] == staged.bodies
    assert chat.adopt() == "ok"
    assert chat.message("m8").content == "x" * 400_000


def test_nothing_can_be_adopted_as_nothing(chat: Chat) -> None:
    assert chat.adopt() == "ok"
    assert chat.check()["h"]["n"] == 0
    assert chat.put("m", "m1").outcome == "accepted"


# ------------------------------------------------------------------ the buffer was rolled back
@pytest.fixture
def suspect(chat: Chat) -> Chat:
    """Hot under another buffer epoch: the server was started anew, from whatever its disk held."""
    chat.put("c", "", title="t")
    for name in ("same", "dirty-same", "older", "dirty-older", "newer", "clean-newer", "lost"):
        chat.put("m", name, content=name, metadata={"x": 1}, parts=[{"type": "text", "text": name}])
    return chat


def restart(chat: Chat) -> None:
    """As a start on another server: a new buffer epoch."""
    for keys in chat.buffer.partitions:
        chat.buffer.client.hset(keys.meta, "run", "another")
    chat.buffer.initialise()


def test_a_conversation_of_another_buffer_epoch_is_suspect_until_adopted_again(suspect: Chat) -> None:
    suspect.flush()
    restart(suspect)
    assert suspect.buffer.save(suspect.place, [put("m", "m1")]).s == "suspect"
    assert suspect.buffer.read(suspect.place).head.s == "suspect"
    assert suspect.adopt() == "merged"
    assert suspect.buffer.read(suspect.place).head.s == "ok"
    assert suspect.put("m", "m1").outcome == "accepted"
    assert suspect.adopt() == "hot"
    assert suspect.adopt(force=True) == "merged"


def test_with_postgres_away_a_suspect_conversation_may_be_read_and_says_so(suspect: Chat) -> None:
    restart(suspect)
    head = suspect.buffer.read(suspect.place, trust=True).head
    assert (head.s, head.suspect, head.partial) == ("ok", True, False)


def test_rows_are_merged_by_version(suspect: Chat) -> None:
    chat = suspect
    peeked = {ref[33:]: row for ref, row in chat.peek()}

    def stored(name: str, by: int, content: str) -> None:
        row = peeked[f"m/{name}"]
        row = msgspec.structs.replace(row, version=row.version + by, content=content)  # type: ignore[call-arg]
        chat.store.rows[f"m/{name}"] = row

    chat.flush()
    for name in ("dirty-same", "dirty-older", "newer"):
        chat.put("m", name, content="changed here")
    chat.put("m", "here-only", content="here")
    chat.append("here-only", 4, "")
    peeked.update({ref[33:]: row for ref, row in chat.peek()})
    stored("dirty-same", 0, "changed here")
    stored("older", 10**9, "changed there")
    stored("dirty-older", 10**9, "changed there")
    stored("clean-newer", -1, "before")
    stored("newer", -1, "before")
    del chat.store.rows["m/lost"]
    chat.store.rows["m/there-only"] = msgspec.structs.replace(peeked["m/same"], id="there-only")  # type: ignore[call-arg]
    restart(chat)
    assert chat.adopt() == "merged"

    rows = chat.check()
    contents = {name[2:]: chat.message(name[2:]).content for name in rows if name.startswith("m/")}
    assert contents == {
        "same": "same", "dirty-same": "changed here", "older": "changed there", "dirty-older": "changed there",
        "newer": "changed here", "clean-newer": "clean-newer", "lost": "lost", "here-only": "here", "there-only": "same",
    }  # fmt: skip
    changed = {name[2:] for name, row in rows.items() if name.startswith("m/") and "y" in row}
    assert changed == {"newer", "clean-newer", "lost", "here-only"}
    assert rows["h"]["last"] >= max(row.version for row in chat.store.rows.values())
    chat.flush()
    assert chat.evict() == 1
    assert chat.adopt() == "ok"
    assert {m.id: m.content for m in read_back(chat).messages} == contents


def test_a_rolled_back_open_message_is_superseded_with_its_chunks_and_index_entries(chat: Chat) -> None:
    chat.put("m", "m1", st="streaming", content="a", parts=[{"type": "text", "text": "p"}])
    for step in range(20):
        chat.append("m1", 1 + step, "b")
    row: Any = chat.message("m1")
    for status, open_now in (("complete", False), ("streaming", True)):
        version = chat.header()["last"] + 10
        chat.store.rows["m/m1"] = msgspec.structs.replace(
            row, status=status, content="there", version=version
        )
        restart(chat)
        assert chat.adopt() == "merged"
        assert chat.message("m1").content == "there"
        assert ("o" in chat.row("m/m1")) == open_now
    chat.flush()


def test_a_dead_letter_that_postgres_has_by_now_is_none(chat: Chat) -> None:
    chat.put("m", "m1", content="a")
    chat.put("m", "m2", content="a")
    committed = chat.commit(chat.peek())
    for ref, version in committed:
        if not ref.endswith("/c/"):
            assert chat.buffer.bury(ref, version, "{}")
    chat.store.rows["m/m2"] = msgspec.structs.replace(chat.message("m2"), version=chat.header()["last"] + 9)
    assert chat.adopt(force=True) == "merged"
    assert chat.header().get("dead", 0) == 0


@pytest.mark.parametrize("message_here", [True, False])
def test_links_meet_their_message_over_a_rollback(chat: Chat, message_here: bool) -> None:
    """One side has the result (and word for its message), the other side has the message."""
    chat.put("t", "t0", message_id="m1")
    chat.flush()
    there = Chat(chat.buffer, "owner", "chat")
    if message_here:
        # Postgres has t1, the buffer lost it; the message is only here.
        chat.store.rows["t/t1"] = msgspec.structs.replace(chat.store.rows["t/t0"], id="t1")  # type: ignore[call-arg]
        chat.put("m", "m1")
    else:
        # Postgres has the message, the buffer lost it; t1 is only here.
        chat.put("t", "t1", message_id="m1")
        template = of_chat(chat, Snapshot(conversation=None)).messages
        assert template == ()
        from models.core.records import Message

        chat.store.rows["m/m1"] = Message(
            conversation_uid=chat.place.uid, id="m1", role="assistant", position="1", status="complete",
            tool_result_ids=("t0",), version=5, created_ms=1, updated_ms=1,
        )  # fmt: skip
    restart(chat)
    assert chat.adopt() == "merged"
    assert recount(there.buffer, there.place) is not None
    assert chat.message("m1").tool_result_ids == ("t0", "t1")
    assert "y" in chat.row("m/m1")


@pytest.mark.parametrize("deleted", ["here", "there"])
def test_a_conversation_deleted_on_either_side_is_deleted(chat: Chat, deleted: str) -> None:
    chat.put("m", "m1", st="streaming", content="x")
    chat.put("a", "a1", content="v", message_id="m9")
    chat.flush()
    chat.put("m", "m2", content="poison")
    chat.buffer.bury(f"{chat.place.hex}/m/m2", chat.message("m2").version, "{}")
    own: Any = chat.record_of("c/")
    if deleted == "here":
        chat.delete("c")
    else:
        chat.store.rows["c/"] = msgspec.structs.replace(own, version=chat.header()["last"] + 5, deleted_ms=9)
    restart(chat)
    assert chat.adopt() == "merged"
    assert set(chat.check()) == {"h", "c/"}
    assert chat.send(put("m", "m1", content="late")).s == "gone"
