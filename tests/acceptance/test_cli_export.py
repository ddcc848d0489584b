"""`blotter export` and `backfill` on real servers: what comes back is what was there, row by row; twice changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from models.core import commands as c
from models.postgres.erase import TABLES
from tests.acceptance.console import Console
from tests.flow.crews import CrewRig

PARTS = [
    {"type": "text", "text": "né \U0001f44b", "z": 1.0, "a": [1, 2.5, None]},
    {"type": "data-x", "b": {}, "a": 1},
]


def fill(chat: CrewRig, name: str, owner: str = "ann") -> None:
    """One of everything: links, JSON, an artifact with three contents, a deleted message."""
    chat.save(
        name, c.put("c", "", {"title": f"Title of {name}", "metadata": {"z": 1, "a": [1.0]}}), owner=owner
    )
    chat.save(name, c.put("m", "m1", {"role": "user", "content": 'line\n\u2028tab\t"q"'}), owner=owner)
    chat.save(name, c.put("m", "m2", {"role": "assistant", "parts": PARTS, "parent_id": "m1"}), owner=owner)
    chat.save(
        name,
        c.put("t", "m2.t1", {"message_id": "m2", "tool_name": "x", "output": {"b": 1, "a": 2}}),
        owner=owner,
    )
    for number in range(3):
        chat.save(name, c.put("a", "a1", {"message_id": "m2", "content": f"content {number}"}), owner=owner)
    chat.save(name, c.put("m", "m3", {"role": "user", "content": "deleted"}), owner=owner)
    chat.save(name, c.Delete("m", "m3"), owner=owner)


def tables(chat: CrewRig, owner: str) -> dict[str, list[Any]]:
    """Every row of an owner's in Postgres, as text; tombstones and purge's own columns aside."""
    with psycopg.connect(chat.database_url) as connection:
        return {
            table: connection.execute(
                f"SELECT to_jsonb(x) - 'purge_horizon' - 'emptied', x::text FROM {table} AS x"
                " WHERE conversation_uid IN (SELECT conversation_uid FROM conversations WHERE owner = %s)"
                + ("" if table == "artifact_versions" else " AND deleted_at IS NULL")
                + " ORDER BY 2",
                (owner,),
            ).fetchall()
            for table in TABLES
        }


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def test_what_was_erased_comes_back_as_it_was(chat: CrewRig, blotter: Console, tmp_path: Path) -> None:
    for name in ("c1", "c2"):
        fill(chat, name)
    fill(chat, "c1", owner="bob")
    path = tmp_path / "ann.jsonl"
    hot = blotter.json("export", "--owner", "ann", "-o", str(path))
    assert (hot["conversations"], hot["notFound"]) == (2, [])
    assert path.stat().st_mode & 0o777 == 0o600
    from_buffer = path.read_bytes()
    blotter("drain", "--timeout", "20")
    before, others = tables(chat, "ann"), tables(chat, "bob")
    for name in ("c1", "c2"):
        chat.evict(name)
    blotter("export", "--owner", "ann", "-o", str(path))
    assert path.read_bytes().splitlines()[1:] == from_buffer.splitlines()[1:], (
        "hot or cold makes no difference"
    )

    types = [line["type"] for line in lines_of(path)]
    assert types[:1] + types[-1:] == ["blotter-export", "end"]
    assert types.count("artifact-version") == 6
    assert types.count("message") == 4, "deleted ones are left out"
    assert "bob" not in path.read_text()

    blotter("erase", "ann", "--yes")
    assert not any(tables(chat, "ann").values())
    done = blotter.json("backfill", str(path))
    assert (done["written"], done["unchanged"], done["newer"]) == (len(types) - 2, 0, 0)
    assert tables(chat, "ann") == before
    assert tables(chat, "bob") == others
    again = blotter.json("backfill", str(path))
    assert (again["written"], again["unchanged"]) == (0, len(types) - 2)
    assert tables(chat, "ann") == before
    assert [text for _, text in chat.texts("c1")] == ['line\n\u2028tab\t"q"', None]
    view = chat.pipeline.read("ann", "c1")
    assert json.loads(view.messages[1].record.parts or "") == PARTS
    blotter("verify")
    second = tmp_path / "again.jsonl"
    blotter("export", "--owner", "ann", "-o", str(second))
    assert sorted(second.read_bytes().splitlines()[1:]) == sorted(from_buffer.splitlines()[1:])


def test_what_is_newer_here_stays_and_what_is_hot_learns_of_the_rest(
    chat: CrewRig, blotter: Console, tmp_path: Path
) -> None:
    fill(chat, "c1")
    path = tmp_path / "c1.jsonl"
    blotter("export", "--owner", "ann", "--conversation", "c1", "-o", str(path))
    blotter("erase", "ann", "--yes")
    chat.say("c1", "m1", "saved since")  # hot, dirty, newer
    done = blotter.json("backfill", str(path))
    assert done["written"] > 0
    texts = dict(chat.texts("c1"))
    assert texts["m1"] == "saved since"
    assert "m2" in texts, "a hot conversation shows what was put back"
    blotter("drain", "--timeout", "20")
    assert chat.stored_texts("c1")["m1"] == "saved since"
    done = blotter.json("backfill", str(path))
    assert (done["written"], done["newer"] > 0) == (0, True)
    chat.assert_clean("c1")
    blotter("verify")


def test_a_deleted_conversation_stays_deleted(chat: CrewRig, blotter: Console, tmp_path: Path) -> None:
    fill(chat, "c1")
    path = tmp_path / "c1.jsonl"
    blotter("export", "--owner", "ann", "-o", str(path))
    chat.save("c1", c.Delete("c", ""))
    blotter("drain", "--timeout", "20")
    done = blotter.json("backfill", str(path), exits=1)
    assert (done["deleted"], done["written"]) == (["c1"], 0)
    assert "left alone" in blotter("backfill", str(path), exits=1).stderr


def test_to_another_owner_on_request(chat: CrewRig, blotter: Console, tmp_path: Path) -> None:
    fill(chat, "c1")
    path = tmp_path / "c1.jsonl"
    blotter("export", "--owner", "ann", "-o", str(path))
    blotter("backfill", str(path), "--owner", "eve")
    assert [item.record.id for item in chat.pipeline.read("eve", "c1").messages] == ["m1", "m2"]
    assert len(chat.texts("c1")) == 2


def test_stdout_is_the_export_and_nothing_else(chat: CrewRig, blotter: Console) -> None:
    fill(chat, "c1")
    result = blotter("export", "--owner", "ann", "--conversation", "c1")
    assert [json.loads(line)["type"] for line in result.stdout.split("\n")[:-1]][-1] == "end"
    assert "1 conversation in" in result.stderr
    missing = blotter("export", "--owner", "ann", "--conversation", "c1", "--conversation", "no", exits=1)
    assert "ann has no conversation no" in missing.stderr
    other = blotter("export", "--owner", "bob", "--conversation", "c1", exits=1)
    assert [json.loads(line)["type"] for line in other.stdout.split("\n")[:-1]] == ["blotter-export", "end"]
    assert blotter.json("export", "--owner", "ann", exits=2).keys() == {"error"}


def test_every_page_of_an_owner_archived_ones_too(chat: CrewRig, blotter: Console) -> None:
    for number in range(105):
        chat.save(f"c{number}", c.put("c", "", {"title": "t", "archived": number % 3 == 0}))
    blotter("drain", "--timeout", "60")
    chat.say("c999", "m1", "not stored yet")
    found = [json.loads(line) for line in blotter("export", "--owner", "ann").stdout.split("\n")[:-1]]
    ids = [line["id"] for line in found if line["type"] == "conversation"]
    assert sorted(ids) == sorted([f"c{number}" for number in range(105)] + ["c999"])


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (lambda rows: rows.pop(), -1, "the file is cut off here"),
        (lambda rows: rows.pop(3), -1, "the end counts other lines"),
        (lambda rows: rows.insert(2, "{cut"), 3, "no JSON"),
        (lambda rows: rows.insert(2, "[]"), 3, "no object with a `type`"),
        (lambda rows: rows.insert(2, '{"type": "secret"}'), 3, "is none of conversation, message"),
        (lambda rows: rows.insert(3, rows[2]), 4, "comes twice"),
        (lambda rows: edit(rows, 2, role="robot"), 3, "`role` is none that there is"),
        (lambda rows: edit(rows, 2, status="gone"), 3, "`status` is none"),
        (lambda rows: edit(rows, 2, id="a/b"), 3, "`id` is no id"),
        (lambda rows: edit(rows, 2, content=5), 3, "content"),
        (lambda rows: edit(rows, 2, content="SECRET\0"), 3, "`content` holds U+0000"),
        (lambda rows: edit(rows, 2, version=0), 3, "`version` is none that a server's clock has made"),
        (lambda rows: edit(rows, 2, version=2**52), 3, "`version` is none that a server's clock has made"),
        (lambda rows: edit(rows, 2, createdAt="yesterday"), 3, "`createdAt` is no time"),
        (lambda rows: edit(rows, 2, conversationUid="x"), 3, "`conversationUid` is no field"),
        (lambda rows: edit(rows, 2, position=None), 3, "position"),
        (lambda rows: edit(rows, 0, type="other"), 1, "no export of Blotter"),
        (lambda rows: edit(rows, 0, format=2), 1, "`format` is not 1"),
        (lambda rows: rows.pop(1), 2, "an item before its conversation"),
        (lambda rows: rows.clear(), 1, "the file is empty"),
    ],
)
def test_one_bad_line_is_named_and_nothing_is_written(
    chat: CrewRig, blotter: Console, tmp_path: Path, change: Any, line: int, words: str
) -> None:
    fill(chat, "c1")
    path = tmp_path / "bad.jsonl"
    blotter("export", "--owner", "ann", "-o", str(path))
    rows = path.read_text().split("\n")[:-1]
    change(rows)
    path.write_text("".join(f"{row}\n" for row in rows))
    found = blotter.json("backfill", str(path), "--owner", "eve", exits=1)
    assert found["bad"], found
    assert any(words in bad["reason"] for bad in found["bad"]), found["bad"]
    assert found["bad"][0]["line"] == (line if line > 0 else len(rows)), found["bad"]
    said = blotter("backfill", str(path), "--owner", "eve", exits=1)
    assert f"{path}, line {found['bad'][0]['line']}: " in said.stderr
    assert "nothing was written" in said.stderr
    assert "SECRET" not in said.output
    assert not any(tables(chat, "eve").values())


def edit(rows: list[str], index: int, **fields: Any) -> None:
    rows[index] = json.dumps({**json.loads(rows[index]), **fields})


def test_a_row_that_postgres_refuses_is_told_and_the_others_arrive(
    chat: CrewRig, blotter: Console, tmp_path: Path
) -> None:
    for name in ("c1", "c2"):
        chat.say(name, "m1", f"poison {name}" if name == "c1" else "good")
    path = tmp_path / "two.jsonl"
    blotter("export", "--owner", "ann", "-o", str(path))
    blotter("erase", "ann", "--yes")
    chat.reject_poison()
    found = blotter.json("backfill", str(path), exits=1)
    assert [one["conversation"] for one in found["rejected"]] == ["c1"]
    assert chat.texts("c2") == [("m1", "good")]
    chat.accept_poison()
    assert blotter.json("backfill", str(path))["written"] == 2
    assert chat.texts("c1") == [("m1", "poison c1")]


def test_a_file_that_cannot_be_written_is_one_sentence_and_the_old_one_stays(
    chat: CrewRig, blotter: Console, tmp_path: Path
) -> None:
    fill(chat, "c1")
    result = blotter("export", "--owner", "ann", "-o", str(tmp_path / "no" / "x"), exits=2)
    assert ["cannot be written" in line for line in blotter.said(result)] == [True]
    path = tmp_path / "kept"
    path.write_text("old")
    blotter.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"
    blotter("export", "--owner", "ann", "-o", str(path), exits=2)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
