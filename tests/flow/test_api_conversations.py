"""Conversations: create, list, read, since, tags, change, delete; and whose they are."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.flow.api import Api, Reply, fresh


def test_one_may_be_created_before_its_first_save(api: Api) -> None:
    conversation = fresh()
    created = api(
        "POST", "/api/conversations", {"id": conversation, "title": "T", "metadata": {"b": 1, "a": 2}}
    )
    assert (created.status, created.headers["Location"]) == (201, f"/api/conversations/{conversation}")
    read = api("GET", conversation).body
    assert (read["conversation"]["title"], read["messages"], read["inFlight"]) == ("T", [], False)
    assert orjson.dumps(read["conversation"]["metadata"]) == b'{"b":1,"a":2}'
    again = api("POST", "/api/conversations", {"id": conversation, "title": "U"})
    assert again.status == 202
    assert api("GET", conversation).body["conversation"]["title"] == "U"


def test_without_an_id_one_is_minted(api: Api) -> None:
    created = api("POST", "/api/conversations", {})
    assert created.status == 201
    assert len(created.body["id"]) == 36
    assert api("GET", created.headers["Location"]).status == 200


def test_its_own_fields_change_alone(api: Api, chat: str) -> None:
    changed = api("PATCH", chat, {"title": "T", "archived": True, "headId": "m1"})
    assert (changed.status, changed.body["id"]) == (202, chat)
    api("PATCH", chat, {"title": None})
    shown = api("GET", chat).body["conversation"]
    assert (shown["title"], shown["archived"], shown["headId"]) == (None, True, "m1")


def test_a_stale_change_is_refused_with_the_current_one(api: Api, chat: str) -> None:
    api("PATCH", chat, {"title": "new", "revision": 2})
    refused = api("PATCH", chat, {"title": "old", "revision": 1})
    assert (refused.status, refused.body["current"]["title"]) == (409, "new")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"title": 1}, "title"),
        ({"id": "x"}, "id"),
        ({"archived": None}, "archived"),
        ({"headId": "a b"}, "headId"),
    ],
)
def test_invalid_changes_name_the_field(api: Api, chat: str, body: Any, field: str) -> None:
    refused = api("PATCH", chat, body)
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, field)


def test_reading_gives_everything_in_order(api: Api, chat: str) -> None:
    view = api("GET", chat).body
    assert [message["id"] for message in view["messages"]] == ["m1", "m2"]
    assert view["inFlight"] is True
    assert view["version"] == max(message["version"] for message in [*view["messages"], view["conversation"]])


def test_only_the_latest_messages_and_then_those_before(api: Api) -> None:
    conversation = fresh()
    for number in range(5):
        api("POST", f"{conversation}/messages", {"id": f"m{number}", "role": "user"})
    last = api("GET", f"{conversation}?limit=2").body
    assert [message["id"] for message in last["messages"]] == ["m3", "m4"]
    before = api("GET", f"{conversation}?limit=2&before={last['before']}").body
    assert [message["id"] for message in before["messages"]] == ["m1", "m2"]
    assert "before" not in api("GET", f"{conversation}?limit=2&before={before['before']}").body


def test_with_a_head_its_path_is_shown_unless_all_is_asked_for(api: Api) -> None:
    conversation = fresh()
    for item_id, parent in (("a", None), ("b1", "a"), ("b2", "a")):
        api("POST", f"{conversation}/messages", {"id": item_id, "role": "user", "parentId": parent})
    api("PATCH", conversation, {"headId": "b1"})
    assert [message["id"] for message in api("GET", conversation).body["messages"]] == ["a", "b1"]
    whole = api("GET", f"{conversation}?branches=all").body
    assert [message["id"] for message in whole["messages"]] == ["a", "b1", "b2"]


def test_since_gives_what_changed_and_tombstones(api: Api, chat: str) -> None:
    api("POST", f"{chat}/messages", {"id": "m3", "role": "user"})
    version = api("GET", chat).body["version"]
    assert api("GET", f"{chat}?since={version}").body["messages"] == []
    api("DELETE", f"{chat}/messages/m1")
    api("PUT", f"{chat}/messages", {"id": "m3", "content": "x"})
    changed = api("GET", f"{chat}?since={version}").body
    assert [(message["id"], "deletedAt" in message) for message in changed["messages"]] == [
        ("m1", True),
        ("m3", False),
    ]
    assert changed["version"] > version


def test_a_reader_that_has_it_gets_304(api: Api, chat: str) -> None:
    tag = api("GET", chat).headers["ETag"]
    assert tag.startswith('"')
    for header in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = api("GET", chat, headers={"If-None-Match": header})
        assert (same.status, same.body, same.headers["ETag"]) == (304, None, tag)
    assert api("GET", f"{chat}?limit=1", headers={"If-None-Match": tag}).status == 200
    api("PATCH", f"{chat}/messages/m2", {"append": {"offset": 0, "text": "x"}})
    changed = api("GET", chat, headers={"If-None-Match": tag})
    assert changed.status == 200
    api.rig.flush(chat)
    assert (
        api("GET", chat, headers={"If-None-Match": changed.headers["ETag"]}).body["messages"][1]["stored"]
        is True
    )


def test_caches_must_ask_again_and_keep_nothing_of_saves(api: Api, chat: str) -> None:
    assert api("GET", chat).headers["Cache-Control"] == "private, no-cache"
    assert api("GET", f"{chat}/messages").headers["Cache-Control"] == "no-store"
    assert api("PATCH", chat, {}).headers["Cache-Control"] == "no-store"


def test_a_deleted_one_is_gone_and_stays_so(api: Api, chat: str) -> None:
    for _ in range(2):
        assert api("DELETE", chat).status == 204
    assert api("GET", chat).status == 410
    assert api("POST", f"{chat}/messages", {"id": "m9", "role": "user"}).status == 410
    assert api("POST", f"{chat}/sync", {"messages": [{"id": "m9", "role": "user"}]}).status == 410
    assert api("PATCH", chat, {"title": "x"}).status == 410
    assert api("DELETE", f"{chat}/messages/m1").status == 204
    assert chat not in [one["id"] for one in api("GET", "/api/conversations?limit=200").body["conversations"]]


def test_the_list_shows_the_latest_first_page_by_page(api: Api) -> None:
    owner = fresh("lister")
    for number in range(5):
        api("POST", f"l{number}/messages", {"id": "m", "role": "user"}, owner=owner)
    api("PATCH", "l4", {"archived": True}, owner=owner)
    api.rig.flush("l1", owner)
    seen: list[str] = []
    after = ""
    for _ in range(10):
        page = api("GET", f"/api/conversations?limit=2{after}", owner=owner).body
        seen += [one["id"] for one in page["conversations"]]
        if page["after"] is None:
            break
        after = f"&after={page['after']}"
    assert seen == ["l3", "l2", "l1", "l0"]
    archived = api("GET", "/api/conversations?archived=true", owner=owner).body["conversations"]
    assert [one["id"] for one in archived] == ["l4"]


STRANGE = [
    ("GET", "", None),
    ("GET", "/messages", None),
    ("GET", "/tool-results", None),
    ("GET", "/artifacts", None),
    ("GET", "/messages/m1", None),
    ("GET", "/tool-results/t1", None),
    ("GET", "/artifacts/a1", None),
    ("GET", "/artifacts/a1/versions", None),
    ("PATCH", "/messages/m1", {"append": {"offset": 0, "text": "x"}}),
    ("PATCH", "/artifacts/a1", {"append": {"offset": 0, "text": "x"}}),
]


@pytest.mark.parametrize(("method", "path", "body"), STRANGE)
@pytest.mark.parametrize("cold", [False, True])
def test_anothers_conversation_looks_like_one_that_never_was(
    api: Api, method: str, path: str, body: Any, cold: bool
) -> None:
    conversation = fresh()
    for kind, item in (
        ("messages", {"id": "m1", "role": "user"}),
        ("tool-results", {"id": "t1"}),
        ("artifacts", {"id": "a1"}),
    ):
        api("POST", f"{conversation}/{kind}", item)
    if cold:
        api.rig.evict(conversation)
    theirs = api(method, conversation + path, body, owner="bob")
    nobodys = api(method, fresh() + path, body, owner="bob")
    assert (theirs.status, nobodys.status) == (404, 404)
    assert theirs.body == nobodys.body

    def kept(headers: Any) -> list[str]:
        return sorted(name for name, _ in headers.items() if name != "X-Request-Id")

    assert kept(theirs.headers) == kept(nobodys.headers)


def test_two_owners_may_use_the_same_id_and_never_meet(api: Api) -> None:
    conversation = fresh()
    for owner in ("ann", "bob"):
        api("POST", f"{conversation}/messages", {"id": "m", "role": "user", "content": owner}, owner=owner)
    assert [
        api("GET", f"{conversation}/messages/m", owner=owner).body["content"] for owner in ("ann", "bob")
    ] == ["ann", "bob"]
    api("DELETE", conversation, owner="bob")
    assert api("GET", conversation).status == 200


def test_a_backend_with_the_scope_acts_for_its_users(api: Api) -> None:
    conversation = fresh()

    def backend(method: str, path: str, body: Any = None, owner: str = "Zoë") -> Reply:
        header = {"Blotter-Owner": owner.encode().decode("latin-1")}
        return api(method, path, body, owner="backend", scope="blotter:act-for", headers=header)

    assert (
        backend("POST", f"{conversation}/messages", {"id": "m", "role": "user", "content": "x"}).status == 202
    )
    assert api("GET", conversation, owner="Zoë").status == 200
    assert api("GET", conversation, owner="backend").status == 404
    refused = api("GET", conversation, owner="backend", headers={"Blotter-Owner": "ann"})
    assert (refused.status, refused.body["type"]) == (403, "/problems/forbidden")
    assert backend("GET", conversation, owner="a\x01b").status == 422
