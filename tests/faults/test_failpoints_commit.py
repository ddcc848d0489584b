"""COMMIT, when the wire or the writer fails at it: its answer lost, the lease lost before it, a writer that wakes up late.

Between the worker and Postgres stands a proxy (proxy.py); what is trapped is the transaction of this test's conversation,
known by the words it carries. Another flusher, with a way of its own to Postgres, takes the partition over.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import psycopg
import pytest

from tests.faults.processes import Chat
from tests.faults.proxy import COMMIT, SYNC
from tests.servers import eventually

FULL = os.environ.get("BLOTTER_TEST_TIER") == "full"


def said(chat: Chat, word: str) -> dict[str, Any]:
    """The second message, with words that name this test on the wire."""
    return {"id": "m2", "role": "user", "content": f"{word} {chat.id}"}


def failed(chat: Chat) -> int:
    """Flushes ended by a transient error so far."""
    return int(chat.blotter.rig.crew.partitions.counters().get("failed", 0))


@pytest.mark.parametrize("when", ["after", "before"])
def test_a_commit_without_an_answer_is_made_again_and_harmless(chat: Chat, when: str) -> None:
    rig, proxy = chat.blotter.rig, chat.blotter.proxy
    message = said(chat, "words")
    before = failed(chat)
    cut = proxy.cut_after if when == "after" else proxy.cut_before
    trap = cut(COMMIT, having=message["content"].encode())
    with chat.unflushed():
        chat.save(message)
        saved = rig.crew.partitions.version_of(chat.keys, f"{chat.hex}/m/m2")
    chat.ring()
    trap.wait()
    eventually(lambda: failed(chat) > before)
    chat.ring()
    expected = {"m1": "old", "m2": message["content"]}
    eventually(lambda: rig.stored_texts(chat.id) == expected, within_s=20)
    chat.blotter.assert_kept(chat.id, expected)
    assert rig.stored(chat.id)["m2"].version == saved


def test_a_lease_lost_during_commit_makes_the_stale_writer_harmless(chat: Chat) -> None:
    """It stands in its transaction when the lease ends. The next flusher waits for its rows; then both commit, in order."""
    rig = chat.blotter.rig
    stale, newer = said(chat, "stale"), said(chat, "newer")
    trap = chat.blotter.proxy.hold_at(COMMIT, having=stale["content"].encode())
    chat.save(stale)
    chat.ring()
    trap.wait()
    rig.expire_lease(chat.id)
    with chat.unflushed():
        chat.save(newer)
    second = threading.Thread(target=rig.flush_once, args=(chat.id,))
    second.start()
    eventually(lambda: sessions(rig.database_url, "wait_event_type = 'Lock'") > 0)
    assert rig.stored_texts(chat.id) == {"m1": "old"}
    trap.release()
    second.join(20)
    expected = {"m1": "old", "m2": newer["content"]}
    eventually(lambda: rig.stored_texts(chat.id) == expected, within_s=20)
    chat.blotter.assert_kept(chat.id, expected)


@pytest.mark.skipif(
    not FULL, reason="waits for Postgres' own time-out of five seconds: BLOTTER_TEST_TIER=full"
)
def test_a_writer_that_stands_too_long_is_thrown_out_by_postgres(chat: Chat) -> None:
    """Its session is ended (idle in transaction, 5 s, below the lease), the next flusher goes on; its COMMIT fails."""
    rig = chat.blotter.rig
    stale, newer = said(chat, "stale"), said(chat, "newer")
    trap = chat.blotter.proxy.hold_at(COMMIT, having=stale["content"].encode())
    chat.save(stale)
    chat.ring()
    trap.wait()
    with chat.unflushed():
        chat.save(newer)
    rig.expire_lease(chat.id)
    assert sessions(rig.database_url, "state = 'idle in transaction'") == 1
    eventually(lambda: sessions(rig.database_url, "state = 'idle in transaction'") == 0, within_s=20)
    eventually(lambda: flushed(chat), within_s=20)
    assert rig.stored_texts(chat.id) == {"m1": "old", "m2": newer["content"]}
    trap.release()
    chat.blotter.assert_kept(chat.id, {"m1": "old", "m2": newer["content"]})


def test_a_writer_that_wakes_up_late_is_fenced_out(chat: Chat) -> None:
    """It had read its rows and begun; before its statement arrived, another wrote newer ones."""
    rig = chat.blotter.rig
    stale, newer = said(chat, "stale"), said(chat, "newer")
    trap = chat.blotter.proxy.hold_at(SYNC, having=stale["content"].encode())
    chat.save(stale)
    chat.ring()
    trap.wait()
    rig.expire_lease(chat.id)
    with chat.unflushed():
        chat.save(newer)
    assert flushed(chat)
    assert rig.stored_texts(chat.id) == {"m1": "old", "m2": newer["content"]}
    version = rig.stored(chat.id)["m2"].version
    trap.release()
    expected = {"m1": "old", "m2": newer["content"]}
    chat.blotter.assert_kept(chat.id, expected)
    assert rig.stored(chat.id)["m2"].version == version


def flushed(chat: Chat) -> bool:
    """Another flusher has had its turn."""
    chat.blotter.rig.end_pause(chat.id)
    return chat.blotter.rig.flush_once(chat.id).state == "done"


def sessions(database_url: str, which: str) -> int:
    """Sessions of the database of which `which` (SQL) is true."""
    with psycopg.connect(database_url) as connection:
        statement = f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {which}"
        found = connection.execute(statement).fetchone()  # type: ignore[call-overload]
    assert found is not None
    return int(found[0])
