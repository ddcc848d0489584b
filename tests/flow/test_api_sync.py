"""Sync: full or partial state, one outcome an item, nothing deleted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flow.api import Api, fresh


def state(count: int = 3) -> dict[str, Any]:
    return {
        "conversation": {"title": "T"},
        "messages": [
            {"id": f"m{number}", "role": "user", "content": f"text {number}"} for number in range(count)
        ],
        "toolResults": [{"id": "t1", "messageId": "m1", "output": {"b": 1, "a": 2}}],
        "artifacts": [{"id": "a1", "messageId": "m1", "content": "x"}],
    }


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_whole_state_is_saved_with_an_outcome_for_each_item(api: Api, method: str) -> None:
    conversation = fresh()
    synced = api(method, f"{conversation}/sync", state())
    assert (synced.status, synced.body["id"], synced.body["state"]) == (200, conversation, "buffered")
    assert [(item["kind"], item["id"], item["status"], item["outcome"]) for item in synced.body["items"]] == [
        ("conversation", conversation, 202, "accepted"),
        ("message", "m0", 202, "accepted"),
        ("message", "m1", 202, "accepted"),
        ("message", "m2", 202, "accepted"),
        ("toolResult", "t1", 202, "accepted"),
        ("artifact", "a1", 202, "accepted"),
    ]
    view = api("GET", conversation).body
    assert view["conversation"]["title"] == "T"
    assert [message["content"] for message in view["messages"]] == ["text 0", "text 1", "text 2"]
    assert (view["messages"][1]["toolResultIds"], view["messages"][1]["artifactIds"]) == (["t1"], ["a1"])
    assert synced.body["version"] == view["version"]


def test_the_same_state_again_changes_nothing(api: Api) -> None:
    conversation = fresh()
    first = api("POST", f"{conversation}/sync", state()).body
    second = api("POST", f"{conversation}/sync", state()).body
    assert {item["outcome"] for item in second["items"]} == {"duplicate"}
    assert second["version"] == first["version"]


def test_what_is_missing_stays(api: Api) -> None:
    conversation = fresh()
    api("POST", f"{conversation}/sync", state(6))
    api("POST", f"{conversation}/sync", {"messages": state(6)["messages"][3:]})
    assert len(api("GET", conversation).body["messages"]) == 6


def test_a_new_message_before_a_known_one_is_read_before_it(api: Api) -> None:
    conversation = fresh()
    messages = state()["messages"]
    api("POST", f"{conversation}/sync", {"messages": [messages[0], messages[2]]})
    api("POST", f"{conversation}/sync", {"messages": messages})
    assert [message["id"] for message in api("GET", conversation).body["messages"]] == ["m0", "m1", "m2"]


def test_each_item_stands_for_itself(api: Api, chat: str) -> None:
    api("PUT", f"{chat}/messages", {"id": "m1", "content": "new", "revision": 5})
    api("DELETE", f"{chat}/tool-results/t1")
    synced = api(
        "POST",
        f"{chat}/sync",
        {
            "messages": [
                {"id": "m1", "role": "user", "content": "old", "revision": 4},
                {"id": "m3", "role": "user", "content": "fresh"},
            ],
            "toolResults": [{"id": "t1"}],
        },
    )
    assert synced.status == 200
    assert [(item["status"], item.get("type")) for item in synced.body["items"]] == [
        (409, "/problems/stale-revision"),
        (202, None),
        (410, "/problems/gone"),
    ]
    assert synced.body["items"][0]["revision"] == 5
    texts = {message["id"]: message["content"] for message in api("GET", chat).body["messages"]}
    assert (texts["m1"], texts["m3"]) == ("new", "fresh")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (
            {"messages": [{"id": "m1", "role": "user"}, {"id": "m2", "role": "user", "revision": True}]},
            "messages.1.revision",
        ),
        ({"messages": [{"id": "m1"}]}, "messages.0.role"),
        ({"toolResults": [{"id": "t"}, {"id": "t"}]}, "toolResults.1.id"),
        ({"artifacts": [{"id": "a", "parts": []}]}, "artifacts.0.parts"),
        ({"conversation": {"id": "c"}}, "conversation.id"),
        ({"messages": {}}, "messages"),
        ({"message": []}, "message"),
        ({}, ""),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_one_invalid_item_refuses_all_and_nothing_is_stored(
    api: Api, method: str, body: Any, field: str
) -> None:
    conversation = fresh()
    refused = api(method, f"{conversation}/sync", body)
    assert refused.status == 422
    assert field in [error["field"] for error in refused.body["errors"]]
    assert api("GET", conversation).status == 404


def test_too_many_items_are_refused_with_the_limit(api: Api) -> None:
    conversation = fresh()
    refused = api("POST", f"{conversation}/sync", state(59))
    assert (refused.status, refused.body["type"], refused.body["limit"]) == (
        413,
        "/problems/too-many-items",
        60,
    )
    assert api("GET", conversation).status == 404
    assert api("POST", f"{conversation}/sync", state(58)).status == 200
