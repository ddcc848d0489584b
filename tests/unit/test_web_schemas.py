"""What bodies may say, and the commands they become."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from models.core.commands import Append, Part, SetPart
from web.problems import from_validation
from web.schemas import (
    ArtifactBody,
    ArtifactStep,
    Body,
    ConversationBody,
    MessageStep,
    MessageUpdate,
    NewConversation,
    NewMessage,
    SyncBody,
    ToolResultBody,
)

MESSAGE = {"id": "m1", "role": "user"}

INVALID: dict[str, tuple[type[Body], Any, str]] = {
    "no object": (NewMessage, [], ""),
    "no id": (NewMessage, {"role": "user"}, "id"),
    "no role where a message begins": (NewMessage, {"id": "m1"}, "role"),
    "role null": (NewMessage, {"id": "m1", "role": None}, "role"),
    "role null in an update": (MessageUpdate, {"id": "m1", "role": None}, "role"),
    "unknown role": (NewMessage, {"id": "m1", "role": "wizard"}, "role"),
    "id with a slash": (NewMessage, {**MESSAGE, "id": "a/b"}, "id"),
    "id with a line break": (NewMessage, {**MESSAGE, "id": "a\n"}, "id"),
    "id empty": (NewMessage, {**MESSAGE, "id": ""}, "id"),
    "id of 257 characters": (NewMessage, {**MESSAGE, "id": "x" * 257}, "id"),
    "id a number": (NewMessage, {**MESSAGE, "id": 7}, "id"),
    "revision true": (NewMessage, {**MESSAGE, "revision": True}, "revision"),
    "revision a float": (NewMessage, {**MESSAGE, "revision": 1.0}, "revision"),
    "revision a text": (NewMessage, {**MESSAGE, "revision": "1"}, "revision"),
    "revision null": (NewMessage, {**MESSAGE, "revision": None}, "revision"),
    "revision negative": (NewMessage, {**MESSAGE, "revision": -1}, "revision"),
    "revision beyond 2^53 - 1": (NewMessage, {**MESSAGE, "revision": 2**53}, "revision"),
    "status unknown": (NewMessage, {**MESSAGE, "status": "done"}, "status"),
    "status null": (NewMessage, {**MESSAGE, "status": None}, "status"),
    "parts an object": (NewMessage, {**MESSAGE, "parts": {}}, "parts"),
    "a part that is a text": (NewMessage, {**MESSAGE, "parts": [{}, "x"]}, "parts.1"),
    "1,001 parts": (NewMessage, {**MESSAGE, "parts": [{}] * 1001}, "parts"),
    "1,001 links": (NewMessage, {**MESSAGE, "toolResultIds": ["t"] * 1001}, "toolResultIds"),
    "1,001 artifacts": (NewMessage, {**MESSAGE, "artifactIds": ["a"] * 1001}, "artifactIds"),
    "the 1,001st part": (MessageStep, {"part": {"index": 1000, "value": {}}}, "part.index"),
    "text of the 1,001st part": (
        MessageStep,
        {"append": {"part": 1000, "offset": 0, "text": ""}},
        "append.part",
    ),
    "content a number": (NewMessage, {**MESSAGE, "content": 1}, "content"),
    "links null": (NewMessage, {**MESSAGE, "toolResultIds": None}, "toolResultIds"),
    "a link that is no id": (NewMessage, {**MESSAGE, "artifactIds": ["ok", "not ok"]}, "artifactIds.1"),
    "the server's createdAt": (NewMessage, {**MESSAGE, "createdAt": "2025-01-01"}, "createdAt"),
    "the server's version": (NewMessage, {**MESSAGE, "version": 1}, "version"),
    "a name in snake case": (NewMessage, {**MESSAGE, "parent_id": "m0"}, "parent_id"),
    "a long status reason": (NewMessage, {**MESSAGE, "statusReason": "x" * 1001}, "statusReason"),
    "tool state unknown": (ToolResultBody, {"id": "t1", "state": "done"}, "state"),
    "preliminary a text": (ToolResultBody, {"id": "t1", "preliminary": "yes"}, "preliminary"),
    "tool call id too long": (ToolResultBody, {"id": "t1", "toolCallId": "x" * 257}, "toolCallId"),
    "tool message id no id": (ToolResultBody, {"id": "t1", "messageId": "a b"}, "messageId"),
    "artifact content an object": (ArtifactBody, {"id": "a1", "content": {}}, "content"),
    "artifact kind by its inner name": (ArtifactBody, {"id": "a1", "artifactKind": "code"}, "artifactKind"),
    "a title of 1,001 characters": (ConversationBody, {"title": "x" * 1001}, "title"),
    "archived null": (ConversationBody, {"archived": None}, "archived"),
    "archived a number": (ConversationBody, {"archived": 1}, "archived"),
    "an id in a conversation's update": (ConversationBody, {"id": "c1"}, "id"),
    "neither append nor part": (MessageStep, {"status": "complete"}, ""),
    "both append and part": (
        MessageStep,
        {"append": {"offset": 0, "text": ""}, "part": {"index": 0, "value": {}}},
        "",
    ),
    "append null": (MessageStep, {"append": None}, "append"),
    "append without offset": (MessageStep, {"append": {"text": "x"}}, "append.offset"),
    "append at -1": (MessageStep, {"append": {"offset": -1, "text": "x"}}, "append.offset"),
    "append to part -1": (MessageStep, {"append": {"offset": 0, "text": "", "part": -1}}, "append.part"),
    "append of a number": (MessageStep, {"append": {"offset": 0, "text": 1}}, "append.text"),
    "an unknown field in append": (MessageStep, {"append": {"offset": 0, "text": "", "at": 1}}, "append.at"),
    "a part that is no object": (MessageStep, {"part": {"index": 0, "value": []}}, "part.value"),
    "a part far out": (MessageStep, {"part": {"index": 10**9, "value": {}}}, "part.index"),
    "a part of an artifact": (ArtifactStep, {"part": {"index": 0, "value": {}}}, "append"),
    "an artifact's append to a part": (
        ArtifactStep,
        {"append": {"offset": 0, "text": "", "part": 0}},
        "append.part",
    ),
    "a sync of nothing": (SyncBody, {}, ""),
    "a sync of empty lists": (SyncBody, {"messages": [], "artifacts": []}, ""),
    "a sync with a list null": (SyncBody, {"messages": None}, "messages"),
    "a bad item in a sync": (SyncBody, {"messages": [MESSAGE, {"id": "m2"}]}, "messages.1.role"),
    "an id twice in a sync": (SyncBody, {"toolResults": [{"id": "t"}, {"id": "t"}]}, "toolResults.1.id"),
    "an unknown list in a sync": (SyncBody, {"messages": [MESSAGE], "files": []}, "files"),
}


@pytest.mark.parametrize(("model", "value", "field"), INVALID.values(), ids=INVALID.keys())
def test_invalid_bodies_are_refused_and_the_field_named(model: type[Body], value: Any, field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(value)
    problem = from_validation(refused.value)
    assert field in [error["field"] for error in problem.extra["errors"]]


def test_only_what_was_sent_is_in_the_command() -> None:
    put = MessageUpdate.model_validate({"id": "m1", "metadata": None, "parentId": "m0"}).put("m1")
    assert (put.k, put.id, put.row, put.body) == ("m", "m1", {"parent_id": "m0"}, {"metadata": False})
    assert (put.rev, put.st, put.parts, put.results, put.artifacts) == (None, None, None, None, None)


def test_null_clears_and_false_stays_false() -> None:
    put = ConversationBody.model_validate({"title": None, "archived": False, "headId": None}).put("")
    assert put.row == {"title": False, "archived": False, "head_id": False}


@pytest.mark.parametrize("value", [None, False, 0, "", [], {"b": 1, "a": [1.5, None]}])
def test_a_tools_output_may_be_any_json(value: Any) -> None:
    put = ToolResultBody.model_validate({"id": "t1", "output": value}).put("t1")
    if value is None:
        assert put.body == {"output": False}
    else:
        import orjson

        text, _ = put.body["output"]  # type: ignore[misc]
        assert orjson.loads(text) == value


def test_a_preliminary_result_is_not_final() -> None:
    final = {"id": "t1", "state": "output-available"}
    ranks = [
        ToolResultBody.model_validate(body).put("t1").rank for body in (final, {**final, "preliminary": True})
    ]
    assert ranks == [5, 4]


def test_an_artifacts_kind_is_not_the_records_kind() -> None:
    put = ArtifactBody.model_validate({"id": "a1", "kind": "code", "mediaType": "text/x-python"}).put("a1")
    assert put.k == "a"
    assert put.row == {"kind": "code", "media_type": "text/x-python"}


def test_a_new_conversations_id_is_no_field() -> None:
    put = NewConversation.model_validate({"id": "c1", "title": "T", "revision": 0}).put("")
    assert (put.id, put.row, put.rev) == ("", {"title": "T"}, 0)


def test_an_append_counts_utf16_units() -> None:
    step = MessageStep.model_validate(
        {"append": {"offset": 3, "text": "a🎉"}, "status": "streaming", "revision": 2}
    )
    assert step.command("m1") == Append("m", "m1", 3, "a🎉", 3, None, 2, "streaming", None)


def test_an_append_to_a_part_and_a_part_set_whole() -> None:
    append = MessageStep.model_validate({"append": {"part": 1, "offset": 0, "text": "x"}}).command("m1")
    assert isinstance(append, Append)
    assert append.part == 1
    part = {"part": {"index": 2, "value": {"type": "text", "text": "hi"}}, "statusReason": "r"}
    assert MessageStep.model_validate(part).command("m1") == SetPart(
        "m", "m1", 2, Part('{"type":"text","text":""}', "hi", 2, 5), None, None, "r"
    )


def test_an_artifact_takes_appends() -> None:
    step = ArtifactStep.model_validate({"append": {"offset": 0, "text": "x"}, "status": "complete"})
    assert step.command("a1") == Append("a", "a1", 0, "x", 1, None, None, "complete", None)


def test_a_sync_becomes_commands_in_the_order_sent() -> None:
    body = SyncBody.model_validate(
        {
            "artifacts": [{"id": "a1"}],
            "messages": [{"id": "m2", "role": "user"}, {"id": "m1", "role": "user"}],
            "toolResults": [{"id": "t1"}],
            "conversation": {"title": "T"},
        }
    )
    assert [(command.k, command.id) for command in body.commands()] == [
        ("c", ""), ("m", "m2"), ("m", "m1"), ("t", "t1"), ("a", "a1"),
    ]  # fmt: skip
    assert body.order() == ["m2", "m1"]
    assert len(body) == 4


def test_a_sync_may_hold_the_conversation_alone() -> None:
    assert [command.k for command in SyncBody.model_validate({"conversation": {}}).commands()] == ["c"]


def test_faults_are_listed_up_to_twenty_and_without_what_was_sent() -> None:
    with pytest.raises(ValidationError) as refused:
        NewMessage.model_validate({**MESSAGE, "parts": ["secret"] * 1000})
    errors = from_validation(refused.value).extra["errors"]
    assert len(errors) == 20
    assert "secret" not in str(errors)
