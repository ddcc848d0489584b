"""The OpenAPI document: valid, and neither it nor the routes know anything the other does not."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from openapi_spec_validator import validate

from models.settings import Settings
from web.app import create_app
from web.openapi import document
from web.problems import KINDS

SOURCE_METHODS = {
    "saveUserMessage",
    "saveAssistantMessage",
    "saveOrUpdateMessage",
    "saveToolResult",
    "updateToolResult",
    "saveArtifact",
    "updateArtifact",
    "syncConversationState",
}


@pytest.fixture(scope="module")
def served() -> dict[str, Any]:
    app = create_app(Settings(jwt_secret="x" * 32))
    body: dict[str, Any] = orjson.loads(app.test_client().get("/openapi.json").get_data())
    return body


def operations(served: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in served["paths"].values() for operation in methods.values()]


def test_the_document_is_valid_openapi(served: dict[str, Any]) -> None:
    assert served["openapi"].startswith("3.1")
    validate(served)


def test_what_is_served_is_what_is_made(served: dict[str, Any]) -> None:
    assert served == orjson.loads(orjson.dumps(document()))


def test_every_route_is_documented_and_everything_documented_is_a_route(served: dict[str, Any]) -> None:
    app = create_app(Settings(jwt_secret="x" * 32))
    routes = {
        (method, re.sub("<[^>]*>", "{}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.endpoint not in ("static", "icon")
    }
    documented = {
        (method.upper(), re.sub("{[^}]*}", "{}", path))
        for path, methods in served["paths"].items()
        for method in methods
    }
    assert documented == routes


def test_the_sources_method_names_are_operation_ids_and_their_calls_are_listed(
    served: dict[str, Any],
) -> None:
    ids = [operation["operationId"] for operation in operations(served)]
    assert len(set(ids)) == len(ids)
    assert set(ids) >= SOURCE_METHODS
    assert set(served["x-blotter-methods"]) >= SOURCE_METHODS
    for calls in served["x-blotter-methods"].values():
        for call in calls:
            assert served["paths"][call["path"]][call["method"].lower()]["operationId"] == call["operationId"]


def test_all_but_the_open_ones_need_a_token_and_say_what_they_answer_without(served: dict[str, Any]) -> None:
    for path, methods in served["paths"].items():
        for operation in methods.values():
            guarded = path.startswith("/api/")
            assert operation["security"] == ([{"bearer": []}] if guarded else [])
            assert {"401", "403", "422", "429"} <= set(operation["responses"]) or not guarded


def test_saves_list_every_refusal(served: dict[str, Any]) -> None:
    for operation in operations(served):
        if "requestBody" in operation:
            assert {"400", "409", "410", "413", "415", "422", "503"} <= set(operation["responses"])


def test_every_kind_of_problem_is_listed_and_every_one_but_the_catch_all_is_some_routes(
    served: dict[str, Any],
) -> None:
    assert {entry["type"] for entry in served["x-blotter-problems"]} == {kind.type for kind in KINDS.values()}
    answered = orjson.dumps([operation["responses"] for operation in operations(served)]).decode()
    anywhere = {"method-not-allowed", "other", "keys-unavailable"}
    for kind in KINDS.values():
        assert (kind.type in answered) != (kind.slug in anywhere), kind.slug


def test_no_schema_shows_a_default_that_is_none_of_ours(served: dict[str, Any]) -> None:
    assert b'"default":null' not in orjson.dumps(served["components"]["schemas"])


def test_the_events_operation_alone_names_the_events_process_as_its_server() -> None:
    app = create_app(Settings(jwt_secret="x" * 32, events_url="https://events.example.com:8401/"))
    served = orjson.loads(app.test_client().get("/openapi.json").get_data())
    validate(served)
    named = {one["operationId"]: one["servers"][0]["url"] for one in operations(served) if "servers" in one}
    assert named == {"followConversation": "https://events.example.com:8401"}
    assert served["servers"] == [{"url": "/"}]
    assert not any("servers" in one for one in operations(orjson.loads(orjson.dumps(document()))))


def test_the_page_of_the_api_may_call_the_events_process_and_nobody_else() -> None:
    app = create_app(Settings(jwt_secret="x" * 32, events_url="https://events.example.com:8401/"))
    policies = {
        path: app.test_client().get(path).headers["Content-Security-Policy"] for path in ("/docs", "/ops")
    }
    assert "connect-src 'self' https://events.example.com:8401;" in policies["/docs"]
    assert "connect-src 'self';" in policies["/ops"]
