"""`blotter erase` on real servers: nothing of an owner is left, whatever state it was in; others keep every byte."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg

from models.core import commands as c
from models.identity import owner_tag
from models.pipeline.erase import Eraser
from models.postgres.erase import TABLES
from tests.acceptance.console import Console
from tests.acceptance.test_cli_export import fill, tables
from tests.flow.crews import CrewRig, crew_rig
from tests.servers import RunningPostgres, eventually, private_directory, start_valkey

NEEDLE = "NEEDLE-IN-EVERY-TEXT"


def dump(chat: CrewRig, *, of: str) -> dict[bytes, Any]:
    """Every key of the buffer that belongs to conversations of `of`, as the server would save it."""
    uids = {chat.place(f"c{number}", of).hex for number in range(8)}
    client = chat.buffer.client
    return {
        key: client.dump(key) for key in client.scan_iter("blotter:*") if key.decode().split(":")[-1] in uids
    }


def assert_no_trace(chat: CrewRig, owner: str, uids: list[str]) -> None:
    """Looked for by hand: in every key's name, every value of every type, every table."""
    client = chat.buffer.client
    wanted = [uid.encode() for uid in uids] + [owner_tag(owner).encode(), NEEDLE.encode()]
    for key in client.scan_iter("*"):
        kind = client.type(key)
        whole: Any = {
            b"hash": client.hgetall, b"zset": lambda k: client.zrange(k, 0, -1),
            b"list": lambda k: client.lrange(k, 0, -1), b"string": client.get,
        }[kind](key)  # fmt: skip
        text = key + repr(whole).encode()
        assert not [one for one in wanted if one in text], key
    with psycopg.connect(chat.database_url) as connection:
        for table in TABLES:
            found = connection.execute(f"SELECT x::text FROM {table} AS x").fetchall()
            for row in found:
                assert NEEDLE not in row[0]
                assert not [uid for uid in uids if uid in row[0].replace("-", "")]


def test_nothing_is_left_in_whatever_state_it_was(chat: CrewRig, blotter: Console) -> None:
    chat.reject_poison()
    fill(chat, "c0")  # hot and dirty
    fill(chat, "c1")  # cold
    chat.evict("c1")
    chat.say("c2", "m1", f"poison {NEEDLE}")  # a dead letter
    chat.flush_once("c2")
    chat.save(
        "c3", c.put("m", "r", {"role": "assistant", "content": NEEDLE}, status="streaming")
    )  # in flight
    fill(chat, "c4")  # deleted, stored
    chat.save("c4", c.Delete("c", ""))
    chat.flush("c4")
    broken = {"BLOTTER_STORE_CONNECT_MS": "50", "DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    with crew_rig(
        blotter.environ["REDIS_URL"], broken["DATABASE_URL"], BLOTTER_STORE_CONNECT_MS="50"
    ) as away:
        assert away.say("c5", "m1", NEEDLE).base == "unknown"  # a journal and its image
    place = chat.place("c6")
    chat.buffer.client.hset(place.keys.staged_rows(place.hex, "t"), "h", NEEDLE)  # an adoption that broke off
    chat.buffer.client.hset(place.keys.trial, f"{place.hex}/m/m1", 1)
    chat.buffer.client.hset("blotter:chores", "scan_after", f"m/{place.hex}/{NEEDLE}")
    chat.say("c6", "m1", NEEDLE)
    for name in ("c0", "c1", "c2"):
        fill(chat, name, owner="bob")
    chat.flush("c0", "bob")
    others, their_rows = dump(chat, of="bob"), tables(chat, "bob")
    assert len(others) >= 6

    done = blotter.json("erase", "ann", "--yes")
    assert done["erased"] is True
    assert not any(done["after"].values())
    before = done["before"]
    assert (before["deadLetters"], before["conversations"] >= 2, before["artifact_versions"] >= 3) == (
        1,
        True,
        True,
    )
    assert before["bufferKeys"] >= 12
    assert before["ownerIndexEntries"] >= 4
    assert done["appendOnlyFile"] == "rewritten"
    assert done["kept"]
    assert_no_trace(chat, "ann", [chat.place(f"c{number}").hex for number in range(7)])
    assert dump(chat, of="bob") == others, "not a byte of another owner's"
    assert tables(chat, "bob") == their_rows
    blotter("verify")
    again = blotter.json("erase", "ann", "--yes")
    assert not any(again["before"].values())


def test_it_asks_first_and_says_what_it_does_not_reach(chat: CrewRig, blotter: Console) -> None:
    fill(chat, "c0")
    for answer in ("n\n", ""):
        asked = blotter("erase", "ann", exits=1, answer=answer)
        assert "ann: 1 conversation, 0 rows in Postgres, " in asked.stderr
    assert len(chat.texts("c0")) == 2
    result = blotter("erase", "ann", answer="y\n")
    assert "a scan of the whole buffer and of all tables finds nothing of it" in result.stderr
    for word in ("backups of Postgres", "VACUUM", "replicas", "tokens"):
        assert word in result.stderr
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()[1:]}
    assert rows["bufferKeys"] == ["2", "0"]
    blotter("erase", " ", "--yes", exits=2)


def test_the_append_only_file_holds_nothing_of_it(
    postgres_server: RunningPostgres, template_database: str
) -> None:
    with (
        private_directory() as folder,
        start_valkey(folder) as server,
        postgres_server.new_database(template_database) as database_url,
        crew_rig(server.url, database_url) as chat,
    ):
        chat.say("c0", "m1", NEEDLE)
        chat.save("c0", c.put("m", "m1", {"role": "user", "content": "bob's own text"}), owner="bob")

        def kept(text: str) -> bool:
            return any(text.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())

        assert kept(NEEDLE)
        Console(chat)("erase", "ann", "--yes")
        # The server takes the old file away in the background.
        eventually(lambda: not kept(NEEDLE))
        server.kill()
        server.start()
        view = chat.pipeline.read("bob", "c0")
        assert [item.record.content for item in view.messages] == ["bob's own text"]


def test_saves_and_flushes_while_it_runs_are_found_by_the_next_look(chat: CrewRig) -> None:
    for number in range(6):
        fill(chat, f"c{number}")
    stop, saved = threading.Event(), [0]
    faults: list[BaseException] = []

    def work() -> None:
        crew = chat.another()
        try:
            while not stop.is_set() and saved[0] < 400:
                name = f"c{saved[0] % 6}"
                chat.say(name, f"n{saved[0]}", NEEDLE)
                crew.flusher.flush(chat.place(name).keys.number)
                saved[0] += 1
        except BaseException as error:  # noqa: BLE001 (raised where the test looks)
            faults.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    looks: list[Any] = []

    def progress(census: Any) -> None:
        looks.append(census)
        if len(looks) == 3:
            stop.set()
            thread.join()

    eventually(lambda: saved[0] > 10)
    erased = Eraser(chat.buffer, chat.pipeline.store, chat.rung.append).erase(
        "ann", within_s=60, progress=progress
    )
    assert faults == []
    assert any(not look.nothing for look in looks[1:3]), "it met what was saved meanwhile"
    assert erased.done, erased
    assert_no_trace(chat, "ann", [chat.place(f"c{number}").hex for number in range(6)])


def test_saves_that_never_stop_are_told_when_the_time_is_up(chat: CrewRig) -> None:
    chat.say("c0", "m1", "a")
    erased = Eraser(chat.buffer, chat.pipeline.store, chat.rung.append).erase(
        "ann", within_s=0, progress=lambda census: chat.say("c0", "m1", f"again {census}")
    )
    assert not erased.done
    assert erased.left.keys == 2


def test_a_base_loaded_before_is_not_installed_after(chat: CrewRig) -> None:
    """An adoption under way while its conversation is erased: the epoch refuses its base."""
    chat.say("c0", "m1", NEEDLE)
    chat.evict("c0")
    place = chat.place("c0")
    from models.buffer import codec

    epoch = chat.buffer.epoch(place)
    snapshot, horizon = chat.pipeline.store.base(place.uid)
    staged = codec.stage(place.owner, place.id, snapshot, horizon, chat.buffer.stale)
    erased = Eraser(chat.buffer, chat.pipeline.store, chat.rung.append).erase("ann", within_s=20)
    assert erased.done
    assert chat.buffer.adopt(place, staged, epoch) == "moved"


def test_a_flusher_at_work_is_waited_for(chat: CrewRig) -> None:
    fill(chat, "c0")
    keys = chat.place("c0").keys
    assert chat.buffer.begin(keys, "another").state == "taken"
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            chat.buffer.release(keys, "another")

    erased = Eraser(chat.buffer, chat.pipeline.store, chat.rung.append, pause=pause).erase("ann", within_s=20)
    assert erased.done
    assert len(waits) >= 3


def test_the_schema_has_no_table_that_erase_forgets(chat: CrewRig, tmp_path: Path) -> None:
    with psycopg.connect(chat.database_url) as connection:
        found = connection.execute(
            "SELECT DISTINCT table_name FROM information_schema.columns"
            " WHERE column_name = 'conversation_uid' AND table_schema = 'public'"
        ).fetchall()
    assert {row[0] for row in found} == set(TABLES)
