"""What must hold of a conversation in the buffer after every script: counters equal a recount, no stray field, no index
entry without its reason.

Everything is derived anew from the raw rows, without the scripts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from models.buffer.buffer import Buffer, Place
from models.core.commands import utf16_units

FAN = 16
PART_BYTES = 256
LINK_BYTES = 16
OPEN = ("pending", "streaming")
COUNTED = ("m", "t", "a")


def _unpack(raw: bytes) -> Any:
    return msgspec.msgpack.decode(raw)


def chunk_fields(field: str, chunks: int) -> Iterator[str]:
    """Fields of a growing text's chunks, oldest first."""
    digits = []
    while chunks:
        chunks, digit = divmod(chunks, FAN)
        digits.append(digit)
    for level in reversed(range(len(digits))):
        for digit in range(digits[level]):
            yield f"{field}+{level}.{digit}"


def _check_text(bodies: dict[str, bytes], field: str, grown: list[int], base: bool, where: str) -> set[str]:
    """A growing text: its chunks are there, and what is cached of it is right. Returns its fields."""
    fields = [*([field] if base else []), *chunk_fields(field, grown[0])]
    text = b"".join(bodies[name] for name in fields)
    assert len(text) == grown[2], f"{where}: {len(text)} bytes, cached {grown[2]}"
    assert utf16_units(text.decode()) == grown[1], f"{where}: units"
    return set(fields)


def links_of(row: dict[str, Any]) -> int:
    """Bytes that a row's links count."""
    return sum(LINK_BYTES + len(item_id) for field in ("lr", "la") for item_id in row.get(field, ()))


def _check_bodies(name: str, row: dict[str, Any], bodies: dict[str, bytes]) -> set[str]:
    """An item's bodies against its row. Returns the fields that belong to it."""
    expected: set[str] = set()
    size = 0
    grown = row.get("g", {})
    for field, (units, length) in row.get("k", {}).items():
        full = f"{name}/{field}"
        expected.add(full)
        assert len(bodies[full]) == length, f"{full}: bytes"
        assert utf16_units(bodies[full].decode()) == units, f"{full}: units"
        if not (field == "content" and "c" in grown):
            size += length
    if "c" in grown:
        base = "content" in row.get("k", {})
        expected |= _check_text(bodies, f"{name}/content", grown["c"], base, name)
        size += grown["c"][2]
    part_bytes = 0
    for i in range(row.get("n") or 0):
        skeleton, units, length, *_ = _unpack(bodies[f"{name}/#{i}"])
        expected.add(f"{name}/#{i}")
        part_bytes += len(skeleton if isinstance(skeleton, bytes) else skeleton.encode())
        assert (units >= 0) == (f"{name}/={i}" in bodies), f"{name}/={i}"
        if units >= 0:
            text = grown.get(str(i), [0, units, length])
            expected |= {f"{name}/={i}"} | _check_text(bodies, f"{name}/={i}", text, True, f"{name}/={i}")
            part_bytes += text[2]
    assert all(ref == "c" or int(ref) < (row.get("n") or 0) for ref in grown), (
        f"{name}: grows beyond its parts"
    )
    assert (row.get("pb") or 0) == part_bytes, f"{name}: pb"
    size += part_bytes + PART_BYTES * (row.get("n") or 0) + links_of(row)
    assert (row.get("b") or 0) == size, f"{name}: b"
    return expected


def recount(buffer: Buffer, place: Place, *, image: bool = False) -> dict[str, Any] | None:
    """Check one conversation (or its image of blind saves); returns its rows, unpacked, or None where it is cold."""
    client, keys, uid = buffer.client, place.keys, place.hex
    rows_key = keys.image_rows(uid) if image else keys.rows(uid)
    bodies_key = keys.image_bodies(uid) if image else keys.bodies(uid)
    raw: dict[str, bytes] = {k.decode(): v for k, v in client.hgetall(rows_key).items()}
    bodies: dict[str, bytes] = {k.decode(): v for k, v in client.hgetall(bodies_key).items()}
    if not raw:
        assert not bodies, "bodies without rows"
        if not image:
            assert client.zscore(keys.idle, uid) is None, "idle entry of a cold conversation"
            for index in (keys.due, keys.open):
                assert not _members(buffer, index, uid), f"{index} of a cold conversation"
        return None
    rows: dict[str, Any] = {name: _unpack(value) for name, value in raw.items()}
    header = rows.pop("h")
    expected: set[str] = set()
    for name, row in rows.items():
        kind, item_id = name.split("/", 1)
        if kind == "v":
            expected.add(name)
            assert len(bodies[name]) == row["b"], name
            assert "y" in row, f"{name} is stored and still here"
        elif kind == "l":
            assert f"m/{item_id}" not in rows, f"{name} waits though the message is there"
            assert "v" not in row, name
            assert row["b"] == links_of(row) > 0, f"{name}: b"
            continue
        else:
            expected |= _check_bodies(name, row, bodies)
            _check_status(name, row)
        assert row["v"] <= header["last"], f"{name} is newer than its conversation"
        assert (row.get("z") or 0) <= row["v"], f"{name}: Postgres is ahead"
        assert "y" in row or (row.get("z") or 0) == row["v"], f"{name} is clean and not stored"
    assert set(bodies) == expected, f"stray {set(bodies) - expected}, missing {expected - set(bodies)}"

    counted = [row for name, row in rows.items() if name[0] in COUNTED]
    sized = [row for name, row in rows.items() if name[0] in (*COUNTED, "c", "l")]
    found = {name: header.get(name) or 0 for name in ("n", "bytes", "dirty", "dead", "open")}
    assert found == {
        "n": len(counted),
        "bytes": sum(row.get("b") or 0 for row in sized),
        "dirty": sum("y" in row for row in rows.values()),
        "dead": sum("x" in row for row in rows.values()),
        "open": sum("o" in row for row in rows.values()),
    }, "the header's counters"

    if not image:
        assert client.ttl(rows_key) == -1, "the conversation would expire"
        assert client.ttl(bodies_key) in (-1, -2), "the bodies would expire"
        assert client.zscore(keys.idle, uid) is not None, "no idle entry"
        due = {name for name, row in rows.items() if "y" in row and "x" not in row}
        assert set(_members(buffer, keys.due, uid)) == due, "due"
        assert _members(buffer, keys.open, uid) == {
            name: row["o"] for name, row in rows.items() if "o" in row
        }, "open"
        dead = {m.decode()[33:] for m in client.hkeys(keys.dead) if m.decode().startswith(uid)}
        assert dead == {name for name, row in rows.items() if "x" in row}, "dead"
    return {"h": header, **rows}


def _check_status(name: str, row: dict[str, Any]) -> None:
    if name[0] == "c":
        return
    assert ("sf" in row) <= (row["st"] == "interrupted"), f"{name}: settled and {row['st']}"
    assert row["st"] in OPEN or "g" not in row, f"{name}: finished and still growing"
    if row["st"] in OPEN and "d" not in row:
        assert "o" in row, f"{name}: open without a deadline"
    if "d" in row:
        assert not {"k", "g", "n", "q", "o"} & set(row), f"{name}: a tombstone that holds something"
    for field in ("f", "k", "g", "q"):
        assert row.get(field) != [], f"{name}: {field} would come back as an array"


def _members(buffer: Buffer, index: str, uid: str) -> dict[str, int]:
    found: Any = buffer.client.zrange(index, 0, -1, withscores=True)
    return {m.decode()[33:]: int(score) for m, score in found if m.decode().startswith(uid)}


def recount_blind(buffer: Buffer, place: Place) -> None:
    """The journal, its image and its index entry exist together or not at all."""
    client, keys, uid = buffer.client, place.keys, place.hex
    journal = client.llen(keys.journal(uid))
    image = recount(buffer, place, image=True)
    assert (journal > 0) == (image is not None) == (client.zscore(keys.blind, uid) is not None)
