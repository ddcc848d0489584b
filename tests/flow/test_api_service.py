"""Readiness, figures, and what is answered while the buffer or Postgres is away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from jsonschema import ValidationError
from prometheus_client.parser import text_string_to_metric_families

from models.settings import load
from tests.flow.api import SECRET, Api, Reply, check, fresh, token
from tests.flow.rig import rig
from tests.servers import Running, RunningPostgres, eventually, start_postgres, start_valkey
from web.app import create_app


@pytest.fixture(scope="module")
def own() -> Iterator[tuple[Api, Running, RunningPostgres]]:
    """An API on servers that a test may stop."""
    from models.postgres.migrate import upgrade

    with start_valkey() as valkey, start_postgres() as postgres, postgres.new_database() as url:
        upgrade(url)
        with rig(valkey.url, url, BLOTTER_BUFFER_TIMEOUT_MS="300") as made:
            app = create_app(load({"BLOTTER_JWT_SECRET": SECRET}), made.pipeline)
            yield Api(made, app), valkey, postgres


def metrics(api: Api) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = api.app.test_client().get("/metrics").get_data(as_text=True)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_answers_are_really_held_against_the_document() -> None:
    check("GET", "/healthz", Reply(200, {}, {"status": "ok"}))
    with pytest.raises(ValidationError):
        check("GET", "/healthz", Reply(200, {}, {"status": "fine"}))
    with pytest.raises(AssertionError):
        check("GET", "/healthz", Reply(204, {}, None))


def test_saves_are_counted_by_outcome_and_dirty_items_shown(api: Api) -> None:
    before = metrics(api)
    conversation = fresh()
    for _ in range(2):
        api("POST", f"{conversation}/messages", {"id": "m", "role": "user"})
    after = metrics(api)

    def grown(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    assert grown("blotter_saves_total", outcome="accepted") == 1
    assert grown("blotter_saves_total", outcome="duplicate") == 1
    assert grown("blotter_dirty_items") == 2
    assert after["blotter_oldest_dirty_age_seconds", ()] >= 0
    assert after["blotter_dead_letters", ()] == 0
    assert after["blotter_buffer_up", ()] == 1
    route = "/api/conversations/<conversation_id>/messages"
    assert grown("blotter_request_seconds_count", method="POST", route=route, status="202") == 2
    assert conversation not in str(after)


def test_the_figures_need_an_operator_and_agree_with_the_metrics(api: Api) -> None:
    assert api("GET", "/api/status").status == 403
    figures = api("GET", "/api/status", scope="blotter:operate")
    assert figures.status == 200
    assert (figures.body["buffer"], figures.body["store"]) == ("ok", "ok")
    assert figures.body["dirtyItems"] == metrics(api)["blotter_dirty_items", ()]


def test_embedded_any_token_sees_the_figures(api: Api) -> None:
    settings = load({"BLOTTER_JWT_SECRET": SECRET, "BLOTTER_EMBEDDED": "1"})
    embedded = Api(api.rig, create_app(settings, api.rig.pipeline))
    assert embedded("GET", "/api/status").status == 200


def test_ready_while_the_buffer_answers(own: tuple[Api, Running, RunningPostgres]) -> None:
    api, _, _ = own
    ready = api("GET", "/readyz")
    assert (ready.status, ready.body) == (200, {"status": "ok", "buffer": "ok", "store": "ok"})


def test_a_buffer_that_would_not_keep_it_is_told_as_unfit_and_nothing_was_kept() -> None:
    with start_valkey() as valkey, redis.Redis.from_url(valkey.url) as client:
        environ = {
            "BLOTTER_JWT_SECRET": SECRET,
            "REDIS_URL": valkey.url,
            "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
            "DATABASE_URL": "postgresql://127.0.0.1:1/none",
        }
        web = create_app(load(environ)).test_client()
        client.config_set("appendfsync", "no")
        refused = web.post(
            "/api/conversations/c1/messages",
            json={"id": "m1", "role": "user", "content": "hello"},
            headers={"Authorization": f"Bearer {token()}"},
        )
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        told = refused.get_json()
        assert told["type"] == "/problems/buffer-unfit"
        assert told["detail"].startswith("Nothing was kept")
        assert not [key for key in client.keys("*") if b"c1" in key or b"m1" in (client.dump(key) or b"")]


def test_without_postgres_saves_go_on_and_readiness_is_only_degraded(
    own: tuple[Api, Running, RunningPostgres],
) -> None:
    api, _, postgres = own
    hot, cold = fresh(), fresh()
    for conversation in (hot, cold):
        api("POST", f"{conversation}/messages", {"id": "m1", "role": "user", "content": "before"})
    api.rig.evict(cold)
    postgres.stop()
    try:
        ready = api("GET", "/readyz")
        assert (ready.status, ready.body["status"]) == (200, "degraded")
        assert api("PUT", f"{hot}/messages", {"id": "m1", "content": "after"}).status == 202
        assert api("GET", f"{hot}/messages/m1").body["content"] == "after"
        new = fresh()
        blind = api("POST", f"{new}/messages", {"id": "m1", "role": "user", "content": "blind"})
        assert (blind.status, blind.body["base"]) == (202, "unknown")
        # Nothing was waited for.
        update = {"id": "m1", "content": "blind"}
        preferring = api("PUT", f"{new}/messages", update, headers={"Prefer": "wait=5"})
        assert (preferring.status, "Preference-Applied" in preferring.headers) == (202, False)
        unknown = api("GET", f"{new}/messages/other")
        assert (unknown.status, unknown.body["type"]) == (503, "/problems/store-unavailable")
        view = api("GET", new)
        assert (view.status, view.body["partial"]) == (200, True)
        assert "ETag" not in view.headers
        one, page = api("GET", f"{new}/messages/m1"), api("GET", f"{new}/messages")
        assert (one.body["partial"], page.body["partial"]) == (True, True)
        assert "ETag" not in one.headers
        assert "partial" not in api("GET", f"{hot}/messages").body | api("GET", f"{hot}/messages/m1").body
        away = api("GET", cold)
        assert (away.status, away.body["type"]) == (503, "/problems/store-unavailable")
        assert int(away.headers["Retry-After"]) >= 1
        step = {"append": {"offset": 6, "text": "x"}}
        assert api("PATCH", f"{cold}/messages/m1", step).status == 503
        listed = api("GET", "/api/conversations")
        assert (listed.status, listed.body["degraded"]) == (200, True)
    finally:
        postgres.start()
    eventually(lambda: api("GET", cold).status == 200)
    known = api("GET", f"{new}/messages/m1")
    assert (known.body["content"], "partial" in known.body, "ETag" in known.headers) == ("blind", False, True)
    assert "partial" not in api("GET", f"{new}/messages").body


def test_without_the_buffer_nothing_is_acknowledged_but_figures_are_answered(
    own: tuple[Api, Running, RunningPostgres],
) -> None:
    api, valkey, _ = own
    valkey.stop()
    try:
        ready = api("GET", "/readyz")
        assert (ready.status, ready.body["status"]) == (503, "unavailable")
        assert ready.headers["Retry-After"]
        refused = api("POST", f"{fresh()}/messages", {"id": "m1", "role": "user"})
        assert (refused.status, refused.body["type"]) == (503, "/problems/buffer-unavailable")
        assert refused.headers["Retry-After"]
        assert metrics(api)["blotter_buffer_up", ()] == 0
        assert api("GET", "/healthz").status == 200
    finally:
        valkey.start()
    eventually(lambda: api("GET", "/readyz").status == 200)
