"""What happens before a view: tokens, ids, queries, media types, sizes; and what every answer carries.

The pipeline here fails when it is touched: none of these requests may reach it.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jwt
import orjson
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from models.errors import SettingsError
from models.identity import conversation_uid
from models.settings import Settings
from web.app import create_app
from web.operation import Operation
from web.routes import OPERATIONS

SECRET = "a-secret-of-at-least-32-bytes-for-tests"
MESSAGES = "/api/conversations/c1/messages"
GUARDED = [operation for operation in OPERATIONS if operation.auth != "none"]


class Untouched:
    """A pipeline nobody may reach."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the pipeline was reached: {name}")


def make(**values: Any) -> Flask:
    return create_app(Settings(**{"jwt_secret": SECRET, **values}), Untouched())  # type: ignore[arg-type]


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "exp": int(time.time()) + 60, **claims}, SECRET, algorithm="HS256")


@pytest.fixture(scope="module")
def app() -> Flask:
    return make()


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client() as made:
        made.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token()}"
        yield made


def problem(response: TestResponse, status: int, slug: str) -> dict[str, Any]:
    """The problem document of ``response``, checked."""
    assert response.status_code == status, response.get_data()
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = orjson.loads(response.get_data())
    assert (body["type"], body["status"]) == (f"/problems/{slug}", status)
    return body


def address(operation: Operation) -> str:
    path = operation.path
    for name in operation.names.values():
        path = path.replace(f"{{{name}}}", "x1")
    return path


@pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.id)
@pytest.mark.parametrize("header", [None, "Bearer nonsense", "Basic YTpi"])
def test_no_route_without_a_valid_token(app: Flask, operation: Operation, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    response = app.test_client().open(address(operation), method=operation.method, data=b"{", headers=headers)
    problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"].startswith('Bearer realm="blotter"')


@pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.id)
def test_no_route_acts_for_others_without_the_scope(client: FlaskClient, operation: Operation) -> None:
    if operation.auth == "operator":
        pytest.skip("asks for another scope first")
    response = client.open(address(operation), method=operation.method, headers={"Blotter-Owner": "bob"})
    problem(response, 403, "forbidden")


def test_figures_need_an_operators_token(client: FlaskClient) -> None:
    problem(client.get("/api/status"), 403, "forbidden")


@pytest.mark.parametrize("operation", GUARDED, ids=lambda operation: operation.id)
def test_no_route_takes_unknown_parameters(client: FlaskClient, operation: Operation) -> None:
    headers = {"Authorization": f"Bearer {token(scope='blotter:operate')}"}
    response = client.open(f"{address(operation)}?limt=5", method=operation.method, headers=headers)
    assert problem(response, 422, "invalid")["errors"][0]["field"] == "limt"


@pytest.mark.parametrize(
    "operation", [one for one in GUARDED if one.names], ids=lambda operation: operation.id
)
@pytest.mark.parametrize("bad", ["a%20b", "x" * 257, "%00", "%ff", "a%0A", "é", "*"])
def test_no_route_takes_bad_ids(client: FlaskClient, operation: Operation, bad: str) -> None:
    for argument in operation.names.values():
        path = operation.path.replace(f"{{{argument}}}", bad)
        for other in operation.names.values():
            path = path.replace(f"{{{other}}}", "x1")
        body = problem(client.open(path, method=operation.method), 422, "invalid")
        assert body["errors"][0]["field"] == argument


@pytest.mark.parametrize(("query", "field"), [
    ("limit=0", "limit"), ("limit=5001", "limit"), ("limit=x", "limit"), ("limit=-1", "limit"), ("limit=1e2", "limit"),
    ("limit=٣", "limit"), ("limit=", "limit"), ("limit=1&limit=2", "limit"), ("since=-1", "since"),
    ("since=9007199254740992", "since"), ("branches=some", "branches"), ("before=", "before"),
    ("before=%00", "before"), ("before=" + "x" * 4097, "before"),
])  # fmt: skip
def test_bad_parameters_are_named(client: FlaskClient, query: str, field: str) -> None:
    body = problem(client.get(f"/api/conversations/c1?{query}"), 422, "invalid")
    assert body["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("query", "field"), [("archived=1", "archived"), ("after=x", "after"), ("after=1-2", "after")]
)
def test_bad_parameters_of_the_list_are_named(client: FlaskClient, query: str, field: str) -> None:
    assert problem(client.get(f"/api/conversations?{query}"), 422, "invalid")["errors"][0]["field"] == field


@pytest.mark.parametrize("media_type", [
    None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp",
    "application/json; charset=latin-1", "application/merge-patch+json",
])  # fmt: skip
def test_other_media_types_are_not_taken(client: FlaskClient, media_type: str | None) -> None:
    problem(client.post(MESSAGES, data=b"{}", content_type=media_type), 415, "unsupported-media-type")


@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, identity"])
def test_compressed_bodies_are_not_taken(client: FlaskClient, coding: str) -> None:
    response = client.post(
        MESSAGES, data=b"{}", content_type="application/json", headers={"Content-Encoding": coding}
    )
    problem(response, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "application/json;charset=UTF-8", "APPLICATION/JSON"]
)
def test_json_may_say_that_it_is_utf8(client: FlaskClient, media_type: str) -> None:
    problem(client.post(MESSAGES, data=b"{}", content_type=media_type), 422, "invalid")


@pytest.mark.parametrize(
    ("path", "limit"), [(MESSAGES, 4 * 1024**2 + 64 * 1024), ("/api/conversations/c1/sync", 16 * 1024**2)]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_beyond_the_limit_are_not_read(app: Flask, path: str, limit: int, chunked: bool) -> None:
    read = 0

    class Body(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            nonlocal read
            read += len(buffer)
            return len(buffer)

    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "CONTENT_TYPE": "application/json",
        "HTTP_AUTHORIZATION": f"Bearer {token()}",
        "wsgi.input": io.BufferedReader(Body()),
    }
    environ |= {"wsgi.input_terminated": True} if chunked else {"CONTENT_LENGTH": str(20 * 1024**2)}
    response = app.test_client().open(environ_overrides=environ)
    assert problem(response, 413, "body-too-large")["limit"] == limit
    assert read <= (limit + 256 * 1024 if chunked else 0)


def test_a_body_that_ends_early_is_malformed(app: Flask) -> None:
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": MESSAGES,
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "100",
        "HTTP_AUTHORIZATION": f"Bearer {token()}",
        "wsgi.input": io.BytesIO(b'{"id":'),
    }
    problem(app.test_client().open(environ_overrides=environ), 400, "malformed")


@pytest.mark.parametrize(("path", "methods"), [
    (MESSAGES, {"GET", "HEAD", "OPTIONS", "POST", "PUT"}), ("/api/conversations", {"GET", "HEAD", "OPTIONS", "POST"}),
    (f"{MESSAGES}/m1", {"GET", "HEAD", "OPTIONS", "PATCH", "DELETE"}), ("/healthz", {"GET", "HEAD", "OPTIONS"}),
])  # fmt: skip
def test_other_methods_are_answered_with_those_there_are(
    client: FlaskClient, path: str, methods: set[str]
) -> None:
    response = client.open(path, method="PROPFIND")
    problem(response, 405, "method-not-allowed")
    assert set(response.headers["Allow"].split(", ")) == methods
    options = client.options(path)
    assert options.status_code == 200
    assert set(options.headers["Allow"].split(", ")) == methods


@pytest.mark.parametrize("path", [
    "/nowhere", "/api", "/api/conversations/", "/api/conversations/c1/", "//api/conversations", f"{MESSAGES}/", "/static/no",
    "/api/conversations//messages", "/api/conversations/c1/messages/a/b", "/problems/none", "/static/../app.py",
])  # fmt: skip
def test_unknown_addresses_are_404_slashes_included(client: FlaskClient, path: str) -> None:
    problem(client.get(path), 404, "not-found")


def test_every_answer_carries_the_security_headers(client: FlaskClient) -> None:
    for response in (
        client.get("/healthz"),
        client.get("/nowhere"),
        client.get("/docs"),
        client.post(MESSAGES),
    ):
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "unsafe" not in response.headers["Content-Security-Policy"]


def test_a_request_id_goes_through_or_is_made(client: FlaskClient) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    for bad in ("", "a b", "x" * 129, "é"):
        made = client.get("/healthz", headers={"X-Request-Id": bad}).headers["X-Request-Id"]
        assert made != bad
        assert len(made) == 36


def test_pages_refer_to_nothing_elsewhere(client: FlaskClient) -> None:
    for path in ("/", "/docs", "/static/docs.js", "/static/pages.css", "/problems/gone"):
        with client.get(path) as response:
            assert response.status_code == 200
            assert b"http://" not in response.get_data()
            assert b"https://" not in response.get_data()


@pytest.mark.parametrize("path", ["/", "/docs", "/ops", "/problems/gone"])
def test_a_page_has_an_icon_and_its_links_lead_somewhere(client: FlaskClient, path: str) -> None:
    html = client.get(path).get_data(as_text=True)
    (icon,) = re.findall(r"rel=\"?icon\"? href=\"?([^ \">]+)", html)
    links = set(re.findall(r"(?:href|src)=\"?(/[^ \">#]*)", html))
    assert icon in links
    assert links & {"/", "/docs"} or path == "/", "no way back"
    for link in links - {"/readyz", "/metrics"}:  # these two reach for the pipeline
        with client.get(link) as found:
            assert found.status_code == 200, link


def test_browsers_find_the_icon_where_they_look_for_it(client: FlaskClient) -> None:
    with client.get("/favicon.ico") as found:
        assert (found.status_code, found.mimetype) == (200, "image/svg+xml")
        assert found.get_data().startswith(b"<svg")


def test_readiness_names_an_address_of_postgres_that_libpq_does_not_take() -> None:
    settings = Settings(jwt_secret=SECRET, database_url="postgresql://u:hunter2@localhost/x?nonsense=1")
    response = create_app(settings).test_client().get("/readyz")
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert response.get_json() == {
        "status": "unavailable",
        "buffer": "unknown",
        "store": "misconfigured: DATABASE_URL",
    }


@pytest.mark.parametrize("length", [512, 513, 4096])
def test_a_cursor_as_long_as_ours_may_be_is_read(length: int) -> None:
    """A cursor holds a place, which grows where items were put between others."""
    asked: list[object] = []

    class Reads:
        def items(self, *_: object, after: object, **__: object) -> Any:
            asked.append(after)
            return SimpleNamespace(items=[], after=None, partial=False, etag=None)

    app = create_app(Settings(jwt_secret=SECRET), Reads())  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {token()}"}
    path = f"/api/conversations/c1/messages?after={'x' * length}"
    assert app.test_client().get(path, headers=headers).status_code == 200
    assert asked == ["x" * length]


def test_alive_touches_nothing(client: FlaskClient) -> None:
    response = client.get("/healthz")
    assert (response.status_code, response.get_json()) == (200, {"status": "ok"})
    assert client.head("/healthz").get_data() == b""


def test_one_owners_requests_are_limited_but_not_anothers() -> None:
    client = make(owner_requests_per_minute=3).test_client()
    path = "/api/conversations/%20/messages"
    statuses = [
        client.get(path, headers={"Authorization": f"Bearer {token(sub=sub)}"}).status_code
        for sub in ("ann", "ann", "ann", "ann", "bob")
    ]
    assert statuses == [422, 422, 422, 429, 422]
    refused = client.get(path, headers={"Authorization": f"Bearer {token()}"})
    problem(refused, 429, "rate-limited")
    assert int(refused.headers["Retry-After"]) >= 1


def test_one_owners_bytes_are_limited_before_they_are_read_as_json() -> None:
    client = make(owner_bytes_per_minute=1000).test_client()
    sent = {"data": b"x" * 600, "content_type": "application/json"}
    statuses = [
        client.post(MESSAGES, headers={"Authorization": f"Bearer {token(sub=sub)}"}, **sent).status_code
        for sub in ("ann", "ann", "ann", "bob")
    ]
    assert statuses == [400, 400, 429, 400]
    refused = client.post(MESSAGES, headers={"Authorization": f"Bearer {token()}"}, **sent)
    assert "bytes" in problem(refused, 429, "rate-limited")["detail"]
    assert int(refused.headers["Retry-After"]) >= 1


def test_embedded_there_is_no_limit() -> None:
    client = make(owner_requests_per_minute=1, owner_bytes_per_minute=1, embedded=True).test_client()
    headers = {"Authorization": f"Bearer {token()}"}
    statuses = {client.get("/api/conversations/%20", headers=headers).status_code for _ in range(5)}
    assert statuses == {422}


def test_listed_origins_may_call_and_read_the_headers() -> None:
    client = make(cors_origins=("https://chat.example.com", "http://localhost:3000")).test_client()
    asked = {
        "Origin": "https://chat.example.com",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    preflight = client.options(f"{MESSAGES}/m1", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://chat.example.com"
    assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"].lower()
    assert int(preflight.headers["Access-Control-Max-Age"]) > 0
    assert "Access-Control-Allow-Credentials" not in preflight.headers
    refused = client.get(MESSAGES, headers={"Origin": "https://chat.example.com"})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://chat.example.com"
    assert "ETag" in refused.headers["Access-Control-Expose-Headers"]
    assert "Origin" in refused.headers["Vary"]


@pytest.mark.parametrize("origin", [
    "https://evil.example.com", "http://chat.example.com", "https://chat.example.com.evil.org", "null",
    "https://chatxexample.com", "https://chat.example.com:8443",
])  # fmt: skip
def test_other_origins_get_no_permission(origin: str) -> None:
    client = make(cors_origins=("https://chat.example.com",)).test_client()
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert "Access-Control-Allow-Origin" not in client.options(MESSAGES, headers=asked).headers
    assert "Access-Control-Allow-Origin" not in make().test_client().options(MESSAGES, headers=asked).headers


@pytest.mark.parametrize(
    "origin", ["chat.example.com", "https://a.b/path", "https://*.example.com", "ftp://a.b", "https://u@a.b"]
)
def test_what_is_no_origin_refuses_to_start(origin: str) -> None:
    with pytest.raises(SettingsError, match="BLOTTER_CORS_ORIGINS"):
        make(cors_origins=(origin,))


def test_without_a_key_it_refuses_to_start() -> None:
    with pytest.raises(SettingsError):
        create_app(Settings(), Untouched())  # type: ignore[arg-type]


def test_the_log_holds_the_route_and_no_ids_queries_tokens_or_text(capfd: pytest.CaptureFixture[str]) -> None:
    import sys

    sys.stderr = sys.__stderr__  # the descriptor's stream: the log writes bytes
    try:
        client = make().test_client()
        secret = token()
        client.post(
            "/api/conversations/private-id/messages?q=private-query",
            data=json.dumps({"id": "private-message", "content": "private text"}),
            content_type="application/json",
            headers={"Authorization": f"Bearer {secret}", "X-Request-Id": "req-1"},
        )
    finally:
        written = capfd.readouterr().err
    (line,) = [orjson.loads(line) for line in written.splitlines() if line.startswith("{")]
    assert {"method": "POST", "status": 422, "request_id": "req-1", "level": "info"}.items() <= line.items()
    assert line["route"] == "/api/conversations/<conversation_id>/messages"
    # As the workers' log and the tables name it.
    assert line["conversation"] == conversation_uid("ann", "private-id").hex
    assert "private" not in written
    assert secret not in written


def test_a_fault_of_ours_is_a_500_that_tells_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    app = make()
    app.testing = False
    response = app.test_client().get("/api/conversations/c1", headers={"Authorization": f"Bearer {token()}"})
    body = problem(response, 500, "internal")
    assert "reached" not in json.dumps(body)
    assert response.headers["X-Request-Id"]
