"""Who gets the demo, and who does not: the guard, the owners, the spool, the addresses. Nothing is connected."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers

from models.settings import Settings
from web.app import create_app
from web.demo import guard, owners
from web.demo.breaking import kill_one_worker
from web.demo.place import Place
from web.demo.spool import MOST_WAITING, Full, Job, Spool

SECRET = "a-secret-of-at-least-32-bytes-for-tests"
HOST = "127.0.0.1:8400"
KEY = "0123456789abcdef" * 2
OWN = {"Origin": f"http://{HOST}", "Host": HOST, "Content-Type": "application/json"}
ADDRESSES = [
    ("GET", "/demo/frame"),
    ("POST", "/demo/session"),
    ("POST", "/demo/reply"),
    ("POST", "/demo/kill-worker"),
]


class Untouched:
    """A pipeline nobody may reach."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the pipeline was reached: {name}")


def client(monkeypatch: pytest.MonkeyPatch, data: Path | None, **settings: Any) -> FlaskClient:
    for name in ("HOST", "BLOTTER_DATA"):
        monkeypatch.delenv(name, raising=False)
    if data is not None:
        monkeypatch.setenv("BLOTTER_DATA", str(data))
    given = {"jwt_secret": SECRET, "embedded": True, "events_url": "http://127.0.0.1:8401", **settings}
    return create_app(Settings(**given), Untouched()).test_client()  # type: ignore[arg-type]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FlaskClient:
    (tmp_path / "run").mkdir()
    return client(monkeypatch, tmp_path)


def token(page: FlaskClient, browser: str = KEY) -> str:
    answer = page.post("/demo/session", json={"browser": browser}, headers=OWN)
    assert answer.status_code == 200, answer.get_data()
    found: str = answer.get_json()["token"]
    return found


# ---------------------------------------------------------------------- the guard
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8400", "localhost:9000", "LOCALHOST", "[::1]:8400"])
def test_this_machine_under_its_own_names_is_local(host: str) -> None:
    assert guard.is_local("127.0.0.1", Headers({"Host": host}))


@pytest.mark.parametrize("host", [
    "", "evil.test", "evil.test:8400", "127.0.0.1.evil.test", "localhost.evil.test", "127.0.0.1@evil.test", "evil.test#localhost",
    "evil.test/localhost", "localhost,evil.test", "127.0.0.2", "2130706433", "0.0.0.0", "[::1", "localhost evil.test",
])  # fmt: skip
def test_a_foreign_name_is_not_local_wherever_it_points(host: str) -> None:
    assert not guard.is_local("127.0.0.1", Headers({"Host": host}))


@pytest.mark.parametrize("remote", ["192.0.2.7", "10.0.0.1", "", None, "2001:db8::1", "localhost.evil.test"])
def test_another_machine_is_not_local(remote: str | None) -> None:
    assert not guard.is_local(remote, Headers({"Host": HOST}))


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "x-forwarded-host", "X-Real-IP", "Via"])
def test_what_came_through_a_proxy_is_not_local(name: str) -> None:
    assert not guard.is_local("127.0.0.1", Headers({"Host": HOST, name: "127.0.0.1"}))


@pytest.mark.parametrize(("headers", "own"), [
    ({"Origin": f"http://{HOST}"}, True),
    ({"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}, True),
    ({}, False),
    ({"Origin": "null"}, False),
    ({"Origin": "http://evil.test"}, False),
    ({"Origin": "http://127.0.0.1:8401"}, False),
    ({"Origin": f"https://{HOST}"}, False),
    ({"Origin": f"http://{HOST}", "Sec-Fetch-Site": "cross-site"}, False),
    ({"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-site"}, False),
])  # fmt: skip
def test_only_the_demos_own_page_may_send(headers: dict[str, str], own: bool) -> None:
    assert guard.is_own_page(Headers({"Host": HOST, **headers})) is own


# ---------------------------------------------------------------------- where there is a demo
@pytest.mark.parametrize("settings", [{"embedded": False}, {"jwt_secret": None}])
def test_without_embedded_mode_or_a_key_to_sign_with_there_is_no_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, Any]
) -> None:
    given = {"jwt_secret": SECRET, "embedded": True, **settings}
    assert Place.find(Settings(**given), {"BLOTTER_DATA": str(tmp_path)}) is None
    if given["jwt_secret"]:
        none = client(monkeypatch, tmp_path, **settings)
        assert b"chat.css" not in none.get("/").get_data()
        for method, path in ADDRESSES:
            assert none.open(path, method=method, headers=OWN, data=b"{}").status_code == 404


@pytest.mark.parametrize("environ", [
    {}, {"BLOTTER_DATA": "/data", "HOST": "0.0.0.0"}, {"BLOTTER_DATA": "/data", "HOST": "::"}, {"BLOTTER_DATA": "/data", "HOST": "example.com"},
])  # fmt: skip
def test_bound_to_more_than_loopback_there_is_no_demo(environ: dict[str, str]) -> None:
    assert Place.find(Settings(jwt_secret=SECRET, embedded=True), environ) is None  # type: ignore[call-arg]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", ""])
def test_bound_to_loopback_there_is_one(host: str) -> None:
    environ = {"BLOTTER_DATA": "/data", "HOST": host}
    assert Place.find(Settings(jwt_secret=SECRET, embedded=True), environ) is not None  # type: ignore[call-arg]


# ---------------------------------------------------------------------- the addresses
def test_the_page_is_for_this_machine_and_others_get_the_plain_one(page: FlaskClient) -> None:
    own = page.get("/", headers={"Host": HOST})
    assert b"/static/demo/main.js" in own.get_data()
    policy = own.headers.getlist("Content-Security-Policy")
    assert len(policy) == 1
    assert "connect-src 'self' http://127.0.0.1:8401;" in policy[0]
    assert "unsafe" not in policy[0]
    assert "require-trusted-types-for 'script'" in policy[0]
    foreign = page.get("/", headers={"Host": "evil.test"})
    assert foreign.status_code == 200
    assert b"<script" not in foreign.get_data()


@pytest.mark.parametrize(("method", "path"), ADDRESSES)
@pytest.mark.parametrize(
    "how", [{"Host": "evil.test", "Origin": "http://evil.test"}, {"X-Forwarded-For": "127.0.0.1"}]
)
def test_nobody_else_reaches_the_demos_addresses(
    page: FlaskClient, method: str, path: str, how: dict[str, str]
) -> None:
    headers = {**OWN, "Authorization": f"Bearer {token(page)}", **how}
    answer = page.open(path, method=method, headers=headers, data=b"{}")
    assert answer.status_code == 404
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize("path", [path for method, path in ADDRESSES if method == "POST"])
def test_another_sites_page_reaches_none_of_them(page: FlaskClient, path: str) -> None:
    headers = {**OWN, "Authorization": f"Bearer {token(page)}", "Origin": "http://127.0.0.1:3000"}
    assert page.post(path, headers=headers, data=b"{}").status_code == 404


def test_a_browser_gets_its_own_owner_for_half_an_hour(page: FlaskClient) -> None:
    one, again, other = (
        jwt.decode(token(page, key), SECRET, algorithms=["HS256"]) for key in (KEY, KEY, KEY[::-1])
    )
    assert one["sub"] == again["sub"]
    assert one["sub"] != other["sub"]
    assert one["sub"].startswith("demo-")
    assert KEY not in str(one)
    assert "scope" not in one
    assert one["exp"] - one["iat"] == owners.TOKEN_S


@pytest.mark.parametrize("browser", ["", "short", KEY.upper(), KEY + "\n", "g" * 32, "0" * 65, 5, None])
def test_a_session_needs_a_random_key(page: FlaskClient, browser: Any) -> None:
    assert page.post("/demo/session", json={"browser": browser}, headers=OWN).status_code == 422


def test_who_knows_an_owners_name_does_not_become_that_owner(page: FlaskClient) -> None:
    owner = owners.owner_of(SECRET.encode(), KEY)
    name = owner.removeprefix("demo-")
    assert owners.owner_of(SECRET.encode(), name * 2) != owner
    assert owners.owner_of(b"another secret of thirty-two bytes.", KEY) != owner


def test_a_reply_is_asked_for_with_the_browsers_own_token(page: FlaskClient, tmp_path: Path) -> None:
    wish = {"conversationId": "c", "messageId": "m", "speed": 50}
    assert page.post("/demo/reply", json=wish, headers=OWN).status_code == 401
    headers = {**OWN, "Authorization": f"Bearer {token(page)}"}
    for _ in range(2):
        assert page.post("/demo/reply", json=wish, headers=headers).status_code == 202
    owner = owners.owner_of(SECRET.encode(), KEY)
    assert list(Spool.of(tmp_path).jobs()) == [Job(owner, "c", "m", 50)]
    bad = [
        {**wish, "conversationId": "../c"},
        {**wish, "speed": 0},
        {**wish, "owner": "ann"},
        {"messageId": "m"},
    ]
    for other in bad:
        assert page.post("/demo/reply", json=other, headers=headers).status_code == 422


def test_where_there_is_no_worker_none_is_killed(page: FlaskClient) -> None:
    headers = {**OWN, "Authorization": f"Bearer {token(page)}"}
    assert page.post("/demo/kill-worker", json={}, headers=headers).status_code == 503


def test_what_is_no_worker_of_ours_is_not_killed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for words in ("", "nonsense", "999999999 15 0", f"{os.getpid()} 15 0", f"{os.getppid()} 15 0"):
        (tmp_path / "run" / "worker.pid").write_text(words)
        assert kill_one_worker(tmp_path) is None


def test_the_frame_allows_no_script_but_its_own_and_no_network(page: FlaskClient) -> None:
    policy = page.get("/demo/frame", headers={"Host": HOST}).headers["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'; ")
    assert f"script-src http://{HOST}/static/demo/frame.js;" in policy
    assert "connect-src" not in policy


@pytest.mark.parametrize(
    "name",
    ["blotter.js", "blotter/client.js", "demo/main.js", "demo/chat.css", "demo/frame.js", "demo/icon.svg"],
)
def test_the_pages_files_are_served(page: FlaskClient, name: str) -> None:
    answer = page.get(f"/static/{name}")
    assert answer.status_code == 200
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    answer.close()


# ---------------------------------------------------------------------- the spool
def test_what_is_in_the_spool_outlives_whoever_put_it_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    jobs = [Job("ann", "c", "m1", None), Job("ann", "c", "m2", 5), Job("bob", "c", "m1", None)]
    for job in jobs:
        Spool.of(tmp_path).put(job)
    assert sorted(Spool.of(tmp_path).jobs(), key=str) == sorted(jobs, key=str)
    for job in jobs:
        Spool.of(tmp_path).done(job)
        Spool.of(tmp_path).done(job)
    assert list(Spool.of(tmp_path).jobs()) == []


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b'["ann"]', b'["ann", "c", "m", "fast"]', b'["ann", "../c", "m", null]', b'["", "c", "m", null]',
    orjson.dumps(["ann", "c", "m", None]),  # right, but under another's name
])  # fmt: skip
def test_a_file_that_is_no_job_is_removed(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "replies"
    folder.mkdir()
    (folder / "0123.json").write_bytes(content)
    assert list(Spool(folder).jobs()) == []
    assert list(folder.iterdir()) == []


def test_a_full_spool_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "replies"
    folder.mkdir()
    for number in range(MOST_WAITING):
        (folder / f"{number}.json").touch()
    with pytest.raises(Full):
        Spool(folder).put(Job("ann", "c", "m"))
