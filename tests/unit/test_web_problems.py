"""Each error and each outcome is exactly one kind of problem."""

from __future__ import annotations

import typing

import orjson
import pytest
from pydantic import ValidationError

from models import errors
from models.core.commands import ACKNOWLEDGED, Outcome
from models.core.wording import counted
from models.errors import BlotterError
from web import schemas
from web.auth import BadOwner, Forbidden, Unauthenticated
from web.problems import ERRORS, KINDS, OUTCOMES, Problem, from_error, from_http, from_validation, invalid


def subclasses(root: type[BlotterError]) -> set[type[BlotterError]]:
    return {found for child in root.__subclasses__() for found in {child, *subclasses(child)}}


def test_every_error_class_of_the_data_layer_has_its_kind() -> None:
    declared = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, BlotterError) and value is not BlotterError
    }
    assert declared <= set(ERRORS)


def test_every_error_class_of_web_has_its_kind() -> None:
    here = {
        found
        for found in subclasses(BlotterError)
        if found.__module__ in {"web.auth", "web.keys", "web.problems"}
    }
    assert here <= set(ERRORS)


def test_every_outcome_has_its_kind_and_only_acknowledged_ones_have_none() -> None:
    assert set(OUTCOMES) == set(typing.get_args(Outcome))
    assert {outcome for outcome, kind in OUTCOMES.items() if kind is None} == set(ACKNOWLEDGED)


def test_statuses_are_those_of_the_contract() -> None:
    statuses = {outcome: kind.status for outcome, kind in OUTCOMES.items() if kind is not None}
    assert statuses == {
        "stale-revision": 409, "revision-conflict": 409, "append-gap": 409, "append-mismatch": 409, "part-gap": 409,
        "terminal": 409, "surrogate-split": 422, "not-text": 422, "not-found": 404, "gone": 410, "item-too-large": 413,
        "too-many-items": 413, "too-many-parts": 413, "too-many-links": 413,
        "conversation-too-large": 413, "unavailable": 503,
    }  # fmt: skip


@pytest.mark.parametrize(("error", "status"), [
    (errors.BufferUnavailable("x"), 503), (errors.BufferFull("x"), 503), (errors.StoreUnavailable("x"), 503),
    (errors.Contention("x"), 503), (errors.BufferPolicyError("x"), 503), (errors.NotFound("x"), 404),
    (errors.Gone("x"), 410), (Unauthenticated("x"), 401), (Forbidden("x", "s"), 403), (BadOwner("x"), 422),
    (errors.SettingsError("secret"), 500), (BlotterError("secret"), 500),
])  # fmt: skip
def test_errors_answer_with_their_status(error: BlotterError, status: int) -> None:
    response = from_error(error)
    body = orjson.loads(response.get_data())
    assert (response.status_code, body["status"], response.content_type) == (
        status,
        status,
        "application/problem+json",
    )
    assert body["type"] in {kind.type for kind in KINDS.values()}
    assert response.headers["Cache-Control"] == "no-store"
    assert ("Retry-After" in response.headers) == (status == 503)
    assert ("WWW-Authenticate" in response.headers) == (status in {401, 403})
    assert b"secret" not in response.get_data()


def test_no_token_and_a_bad_one_are_told_apart() -> None:
    assert from_error(Unauthenticated("x", None)).headers["WWW-Authenticate"] == 'Bearer realm="blotter"'
    assert 'error="invalid_token"' in from_error(Unauthenticated("x")).headers["WWW-Authenticate"]
    assert (
        'scope="blotter:act-for"' in from_error(Forbidden("x", "blotter:act-for")).headers["WWW-Authenticate"]
    )


def test_flasks_own_refusals_are_problems_too() -> None:
    response = from_http(405, [("Allow", "GET, HEAD"), ("Content-Type", "text/html")])
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")
    assert response.content_type == "application/problem+json"
    teapot = from_http(418, ())
    assert (teapot.status_code, orjson.loads(teapot.get_data())["status"]) == (418, 418)


def test_a_problem_carries_what_helps() -> None:
    body = orjson.loads(Problem("append-gap", length=7).answer().get_data())
    assert body == {
        "type": "/problems/append-gap",
        "title": "Append beyond the end",
        "status": 409,
        "detail": "Text before the offset is missing; `length` is what there is.",
        "length": 7,
    }


def test_field_names_are_shown_short_and_printable() -> None:
    shown = orjson.loads(invalid("ü\ud800" + "x" * 1000, "no").answer().get_data())["errors"][0]["field"]
    assert shown.isascii()
    assert len(shown) < 250


def test_types_are_unique() -> None:
    assert len({kind.type for kind in KINDS.values()}) == len(KINDS)


def test_a_save_refused_for_the_buffers_policy_is_told_as_refused() -> None:
    answer = from_error(errors.BufferPolicyError("appendfsync is no"))
    told = orjson.loads(answer.get_data())
    assert (answer.status_code, told["type"]) == (503, "/problems/buffer-unfit")
    assert "Nothing was kept" in told["detail"]
    assert "blotter status" in told["detail"]
    assert "appendfsync" not in told["detail"], "what an operator may know, a caller need not"


WRONG: list[tuple[type[schemas.Body], dict[str, object], str, str]] = [
    (schemas.NewMessage, {}, "id", "Is needed."),
    (schemas.NewMessage, {"id": "m", "role": "robot"}, "role", "Must be 'system', 'developer', 'user', 'assistant' or 'tool'."),
    (schemas.NewMessage, {"id": "a/b", "role": "user"}, "id", "Must have only characters of A-Z a-z 0-9 _ . ~ : @ -."),
    (schemas.NewMessage, {"id": "", "role": "user"}, "id", "Must not be empty."),
    (schemas.NewMessage, {"id": "m" * 257, "role": "user"}, "id", "Must have at most 256 characters."),
    (schemas.NewMessage, {"id": "m", "role": "user", "contents": ""}, "contents", "Is no field that can be given here."),
    (schemas.NewMessage, {"id": "m", "role": "user", "content": 5}, "content", "Must be a text."),
    (schemas.NewMessage, {"id": "m", "role": "user", "revision": "1"}, "revision", "Must be a whole number."),
    (schemas.NewMessage, {"id": "m", "role": "user", "revision": 1.5}, "revision", "Must be a whole number."),
    (schemas.NewMessage, {"id": "m", "role": "user", "revision": -1}, "revision", "Must be at least 0."),
    (schemas.NewMessage, {"id": "m", "role": "user", "revision": 2**53}, "revision", "Must be at most 9,007,199,254,740,991."),
    (schemas.NewMessage, {"id": "m", "role": "user", "parts": {}}, "parts", "Must be a list."),
    (schemas.NewMessage, {"id": "m", "role": "user", "parts": ["x"]}, "parts.0", "Must be an object."),
    (schemas.NewMessage, {"id": "m", "role": "user", "artifactIds": ["a"] * 1001}, "artifactIds", "Must have at most 1,000 entries."),
    (schemas.ConversationBody, {"archived": 1}, "archived", "Must be true or false."),
    (schemas.MessageStep, {"append": 5}, "append", "Must be an object."),
    (schemas.MessageStep, {}, "", "Exactly one of `append` and `part` is needed."),
    (schemas.SyncBody, {}, "", "Nothing to save: all lists are empty."),
]  # fmt: skip


@pytest.mark.parametrize(("body", "sent", "field", "message"), WRONG)
def test_what_is_wrong_with_a_field_is_said_in_our_words(
    body: type[schemas.Body], sent: dict[str, object], field: str, message: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        body.model_validate(sent)
    told = orjson.loads(from_validation(refused.value).answer().get_data())["errors"]
    assert told[0] == {"field": field, "message": message}


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2000, "2,000 rows")]
)
def test_one_of_a_thing_is_not_many(number: int, said: str) -> None:
    assert counted(number, "row") == said
