"""The OpenAPI 3.1 document, made from the table of operations and the models, once, when first asked for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import orjson
from flask import Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from models.identity import ID_PATTERN
from web import answers as shapes
from web.operation import Answer, Operation
from web.problems import KINDS, MEDIA_TYPE

if TYPE_CHECKING:
    from web.call import Context

_REF: Final = "#/components/schemas/{model}"
_HEADERS: Final[dict[str, str]] = {
    "ETag": "Strong entity tag.",
    "Location": "Address of what was created.",
    "Preference-Applied": "`wait=N` where the answer was held.",
    "Retry-After": "Seconds.",
    "X-Request-Id": "Yours, or one made for this request; stands in our log.",
    "WWW-Authenticate": "What is wrong with the token (RFC 6750).",
    "Allow": "The methods this address takes.",
    "Stream-Next-Offset": "The offset to go on from.",
    "Stream-Up-To-Date": "`true`: there was nothing more when this was answered.",
    "Stream-Cursor": "Send it as `cursor` with the next long poll.",
    "Stream-Closed": "`true`: the conversation is deleted, nothing follows.",
    "Blotter-Buffer-Epoch": "When it changes, send again what was not yet stored.",
}
#: Served by a process of its own.
EVENTS_PATH: Final = "/api/conversations/{conversationId}/events"
#: Problems that any operation with a token may answer.
_ALWAYS: Final = ("unauthenticated", "forbidden", "invalid", "rate-limited", "internal")


def document_view() -> Operation:
    """The operation that answers with the document itself."""
    return _DOCUMENT


def _serve(context: Context) -> Response:
    return Response(document_bytes(context.settings.events_url), content_type="application/json")


_DOCUMENT = Operation(
    "getOpenApi",
    "GET",
    "/openapi.json",
    "This document",
    _serve,
    "service",
    {200: Answer("OpenAPI 3.1.", media_type="application/json")},
    auth="none",
)


@lru_cache(maxsize=1)
def document_bytes(events_url: str | None) -> bytes:
    """The document as it is served."""
    return orjson.dumps(document(events_url))


def document(events_url: str | None = None) -> dict[str, Any]:
    """The document as a value. ``events_url``: where the events process is reached, if not where the others are."""
    from web.routes import OPERATIONS

    operations = (*OPERATIONS, _DOCUMENT)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    if events_url:
        for described in paths[EVENTS_PATH].values():
            described["servers"] = [{"url": events_url.rstrip("/"), "description": "The events process."}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Blotter",
            "version": "1",
            "summary": "Keeps every piece of an AI chat the moment it exists.",
            "description": (
                "A 2xx to a save means kept: in the buffer at once (`buffered`), in Postgres soon (`stored`). "
                "Every save is an upsert; fields left out stay, null clears; nothing older replaces anything newer."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {
            "schemas": _schemas(_models(operations)),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "headers": {
                name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()
            },
            "parameters": _PARAMETERS,
        },
        "x-blotter-methods": _methods(operations),
        "x-blotter-problems": [
            {"type": kind.type, "status": kind.status, "title": kind.title, "meaning": kind.meaning}
            for kind in KINDS.values()
        ],
    }


_PARAMETERS: Final[dict[str, Any]] = {
    "Blotter-Owner": {
        "name": "Blotter-Owner",
        "in": "header",
        "description": "Act for this owner; needs the scope `blotter:act-for`.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 256},
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "`wait=N`: hold the answer until stored, at most N (≤ 10) seconds.",
        "schema": {"type": "string"},
    },
    "If-None-Match": {
        "name": "If-None-Match",
        "in": "header",
        "description": "The ETag of what you have.",
        "schema": {"type": "string"},
    },
}


def _methods(operations: Iterable[Operation]) -> dict[str, list[dict[str, str]]]:
    """Client method -> the calls it makes."""
    methods: dict[str, list[dict[str, str]]] = {}
    for operation in operations:
        for name in operation.methods:
            call = {"method": operation.method, "path": operation.path, "operationId": operation.id}
            methods.setdefault(name, []).append(call)
    return methods


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": _responses(operation),
        "security": [] if operation.auth == "none" else [{"bearer": []}],
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body is not None:
        schema = {"$ref": _REF.format(model=operation.body.__name__)}
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    identifier = {"type": "string", "pattern": ID_PATTERN} if operation.auth != "none" else {"type": "string"}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": identifier}
        for name in operation.names.values()
    ]
    parameters += [
        {"name": query.name, "in": "query", "description": query.description, "schema": query.schema()}
        for query in operation.query
    ]
    headers = ["Blotter-Owner"] if operation.auth != "none" else []
    headers += ["Prefer"] if operation.prefer else []
    headers += ["If-None-Match"] if 304 in operation.answers else []
    return parameters + [{"$ref": f"#/components/parameters/{name}"} for name in headers]


def _responses(operation: Operation) -> dict[str, Any]:
    responses = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    slugs = operation.problems + (_ALWAYS if operation.auth != "none" else ("internal",))
    by_status: dict[int, list[str]] = {}
    for slug in slugs:
        by_status.setdefault(KINDS[slug].status, []).append(slug)
    for status, found in sorted(by_status.items()):
        if str(status) not in responses:
            responses[str(status)] = _problem(status, found)
    return dict(sorted(responses.items()))


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description, "headers": _headers(answer.headers)}
    if answer.model is not None:
        schema = {"$ref": _REF.format(model=answer.model.__name__)}
        described["content"] = {"application/json": {"schema": schema}}
        if answer.media_type is not None:
            described["content"][answer.media_type] = {"schema": {"type": "string"}}
    elif answer.media_type is not None:
        described["content"] = {answer.media_type: {"schema": {"type": "string"}}}
        if answer.media_type == "application/json":
            described["content"] = {answer.media_type: {"schema": {"type": "object"}}}
    return described


def _problem(status: int, slugs: list[str]) -> dict[str, Any]:
    names = (
        ("Retry-After",) if status in (429, 503) else ("WWW-Authenticate",) if status in (401, 403) else ()
    )
    return {
        "description": " · ".join(KINDS[slug].type for slug in slugs),
        "headers": _headers(names),
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(model=shapes.ProblemDetails.__name__)}}},
    }


def _headers(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, "X-Request-Id")}


def _models(operations: Iterable[Operation]) -> list[type[BaseModel]]:
    models: dict[type[BaseModel], None] = {shapes.ProblemDetails: None}
    for operation in operations:
        if operation.body is not None:
            models[operation.body] = None
        models.update(
            {answer.model: None for answer in operation.answers.values() if answer.model is not None}
        )
    return list(models)


def _schemas(models: list[type[BaseModel]]) -> dict[str, Any]:
    _, schema = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    cleaned: dict[str, Any] = _without_defaults(schema["$defs"])
    return cleaned


def _without_defaults(node: Any) -> Any:
    """Without pydantic's titles and defaults: our defaults only say that a field may be absent."""
    if isinstance(node, list):
        return [_without_defaults(child) for child in node]
    if not isinstance(node, dict):
        return node
    return {
        name: {field: _without_defaults(shape) for field, shape in child.items()}
        if name == "properties"
        else _without_defaults(child)
        for name, child in node.items()
        if not (name == "default" or (name == "title" and isinstance(child, str)))
    }
