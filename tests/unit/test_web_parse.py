"""What `web.parse` takes, what it refuses, and that its scans never overlook what the exact reader would refuse."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from web import parse as module
from web.parse import MAX_DEPTH, Malformed, Refused, parse

REFUSED = {
    "a NUL character": (rb'{"a":[{"b":"x\u0000"}]}', "a.0.b"),
    "a NUL character in a name": (rb'{"a":{"x\u0000y":1}}', "a"),
    "a lone high surrogate": (rb'{"parts":[{"text":"a\ud83d"}]}', "parts.0.text"),
    "a lone low surrogate": (rb'{"s":"\udc00x"}', "s"),
    "surrogates the wrong way round": (rb'{"s":"\ude00\ud83d"}', "s"),
    "a surrogate in a name": (rb'{"m":{"\ud800":1}}', "m"),
    "NaN": (b'{"p":[1,NaN]}', "p.1"),
    "Infinity": (b'{"p":Infinity}', "p"),
    "minus Infinity": (b'{"p":-Infinity}', "p"),
    "1e400": (b'{"p":{"q":1e400}}', "p.q"),
    "-1e400": (b'{"p":-1e400}', "p"),
    "a 5,000-digit integer": (b'{"n":' + b"7" * 5000 + b"}", "n"),
    "a 300-digit integer": (b'{"n":[0,' + b"7" * 300 + b"]}", "n.1"),
    "2^64, silently a float in orjson": (b'{"n":18446744073709551616}', "n"),
    "2^63, unsigned in orjson": (b'{"n": 9223372036854775808}', "n"),
    "below -2^63": (b'{"n":-9223372036854775809}', "n"),
    "a name twice": (b'{"a":{"x":1,"x":1}}', "a.x"),
    "a name twice, once with a blank": (b'{"a":1,"b" :2,"b":3}', "b"),
    "a name twice, written differently": (rb'{"a":1,"\u0061":2}', "a"),
    "a name twice behind a backslash": (rb'{"a\\":1,"a\\":2}', "a\\"),
    "a name twice beside JSON in a string": (rb'{"s":"{\"s\":1}","t":2,"t":3}', "t"),
    "65 arrays": (b"[" * 65 + b"]" * 65, "0.0.0.0"),
    "65 objects": (b'{"a":' * 64 + b"{}" + b"}" * 64, "a.a.a.a"),
    "2,000 arrays": (b"[" * 2000 + b"]" * 2000, ""),
    "2,000 objects": (b'{"a":' * 2000 + b"1" + b"}" * 2000, ""),
    "200,000 open arrays": (b"[" * 200_000, ""),
}

MALFORMED = {
    "nothing": b"",
    "a word": b"hello",
    "a trailing comma": b'{"a":1,}',
    "two documents": b"{} {}",
    "a raw control character": b'{"a":"\x01"}',
    "a raw NUL": b'{"a":"\x00"}',
    "broken UTF-8": b'{"a":"\xff"}',
    "UTF-8 of half a surrogate pair": b'{"a":"\xed\xa0\x80"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "an open string": b'{"a":"b',
    "single quotes": b"{'a':1}",
    "a hex number": b'{"a":0x10}',
    "a leading zero": b'{"a":01}',
}

TAKEN = {
    "the bounds of int64": b'{"n":[-9223372036854775808,9223372036854775807]}',
    "digits in a string": b'{"id":"99999999999999999999999999"}',
    "long digits within a text": b'{"t":"see: 99999999999999999999, [99999999999999999999]"}',
    "a double with many digits": b'{"n":9223372036854775808.5}',
    "64 levels": b"[" * 64 + b"]" * 64,
    "an escaped backslash before u0000": rb'{"s":"\\u0000"}',
    "JSON inside a string": rb'{"arguments":"{\"a\":{\"a\":1}}"}',
    "a text that begins with a colon": b'{"text":": "}',
    "blanks everywhere": b'{ "a" : [ 1 , 2 ] ,\r\n\t"b" : { } }',
    "an emoji as a pair of escapes": rb'{"s":"\ud83d\ude00"}',
    "the same name in different objects": b'[{"a":1},{"a":2}]',
    "a tiny number": b'{"n":1e-400}',
}


@pytest.mark.parametrize(("raw", "field"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_kept_is_refused_and_the_field_named(raw: bytes, field: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(raw)
    assert refused.value.field == field


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_json_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse(raw)


@pytest.mark.parametrize("raw", TAKEN.values(), ids=TAKEN.keys())
def test_what_can_be_kept_is_taken_as_written(raw: bytes) -> None:
    assert parse(raw) == json.loads(raw)


def test_malformed_says_where_and_repeats_no_text() -> None:
    with pytest.raises(Malformed, match=r"line 2, column \d+") as malformed:
        parse(b'{"a": 1,\n"secret words": }')
    assert "secret" not in str(malformed.value)


def test_keys_keep_their_order() -> None:
    assert list(parse(b'{"b":1,"a":2,"c":3}')) == ["b", "a", "c"]


def test_an_ordinary_body_never_meets_the_slow_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_read_slowly", lambda text: pytest.fail("slow"))
    body = {
        "id": "msg_1763800000123",
        "content": 'He said: "it costs 12,50 :-)", naïve 🎉\n' * 40,
        "parts": [{"type": "text", "text": "x"}, {"type": "tool-x", "input": {"q": '{"a": 1}'}}],
        "metadata": {"ts": 1763800000123, "cost": 0.25},
    }
    for raw in (json.dumps(body), json.dumps(body, indent=2), json.dumps(body, ensure_ascii=False)):
        assert parse(raw.encode()) == body


def test_breadth_costs_no_more_than_reading() -> None:
    """A million numbers and one NUL: the exact reader keeps one path, not one for each number."""
    with pytest.raises(Refused) as refused:
        parse(b"[" + b"1," * 200_000 + rb'"\u0000"]')
    assert refused.value.field == "200000"


@pytest.mark.parametrize(
    "raw", [b'"' + b'\\"' * 32_000, b'{"a":"' + b'\\"[' * 21_000], ids=["a text", "in an object"]
)
def test_a_string_that_never_ends_costs_no_more_than_reading(raw: bytes) -> None:
    """64 KiB are read on the event loop, which all savers share: looked through again from each quote they took a minute."""
    began = time.monotonic()
    with pytest.raises(Malformed, match="Unterminated string"):
        parse(raw)
    assert time.monotonic() - began < 2


NAMES = st.sampled_from(["a", "b", '":', "\\", "\\\\", 'x"', ": ", "é", ""])
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(['":', '\\":', '{"a":1}', ": ", "\\", '\\"', "\0", "9" * 20, ",9" * 12, "[" + "9" * 20]),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(allow_nan=True),
    st.sampled_from([2**63, 2**63 - 1, -(2**63) - 1, 2**64, 10**400]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(st.tuples(NAMES, inner), max_size=3).map(tuple),
    ),
    max_leaves=8,
)


def written(value: Any, blanks: tuple[str, str], ascii_only: bool) -> str:
    """JSON text of ``value``; tuples are objects, whose names may repeat."""
    before, after = blanks
    if isinstance(value, tuple):
        members = (
            f"{json.dumps(name, ensure_ascii=ascii_only)}{before}:{after}{written(child, blanks, ascii_only)}"
            for name, child in value
        )
        return "{" + f"{before},{after}".join(members) + "}"
    if isinstance(value, list):
        return "[" + f"{before},{after}".join(written(child, blanks, ascii_only) for child in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def verdict(raw: bytes, reader: Any) -> Any:
    try:
        return "taken", repr(reader(raw))
    except Refused as refused:
        return "refused", refused.field


def exactly(raw: bytes) -> Any:
    module._read_slowly(raw.decode())
    return json.loads(raw)


@given(VALUES, st.sampled_from([("", ""), ("", " "), (" ", ""), ("\r\n", "\t")]), st.booleans())
@example((("a", 1), ("a", 2)), (" ", ""), True)
def test_the_quick_reader_decides_as_the_exact_one(
    value: Any, blanks: tuple[str, str], ascii_only: bool
) -> None:
    raw = written(value, blanks, ascii_only).encode()
    assert verdict(raw, parse) == verdict(raw, exactly)


@given(st.integers(min_value=1, max_value=2 * MAX_DEPTH), st.booleans())
def test_depth_is_counted_in_levels(depth: int, objects: bool) -> None:
    opening, closing = (b'{"a":', b"}") if objects else (b"[", b"]")
    raw = opening * depth + b"0" + closing * depth
    if depth <= MAX_DEPTH:
        assert parse(raw) == json.loads(raw)
    else:
        with pytest.raises(Refused):
            parse(raw)
