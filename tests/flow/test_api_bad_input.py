"""What could never be kept is refused before the acknowledgement, by field, on every route that takes a body; and
nothing of it is stored.
"""

from __future__ import annotations

import gzip

import pytest

from tests.flow.api import Api, fresh
from web.operation import Operation
from web.routes import OPERATIONS

#: What stands in the place of a value -> status.
VALUES = {
    "a NUL character": (rb'"a\u0000b"', 422),
    "half a surrogate pair": (rb'"a\ud83d"', 422),
    "NaN": (b"NaN", 422),
    "Infinity": (b"-Infinity", 422),
    "1e400": (b"1e400", 422),
    "a 5,000-digit integer": (b"9" * 5000, 422),
    "2^64": (b"18446744073709551616", 422),
    "2,000 levels": (b"[" * 2000 + b"]" * 2000, 422),
    "66 levels": (b"[" * 66 + b"]" * 66, 422),
    "a name twice": (b'{"x":1,"x":2}', 422),
    "broken UTF-8": (b'"\xff\xfe"', 400),
    "a raw control character": (b'"a\x02"', 400),
    "a raw NUL": (b'"a\x00"', 400),
    "nothing": (b"", 400),
}
WRITERS = [operation for operation in OPERATIONS if operation.body is not None]
#: A body with one value left open, and the field it lies in.
BODIES = {
    "createConversation": (b'{"id":"ID","metadata":{"v":%s}}', "metadata.v"),
    "updateConversation": (b'{"metadata":{"v":%s}}', "metadata.v"),
    "saveUserMessage": (b'{"id":"m","role":"user","parts":[{"type":"text","text":%s}]}', "parts.0.text"),
    "saveOrUpdateMessage": (b'{"id":"m","metadata":%s}', "metadata"),
    "saveAssistantMessage": (b'{"part":{"index":0,"value":{"input":%s}}}', "part.value.input"),
    "saveToolResult": (b'{"id":"t","output":{"rows":[1,%s]}}', "output.rows.1"),
    "updateToolResult": (b'{"id":"t","input":%s}', "input"),
    "saveArtifact": (b'{"id":"a","content":%s}', "content"),
    "updateArtifact": (b'{"id":"a","metadata":{"k":%s}}', "metadata.k"),
    "appendToArtifact": (b'{"append":{"offset":0,"text":%s}}', "append.text"),
    "syncConversationState": (b'{"toolResults":[{"id":"t","output":%s}]}', "toolResults.0.output"),
    "putConversationState": (b'{"messages":[{"id":"m","role":"user","content":%s}]}', "messages.0.content"),
}


def address(operation: Operation, conversation: str) -> str:
    path = operation.path.replace("{conversationId}", conversation)
    return path.replace("{messageId}", "m1").replace("{artifactId}", "a1")


def test_every_route_that_takes_a_body_is_tried() -> None:
    assert set(BODIES) == {operation.id for operation in WRITERS}


@pytest.mark.parametrize("operation", WRITERS, ids=lambda operation: operation.id)
@pytest.mark.parametrize(("value", "status"), VALUES.values(), ids=VALUES.keys())
def test_what_cannot_be_kept_is_refused_by_field(
    api: Api, operation: Operation, value: bytes, status: int
) -> None:
    conversation = fresh()
    template, field = BODIES[operation.id]
    raw = template.replace(b"ID", conversation.encode()).replace(b"%s", value)
    refused = api(operation.method, address(operation, conversation), raw=raw)
    assert refused.status == status
    assert refused.body["type"] == ("/problems/invalid" if status == 422 else "/problems/malformed")
    if status == 422 and value.count(b"[") < 66:
        named = refused.body["errors"][0]["field"]
        assert named in {field, f"{field}.x"}
    assert api("GET", conversation).status == 404


@pytest.mark.parametrize("operation", WRITERS, ids=lambda operation: operation.id)
@pytest.mark.parametrize("raw", [b"[]", b"1", b"null", b'"text"', b"{", b'{"id":1,"nonsense":true}'])
def test_bodies_of_the_wrong_shape_are_refused(api: Api, operation: Operation, raw: bytes) -> None:
    conversation = fresh()
    assert api(operation.method, address(operation, conversation), raw=raw).status in {400, 422}
    assert api("GET", conversation).status == 404


@pytest.mark.parametrize("operation", WRITERS, ids=lambda operation: operation.id)
def test_20_mb_are_refused_with_the_limit(api: Api, operation: Operation) -> None:
    conversation = fresh()
    refused = api(operation.method, address(operation, conversation), raw=b" " * (20 * 1024**2))
    assert refused.status == 413
    assert refused.body["limit"] in {4 * 1024**2 + 64 * 1024, 16 * 1024**2}


@pytest.mark.parametrize("operation", WRITERS, ids=lambda operation: operation.id)
def test_compressed_bodies_and_other_types_are_refused(api: Api, operation: Operation) -> None:
    conversation = fresh()
    path = address(operation, conversation)
    compressed = api(operation.method, path, raw=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"})
    text = api(operation.method, path, raw=b"{}", headers={"Content-Type": "text/plain"})
    assert (compressed.status, text.status) == (415, 415)


def test_an_item_of_four_mebibytes_fits_and_one_beyond_is_refused(api: Api) -> None:
    conversation = fresh()
    fits = {"id": "m", "role": "user", "content": "x" * (4 * 1024**2 - 4096)}
    assert api("POST", f"{conversation}/messages", fits).status == 202
    beyond = {"id": "n", "role": "user", "content": "x" * (4 * 1024**2 + 1)}
    refused = api("POST", f"{conversation}/messages", beyond)
    assert (refused.status, refused.body["type"], refused.body["limit"]) == (
        413, "/problems/item-too-large", 4 * 1024**2,
    )  # fmt: skip
    assert api("GET", f"{conversation}/messages/n").status == 404


def test_metadata_comes_back_equal_in_value_and_order(api: Api) -> None:
    conversation = fresh()
    raw = (
        b'{"id":"m","role":"user","metadata":{"z":[9223372036854775807,-9223372036854775808,1e300,-0.0,0.1],'
        b'"a":{"\\u00e9\\ud83c\\udf89":"\\u2028\\"\\\\/","":null},"deep":[[[[[[]]]]]]}}'
    )
    assert api("POST", f"{conversation}/messages", raw=raw).status == 202
    import orjson

    expected = orjson.dumps(orjson.loads(raw)["metadata"])
    hot = api("GET", f"{conversation}/messages/m").body["metadata"]
    api.rig.evict(conversation)
    cold = api("GET", f"{conversation}/messages/m").body["metadata"]
    assert (orjson.dumps(hot), orjson.dumps(cold)) == (expected, expected)


@pytest.mark.parametrize("milliseconds", ["9999999999999999", "999999999999999", "253402300800000"])
def test_a_forged_cursor_is_refused_by_name(api: Api, milliseconds: str) -> None:
    refused = api("GET", f"/api/conversations?after={milliseconds}-{'f' * 32}")
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, "after")


def test_the_latest_cursor_that_passes_is_read(api: Api) -> None:
    assert api("GET", f"/api/conversations?after=249999999999999-{'f' * 32}").status == 200
