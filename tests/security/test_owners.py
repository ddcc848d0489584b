"""Every call of the published document with another owner's ids: nothing is read, changed, listed or learned.

What an intruder may see is what a stranger sees where nothing ever was. So each call is made twice, with the ids of somebody's
conversation and with ids that nobody has used, and must be answered alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flow.api import Api, Reply, fresh
from tests.flow.events import EventsProcess, bearer, events_process
from tests.flow.rig import rig
from tests.security.bodies import BODIES, EVENTS, MARK, OF_A_CONVERSATION, ROUTES, Route
from tests.servers import RunningPostgres, start_valkey

IDS = [route.id for route in OF_A_CONVERSATION]


def test_no_route_is_forgotten() -> None:
    assert {route.id for route in ROUTES if route.body} == set(BODIES)
    unnamed = {part for route in ROUTES for part in re.findall(r"{(\w+)}", route.path)}
    assert unnamed == {"conversationId", "messageId", "toolResultId", "artifactId", "slug"}
    assert [route.path for route in ROUTES if route.path.startswith("/api/") and not route.guarded] == []
    assert all(route.guarded for route in OF_A_CONVERSATION)


def belongings(api: Api, owner: str = "ann") -> str:
    """A conversation of ``owner`` with an item of every kind, all marked."""
    conversation = fresh("owned")
    for path, body in (
        ("messages", {"id": "m1", "role": "assistant", "content": MARK, "metadata": {"x": MARK}}),
        ("tool-results", {"id": "t1", "messageId": "m1", "output": {"x": MARK}}),
        ("artifacts", {"id": "a1", "messageId": "m1", "kind": "text", "title": MARK, "content": MARK}),
    ):
        assert api("POST", f"{conversation}/{path}", body, owner=owner).status == 202
    assert api("PATCH", conversation, {"title": MARK}, owner=owner).status == 202
    return conversation


def told(reply: Reply, conversation: str) -> tuple[int, str]:
    """Status and body, without what differs from call to call."""
    text = json.dumps(reply.body, sort_keys=True).replace(conversation, "ID")
    text = re.sub(r'"(version|updatedAt|createdAt|lastMessageAt|position)": ("[^"]*"|\d+)', r'"\1": 0', text)
    return reply.status, text


def call(api: Api, route: Route, conversation: str, **how: Any) -> Reply:
    body = BODIES.get(route.id)
    if route.id == "createConversation":
        body = {**BODIES[route.id], "id": conversation}
    return api(route.method, route.to(conversation), body, **how)


@pytest.mark.parametrize("cold", [False, True], ids=["hot", "cold"])
@pytest.mark.parametrize(
    "route", [r for r in OF_A_CONVERSATION if r.id != EVENTS], ids=lambda route: route.id
)
def test_anothers_ids_are_as_good_as_none(api: Api, route: Route, cold: bool) -> None:
    theirs, nobodys = belongings(api), fresh("nobodys")
    if cold:
        api.rig.evict(theirs)
    before = api("GET", theirs)
    seen = call(api, route, theirs, owner="eve")
    assert told(seen, theirs) == told(call(api, route, nobodys, owner="eve"), nobodys)
    assert MARK not in str(seen.body)
    after = api("GET", theirs)
    assert after.headers["ETag"] == before.headers["ETag"], "it was changed"
    assert after.body == before.body


def test_a_conversation_made_under_a_known_id_is_another_one(api: Api) -> None:
    theirs = belongings(api)
    before = api("GET", theirs)
    made = api("POST", "/api/conversations", {"id": theirs, "title": "mine"}, owner="eve")
    assert made.status in (201, 202)
    assert api("GET", theirs, owner="eve").body["messages"] == []
    assert api("GET", theirs).body == before.body


def test_nobodys_list_holds_anothers_conversations(api: Api) -> None:
    theirs = belongings(api)
    assert theirs in str(api("GET", "/api/conversations").body)
    for query in ("", "?archived=true", "?limit=500"):
        assert theirs not in str(api("GET", f"/api/conversations{query}", owner="nosy").body)


@pytest.mark.parametrize(
    "route", [r for r in OF_A_CONVERSATION if r.id != EVENTS], ids=lambda route: route.id
)
@pytest.mark.parametrize(
    "scope", ["", "blotter:operate", "act-for", "blotter:act-for-x", "BLOTTER:ACT-FOR", "blotter:act-for,x"]
)
def test_no_call_acts_for_another_without_exactly_that_scope(api: Api, route: Route, scope: str) -> None:
    theirs = belongings(api)
    before = api("GET", theirs)
    seen = call(api, route, theirs, owner="eve", scope=scope, headers={"Blotter-Owner": "ann"})
    assert seen.status == 403
    assert MARK not in str(seen.body)
    assert api("GET", theirs).body == before.body


@pytest.mark.parametrize(
    "named", ["ann,eve", "ANN", "ann ", "ann%00", "ann%0a", "%", "an%6e%2f..", "", "a" * 300]
)
def test_a_backend_acts_for_exactly_whom_it_names(api: Api, named: str) -> None:
    theirs = belongings(api)
    seen = api("GET", theirs, owner="backend", scope="blotter:act-for", headers={"Blotter-Owner": named})
    assert seen.status in (404, 422)
    assert MARK not in str(seen.body)


def test_figures_need_their_own_scope(api: Api) -> None:
    assert api("GET", "/api/status", scope="blotter:act-for").status == 403
    assert api("GET", "/api/status", scope="blotter:operate").status == 200


# ---------------------------------------------------------------- live
@pytest.fixture(scope="module")
def live(
    postgres_server: RunningPostgres, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EventsProcess]:
    log: Path = tmp_path_factory.mktemp("events") / "events.log"
    with (
        start_valkey() as valkey,
        postgres_server.new_database(template_database) as database_url,
        rig(valkey.url, database_url) as made,
        events_process(log, REDIS_URL=valkey.url, DATABASE_URL=database_url) as process,
    ):
        made.say("theirs", "m1", MARK)
        yield process


@pytest.mark.parametrize("query", ["offset=-1", "offset=now&live=long-poll", "offset=-1&live=sse"])
def test_nobody_follows_anothers_conversation(live: EventsProcess, query: str) -> None:
    assert MARK in httpx.get(f"{live.path('theirs')}?offset=-1", headers=bearer("ann")).text
    for headers in (bearer("eve"), {**bearer("eve", scope="blotter:operate"), "Blotter-Owner": "ann"}, {}):
        theirs = httpx.get(f"{live.path('theirs')}?{query}", headers=headers, timeout=30)
        nobodys = httpx.get(f"{live.path('nobodys')}?{query}", headers=headers, timeout=30)
        assert theirs.status_code == nobodys.status_code
        assert theirs.status_code in (401, 403, 404)
        assert theirs.content == nobodys.content
        assert MARK not in theirs.text


def test_of_two_owners_or_two_tokens_at_once_neither_is_taken(live: EventsProcess) -> None:
    """A server in front that adds its own behind a client's must not find the client's taken."""
    backend = bearer("backend", scope="blotter:act-for")["Authorization"]
    url = f"{live.path('theirs')}?offset=-1"
    for owners in (["ann", "eve"], ["eve", "ann"]):
        headers = [("Authorization", backend), *(("Blotter-Owner", owner) for owner in owners)]
        answer = httpx.get(url, headers=headers)
        assert (answer.status_code, MARK in answer.text) == (422, False)
    tokens = [("Authorization", bearer(owner)["Authorization"]) for owner in ("ann", "eve")]
    for headers in (tokens, tokens[::-1]):
        answer = httpx.get(url, headers=headers)
        assert (answer.status_code, MARK in answer.text) == (401, False)


@pytest.mark.parametrize(
    "path", ["/api/conversations/theirs/events/", "/healthz/", "//healthz", "/%2Fhealthz"]
)
def test_no_address_leads_to_another_host(live: EventsProcess, path: str) -> None:
    """A redirect would be made of the request's own Host, and of http where a proxy speaks https for us."""
    answer = httpx.get(f"{live.url}{path}", headers={**bearer("ann"), "Host": "evil.example.com"})
    assert answer.status_code == 404
    assert "Location" not in answer.headers


def test_a_token_that_ran_out_reads_no_more(live: EventsProcess) -> None:
    gone = bearer("ann", seconds=-60)
    assert httpx.get(f"{live.path('theirs')}?offset=-1", headers=gone).status_code == 401


def test_what_is_followed_is_nothing_to_be_run(live: EventsProcess) -> None:
    for query in ("offset=-1", "offset=nonsense"):
        headers = httpx.get(f"{live.path('theirs')}?{query}", headers=bearer("ann")).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in headers["Content-Security-Policy"]
