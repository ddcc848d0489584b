"""Bodies of every kind of oddity: what is acknowledged reads back identical, from the buffer and from Postgres; what is not
acknowledged is a 4xx that names the field. Nothing in between: no 5xx, no dead letter.
"""

from __future__ import annotations

import json
import os
from typing import Any

import hypothesis
import orjson
from hypothesis import strategies as st

from tests.flow.api import Api, fresh

EXAMPLES = 500 if os.environ.get("BLOTTER_TEST_TIER") == "full" else 40

#: Anything but half surrogate pairs, which no JSON in UTF-8 can hold raw; with what breaks parsers, columns and scripts.
ODD = st.sampled_from(
    ["\0", "\x01", "\x1f", "\x7f", "\u0085", "\u2028", "\ufeff", "\ufffe", "\uffff", "\U0010ffff", "e\u0301", "ﬃ",
     "\u202e", "👩‍👩‍👧‍👦", "İ", "\\u0000", "\\", '"', "'; DROP TABLE messages; --", "\r\n", "%s", "{0}", "\\x00", "$1", "NaN", "-0", "=1+1"]
)  # fmt: skip
TEXTS = st.lists(st.one_of(ODD, st.text(max_size=8)), max_size=6).map("".join)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, -0.0, 1e300, 5e-324, 2**53, 2**53 + 1, 2**63, 1e400]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
PARTS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"type": st.sampled_from(["text", "reasoning"]), "text": TEXTS}),
        st.fixed_dictionaries({"type": st.just("tool-x"), "toolCallId": TEXTS, "state": TEXTS, "input": VALUES}),
        st.dictionaries(TEXTS, VALUES, max_size=4),
    ),
    max_size=4,
)  # fmt: skip
DEPTH = st.integers(1, 80)


def raw(value: Any) -> bytes:
    """JSON as Python writes it, which also writes what orjson refuses: large integers, infinity."""
    return json.dumps(value, ensure_ascii=False).encode()


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


def holds(api: Api, path: str, body: dict[str, Any]) -> None:
    """Save it: either refused by field, and not there; or there, hot and cold, as it was sent."""
    conversation = fresh("odd")
    saved = api("PUT", f"{conversation}/{path}", raw=raw(body))
    if saved.status != 202:
        assert saved.status in (400, 413, 422), saved
        assert saved.status != 422 or saved.body["errors"][0]["field"], saved
        assert api("GET", conversation).status == 404
        return
    sent = {name: value for name, value in body.items() if value is not None}
    hot = api("GET", f"{conversation}/{path}/{body['id']}").body
    assert orjson.dumps({name: hot[name] for name in sent}) == orjson.dumps(sent)
    api.rig.evict(conversation)
    cold = api("GET", f"{conversation}/{path}/{body['id']}").body
    assert orjson.dumps({name: cold[name] for name in sent}) == orjson.dumps(sent)
    assert api.rig.buffer.client.hlen(api.rig.place(conversation).keys.dead) == 0


@hypothesis.settings(max_examples=EXAMPLES, derandomize=True, database=None)
@hypothesis.given(
    content=TEXTS, parts=st.none() | PARTS, metadata=st.none() | st.dictionaries(TEXTS, VALUES, max_size=4)
)
def test_messages_read_back_as_they_were_sent(api: Api, content: str, parts: Any, metadata: Any) -> None:
    body = {"id": "m", "role": "user", "content": content, "parts": parts, "metadata": metadata}
    holds(api, "messages", body)


@hypothesis.settings(max_examples=EXAMPLES, derandomize=True, database=None)
@hypothesis.given(given=VALUES, output=VALUES, error=TEXTS)
def test_tool_results_read_back_as_they_were_sent(api: Api, given: Any, output: Any, error: str) -> None:
    holds(api, "tool-results", {"id": "t", "input": given, "output": output, "errorText": error})


@hypothesis.settings(max_examples=EXAMPLES, derandomize=True, database=None)
@hypothesis.given(
    content=TEXTS,
    title=TEXTS,
    language=TEXTS,
    media_type=TEXTS,
    metadata=st.dictionaries(TEXTS, VALUES, max_size=3),
)
def test_artifacts_read_back_as_they_were_sent(
    api: Api, content: str, title: str, language: str, media_type: str, metadata: Any
) -> None:
    body = {"id": "a", "content": content, "title": title, "language": language, "mediaType": media_type}
    holds(api, "artifacts", {**body, "metadata": metadata})


@hypothesis.settings(max_examples=EXAMPLES // 2, derandomize=True, database=None)
@hypothesis.given(levels=DEPTH)
def test_depth_is_kept_or_refused(api: Api, levels: int) -> None:
    holds(api, "tool-results", {"id": "t", "output": deep(levels)})


@hypothesis.settings(max_examples=EXAMPLES, derandomize=True, database=None)
@hypothesis.given(
    body=st.binary(max_size=60) | st.binary(max_size=30).map(lambda tail: b'{"id":"m","content":"' + tail)
)
def test_bytes_of_any_kind_are_refused_or_kept_but_never_a_fault(api: Api, body: bytes) -> None:
    assert api("PUT", f"{fresh('bytes')}/messages", raw=body).status in (202, 400, 413, 422)


@hypothesis.settings(max_examples=EXAMPLES, derandomize=True, database=None)
@hypothesis.given(pieces=st.lists(TEXTS.filter(lambda text: "\0" not in text), min_size=1, max_size=8))
def test_text_that_grows_is_the_sum_of_what_was_appended(api: Api, pieces: list[str]) -> None:
    conversation = fresh("grows")
    stub = {"id": "m", "role": "assistant", "content": "", "status": "streaming"}
    length = api("PUT", f"{conversation}/messages", stub).body["length"]
    so_far = ""
    for piece in pieces:
        step = api("PATCH", f"{conversation}/messages/m", {"append": {"offset": length, "text": piece}})
        assert step.status == 202, step
        so_far += piece
        length = step.body["length"]
        assert length == len(so_far.encode("utf-16-le")) // 2
    assert api("GET", f"{conversation}/messages/m").body["content"] == "".join(pieces)
    saved = api(
        "PATCH",
        f"{conversation}/messages/m",
        {"append": {"offset": length, "text": ""}, "status": "complete"},
    )
    assert saved.status == 202
    api.rig.evict(conversation)
    assert api("GET", f"{conversation}/messages/m").body["content"] == "".join(pieces)
