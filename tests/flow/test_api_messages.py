"""POST, PUT, PATCH, GET and DELETE of messages, through the real pipeline."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.flow.api import Api, fresh

PARTS = [
    {"type": "step-start"},
    {"type": "reasoning", "text": "hm 🎉", "state": "done"},
    {"type": "text", "text": "naïve e\u0301 مرحبا \U0001d4b3"},
    {
        "type": "tool-search",
        "toolCallId": "k",
        "state": "output-available",
        "input": {"z": 1, "a": [1e2, None]},
    },
    {"anything": {"goes": ["here", {"b": 1, "a": 2}]}},
]


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_new_message_is_acknowledged_and_readable_at_once(api: Api, method: str) -> None:
    conversation = fresh()
    message = {
        "id": "m.1~:@-_",
        "role": "user",
        "content": "hi 🎉",
        "parts": PARTS,
        "metadata": {"b": 1, "a": {"d": None, "c": 2**53}},
        "parentId": "m0",
        "toolResultIds": ["t1"],
        "artifactIds": ["a1"],
        "status": "complete",
        "statusReason": "said",
        "revision": 3,
    }
    saved = api(method, f"{conversation}/messages", message)
    assert saved.status == 202
    assert (saved.body["state"], saved.body["outcome"], saved.body["length"]) == ("buffered", "accepted", 5)
    assert (saved.body["id"], saved.body["revision"]) == ("m.1~:@-_", 3)
    read = api("GET", f"{conversation}/messages/m.1~:@-_").body
    assert orjson.dumps({name: read[name] for name in message}) == orjson.dumps(message)
    assert read["version"] == saved.body["version"]
    assert read["stored"] is False


def test_fields_left_out_stay_and_null_clears(api: Api) -> None:
    conversation = fresh()
    api("POST", f"{conversation}/messages", {"id": "m", "role": "user", "content": "a", "metadata": {"x": 1}})
    api("PUT", f"{conversation}/messages", {"id": "m", "content": None})
    read = api("GET", f"{conversation}/messages/m").body
    assert (read["role"], read["content"], read["metadata"]) == ("user", None, {"x": 1})


def test_a_put_without_a_role_begins_an_assistants_message(api: Api) -> None:
    conversation = fresh()
    api("PUT", f"{conversation}/messages", {"id": "m", "content": "x"})
    assert api("GET", f"{conversation}/messages/m").body["role"] == "assistant"


def test_the_same_save_twice_changes_nothing(api: Api) -> None:
    conversation = fresh()
    message = {"id": "m", "role": "user", "content": "a", "revision": 1}
    first, second = (api("POST", f"{conversation}/messages", message).body for _ in range(2))
    assert (second["outcome"], second["version"]) == ("duplicate", first["version"])


def test_an_old_revision_is_refused_with_the_current_item(api: Api) -> None:
    conversation = fresh()
    api("POST", f"{conversation}/messages", {"id": "m", "role": "user", "content": "new", "revision": 5})
    refused = api("PUT", f"{conversation}/messages", {"id": "m", "content": "old", "revision": 4})
    assert (refused.status, refused.body["type"]) == (409, "/problems/stale-revision")
    assert (refused.body["current"]["content"], refused.body["current"]["revision"]) == ("new", 5)
    again = api("PUT", f"{conversation}/messages", {"id": "m", "content": "other", "revision": 5})
    assert (again.status, again.body["type"]) == (409, "/problems/revision-conflict")


def test_a_late_stub_does_not_undo_a_finished_reply(api: Api) -> None:
    conversation = fresh()
    reply = {"id": "m", "role": "assistant", "content": "all of it"}
    api("POST", f"{conversation}/messages", reply)
    late = api("POST", f"{conversation}/messages", {**reply, "content": "", "status": "pending"})
    assert (late.status, late.body["outcome"]) == (202, "noop")
    assert api("GET", f"{conversation}/messages/m").body["content"] == "all of it"


def test_a_reply_streams_in(api: Api, chat: str) -> None:
    path, length = f"{chat}/messages/m2", 0
    for text in ("He", "llo 🎉", "", " wörld"):
        saved = api("PATCH", path, {"append": {"offset": length, "text": text}})
        assert saved.status == 202
        length += len(text.encode("utf-16-le")) // 2
        assert saved.body["length"] == length
    done = api(
        "PATCH",
        path,
        {"append": {"offset": length, "text": "!"}, "status": "complete", "statusReason": "stop"},
    )
    assert done.status == 202
    read = api("GET", path).body
    assert (read["content"], read["status"], read["statusReason"]) == ("Hello 🎉 wörld!", "complete", "stop")


def test_parts_stream_in(api: Api, chat: str) -> None:
    path = f"{chat}/messages/m2"
    value = {"type": "text", "text": "a", "state": "streaming"}
    assert api("PATCH", path, {"part": {"index": 0, "value": value}}).status == 202
    assert api("PATCH", path, {"append": {"part": 0, "offset": 1, "text": "bc"}}).body["length"] == 3
    assert api("PATCH", path, {"part": {"index": 1, "value": {"type": "step-start"}}}).status == 202
    assert api("GET", path).body["parts"] == [{**value, "text": "abc"}, {"type": "step-start"}]
    gap = api("PATCH", path, {"part": {"index": 7, "value": {}}})
    assert (gap.status, gap.body["type"], gap.body["length"]) == (409, "/problems/part-gap", 2)


@pytest.mark.parametrize(
    ("step", "status", "slug", "more"),
    [
        ({"append": {"offset": 9, "text": "x"}}, 409, "append-gap", {"length": 4}),
        ({"append": {"offset": 0, "text": "zz"}}, 409, "append-mismatch", {"length": 4}),
        ({"append": {"offset": 3, "text": "x"}}, 422, "surrogate-split", {}),
        ({"append": {"part": 0, "offset": 0, "text": "x"}}, 422, "not-text", {}),
    ],
)
def test_steps_that_do_not_fit_are_refused(
    api: Api, chat: str, step: Any, status: int, slug: str, more: dict[str, Any]
) -> None:
    path = f"{chat}/messages/m2"
    api("PATCH", path, {"append": {"offset": 0, "text": "ab🎉"}})
    api("PATCH", path, {"part": {"index": 0, "value": {"type": "step-start"}}})
    refused = api("PATCH", path, step)
    assert (refused.status, refused.body["type"]) == (status, f"/problems/{slug}")
    assert more.items() <= refused.body.items()
    if status == 409:
        assert refused.body["current"]["content"] == "ab🎉"
    else:
        assert refused.body["errors"][0]["field"].startswith("append.")
    assert api("GET", path).body["content"] == "ab🎉"


def test_appends_after_the_end_are_refused_and_repeats_are_not(api: Api, chat: str) -> None:
    path = f"{chat}/messages/m2"
    api("PATCH", path, {"append": {"offset": 0, "text": "done"}, "status": "complete"})
    assert api("PATCH", path, {"append": {"offset": 0, "text": "do"}}).body["outcome"] == "duplicate"
    refused = api("PATCH", path, {"append": {"offset": 4, "text": " more"}})
    assert (refused.status, refused.body["type"]) == (409, "/problems/terminal")


def test_a_step_for_nothing_is_404_like_everything_unknown(api: Api, chat: str) -> None:
    step = {"append": {"offset": 0, "text": "x"}}
    answers = [
        api("PATCH", f"{chat}/messages/none", step),
        api("PATCH", f"{fresh()}/messages/none", step),
        api("PATCH", f"{chat}/messages/m2", step, owner="bob"),
        api("GET", f"{chat}/messages/none"),
        api("GET", f"{fresh()}/messages/none"),
    ]
    assert {answer.status for answer in answers} == {404}
    assert len({orjson.dumps(answer.body) for answer in answers}) == 1


def test_a_deleted_message_is_gone_and_stays_so(api: Api, chat: str) -> None:
    path = f"{chat}/messages/m1"
    for _ in range(2):
        assert api("DELETE", path).status == 204
    assert api("GET", path).status == 410
    revived = api("POST", f"{chat}/messages", {"id": "m1", "role": "user", "content": "late", "revision": 99})
    assert (revived.status, revived.body["type"]) == (410, "/problems/gone")
    assert api("PATCH", path, {"append": {"offset": 0, "text": "x"}}).status == 410
    assert [message["id"] for message in api("GET", chat).body["messages"]] == ["m2"]


def test_deleting_what_never_was_succeeds(api: Api, chat: str) -> None:
    for conversation in (chat, fresh()):
        deleted = api("DELETE", f"{conversation}/messages/never")
        assert (deleted.status, deleted.body) == (204, None)
        assert "Content-Type" not in deleted.headers
        late = api("POST", f"{conversation}/messages", {"id": "never", "role": "user"})
        assert late.status == 410


def test_messages_are_listed_by_pages_in_order(api: Api) -> None:
    conversation, seen = fresh(), []
    for number in range(7):
        api("POST", f"{conversation}/messages", {"id": f"m{number}", "role": "user"})
    after = ""
    for _ in range(10):
        page = api("GET", f"{conversation}/messages?limit=3{after}").body
        assert len(page["messages"]) <= 3
        seen += [message["id"] for message in page["messages"]]
        if page["after"] is None:
            break
        after = f"&after={page['after']}"
    assert seen == [f"m{number}" for number in range(7)]


def test_one_message_has_a_tag_that_changes_with_it(api: Api, chat: str) -> None:
    path = f"{chat}/messages/m1"
    tag = api("GET", path).headers["ETag"]
    same = api("GET", path, headers={"If-None-Match": tag})
    assert (same.status, same.body, same.headers["ETag"]) == (304, None, tag)
    api.rig.flush(chat)
    stored = api("GET", path, headers={"If-None-Match": tag})
    assert (stored.status, stored.body["stored"]) == (200, True)
    api("PUT", f"{chat}/messages", {"id": "m1", "content": "changed"})
    assert api("GET", path, headers={"If-None-Match": stored.headers["ETag"]}).status == 200
