"""POST and PUT of tool results and artifacts, their items, links, steps and versions, through the real pipeline."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest

from tests.flow.api import Api, fresh

RESULT = {
    "id": "m2.call_1",
    "messageId": "m2",
    "toolCallId": "call_1",
    "toolName": "search",
    "state": "output-available",
    "input": {"query": "naïve 🎉", "z": 1, "a": [1e2, -0.5, None]},
    "output": [{"b": 1, "a": {"deep": [[]]}}, "text", 2**63 - 1],
    "errorText": None,
    "status": "complete",
    "statusReason": "ran",
    "revision": 1,
}
ARTIFACT = {
    "id": "art",
    "messageId": "m2",
    "kind": "code",
    "title": "Prime numbers",
    "language": "python",
    "mediaType": "text/x-python",
    "content": "<script>alert(1)</script>\nprint('é')",
    "metadata": {"b": 1, "a": 2},
    "status": "complete",
    "statusReason": "written",
    "revision": 1,
}
KINDS = {
    "tool-results": (RESULT, "toolResults", "toolResultIds"),
    "artifacts": (ARTIFACT, "artifacts", "artifactIds"),
}


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_one_is_kept_as_sent_and_linked_into_its_message(
    api: Api, chat: str, kind: str, method: str
) -> None:
    item, listed, links = KINDS[kind]
    saved = api(method, f"{chat}/{kind}", item)
    assert (saved.status, saved.body["outcome"], saved.body["id"]) == (202, "accepted", item["id"])
    read = api("GET", f"{chat}/{kind}/{item['id']}").body
    assert orjson.dumps({name: read[name] for name in item}) == orjson.dumps(item)
    whole = api("GET", chat).body
    assert [one["id"] for one in whole[listed]] == [item["id"]]
    assert whole["messages"][1][links] == [item["id"]]


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_changes_what_it_names_and_null_clears(api: Api, chat: str, kind: str) -> None:
    item, _, _ = KINDS[kind]
    api("POST", f"{chat}/{kind}", item)
    name = "output" if kind == "tool-results" else "content"
    assert api("PUT", f"{chat}/{kind}", {"id": item["id"], name: "new", "revision": 2}).status == 202
    read = api("GET", f"{chat}/{kind}/{item['id']}").body
    assert {**read, name: item[name], "revision": 1}.items() >= item.items()
    assert read[name] == "new"
    api("PUT", f"{chat}/{kind}", {"id": item["id"], name: None, "revision": 3})
    assert api("GET", f"{chat}/{kind}/{item['id']}").body[name] is None


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_old_revision_is_refused_with_the_current_item(
    api: Api, chat: str, kind: str, method: str
) -> None:
    item, _, _ = KINDS[kind]
    api("POST", f"{chat}/{kind}", {**item, "revision": 7})
    refused = api(method, f"{chat}/{kind}", {"id": item["id"], "status": "error", "revision": 6})
    assert (refused.status, refused.body["type"]) == (409, "/problems/stale-revision")
    assert refused.body["current"]["id"] == item["id"]
    assert refused.body["current"]["revision"] == 7


@pytest.mark.parametrize(
    ("kind", "change", "field"),
    [
        ("tool-results", {"state": "done"}, "state"),
        ("tool-results", {"messageId": "a b"}, "messageId"),
        ("tool-results", {"toolName": 1}, "toolName"),
        ("tool-results", {"content": "x"}, "content"),
        ("tool-results", {"id": None}, "id"),
        ("artifacts", {"content": {"not": "text"}}, "content"),
        ("artifacts", {"title": "x" * 1001}, "title"),
        ("artifacts", {"output": 1}, "output"),
        ("artifacts", {"status": "ready"}, "status"),
        ("artifacts", {"revision": -1}, "revision"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_invalid_ones_are_refused_by_field_and_nothing_is_stored(
    api: Api, method: str, kind: str, change: dict[str, Any], field: str
) -> None:
    conversation = fresh()
    refused = api(method, f"{conversation}/{kind}", {**KINDS[kind][0], **change})
    assert refused.status == 422
    assert field in [error["field"] for error in refused.body["errors"]]
    assert api("GET", conversation).status == 404


@pytest.mark.parametrize("kind", KINDS)
def test_deleted_ones_are_gone_and_stay_so(api: Api, chat: str, kind: str) -> None:
    item, listed, _ = KINDS[kind]
    api("POST", f"{chat}/{kind}", item)
    assert api("DELETE", f"{chat}/{kind}/{item['id']}").status == 204
    assert api("DELETE", f"{chat}/{kind}/{item['id']}").status == 204
    assert api("GET", f"{chat}/{kind}/{item['id']}").status == 410
    assert api("POST", f"{chat}/{kind}", {**item, "revision": 99}).status == 410
    assert api("GET", chat).body[listed] == []


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_listed_by_pages(api: Api, chat: str, kind: str) -> None:
    listed = KINDS[kind][1]
    for number in range(5):
        api("POST", f"{chat}/{kind}", {"id": f"i{number}"})
    first = api("GET", f"{chat}/{kind}?limit=3").body
    second = api("GET", f"{chat}/{kind}?limit=3&after={first['after']}").body
    assert [item["id"] for item in first[listed] + second[listed]] == [f"i{number}" for number in range(5)]
    assert second["after"] is None


def test_results_may_come_before_their_message(api: Api) -> None:
    conversation = fresh()
    api("POST", f"{conversation}/tool-results", RESULT)
    api("POST", f"{conversation}/artifacts", ARTIFACT)
    api("POST", f"{conversation}/messages", {"id": "m2", "role": "assistant"})
    message = api("GET", f"{conversation}/messages/m2").body
    assert (message["toolResultIds"], message["artifactIds"]) == (["m2.call_1"], ["art"])


def test_the_tool_call_id_is_the_id_where_none_was_sent(api: Api, chat: str) -> None:
    api("POST", f"{chat}/tool-results", {"id": "t9", "output": 1})
    assert api("GET", f"{chat}/tool-results/t9").body["toolCallId"] == "t9"


def test_a_final_result_is_not_undone_by_an_earlier_state(api: Api, chat: str) -> None:
    api("POST", f"{chat}/tool-results", {"id": "t", "state": "output-available", "output": "result"})
    api("PUT", f"{chat}/tool-results", {"id": "t", "state": "input-available"})
    assert api("GET", f"{chat}/tool-results/t").body["state"] == "output-available"


def test_an_artifact_streams_in_and_each_complete_content_is_a_version(api: Api, chat: str) -> None:
    path = f"{chat}/artifacts/doc"
    api("POST", f"{chat}/artifacts", {"id": "doc", "kind": "text", "content": "", "status": "streaming"})
    api("PATCH", path, {"append": {"offset": 0, "text": "one"}})
    done = api("PATCH", path, {"append": {"offset": 3, "text": "!"}, "status": "complete"})
    assert (done.status, done.body["length"]) == (202, 4)
    api("PUT", f"{chat}/artifacts", {"id": "doc", "content": "two", "revision": 1})
    pages = [api("GET", f"{path}/versions?limit=1").body]
    pages.append(api("GET", f"{path}/versions?limit=1&after={pages[0]['after']}").body)
    versions = [version for page in pages for version in page["versions"]]
    assert [(version["number"], version["content"]) for version in versions] == [(1, "one!"), (2, "two")]
    assert versions[1]["hash"] == hashlib.sha1(b"two").hexdigest()
    api.rig.flush(chat)
    assert [version["content"] for version in api("GET", f"{path}/versions").body["versions"]] == [
        "one!",
        "two",
    ]
    assert api("GET", path).body["versionNumber"] == 2


def test_versions_of_nothing_are_404(api: Api, chat: str) -> None:
    assert api("GET", f"{chat}/artifacts/none/versions").status == 404


def test_html_comes_only_inside_json(api: Api, chat: str) -> None:
    api("POST", f"{chat}/artifacts", ARTIFACT)
    read = api("GET", f"{chat}/artifacts/art", headers={"Accept": "text/html"})
    assert read.headers["Content-Type"] == "application/json"
    assert read.headers["X-Content-Type-Options"] == "nosniff"


def test_a_message_with_a_thousand_links_takes_no_more_and_says_so(api: Api, chat: str) -> None:
    full = {"id": "m2", "role": "assistant", "artifactIds": [f"other{number}" for number in range(1000)]}
    assert api("PUT", f"{chat}/messages", full).status == 202
    refused = api("PUT", f"{chat}/artifacts", ARTIFACT)
    assert (refused.status, refused.body["type"], refused.body["limit"]) == (
        413,
        "/problems/too-many-links",
        1000,
    )
    assert [error["field"] for error in refused.body["errors"]] == ["messageId"]
    assert api("GET", f"{chat}/artifacts/art").status == 404
    assert api("PUT", f"{chat}/artifacts", {**ARTIFACT, "messageId": None}).status == 202
