"""A buffer that fills up: saves are refused with 503 and Retry-After before anything of them is written; reads and flushes go
on; it opens again by itself when what was buffered is stored and has left.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from models.settings import load
from tests.flow.api import SECRET, Api, Reply
from tests.flow.crews import CrewRig, crew_rig
from tests.servers import RunningPostgres, eventually, start_valkey
from web.app import create_app

TEXT = "x" * 200_000


@pytest.fixture
def small(postgres_server: RunningPostgres, template_database: str) -> Iterator[tuple[Api, CrewRig]]:
    with (
        start_valkey(maxmemory="24mb") as valkey,
        postgres_server.new_database(template_database) as database_url,
        crew_rig(valkey.url, database_url, BLOTTER_MIN_IDLE_SECONDS="0", BLOTTER_IDLE_SECONDS="0.1") as made,
    ):
        yield Api(made, create_app(load({"BLOTTER_JWT_SECRET": SECRET}), made.pipeline)), made


def save(api: Api, conversation: str, **fields: object) -> Reply:
    return api("PUT", f"{conversation}/messages", {"id": "m", "role": "user", "content": TEXT, **fields})


def fill(api: Api) -> list[str]:
    """Save until it is refused; the conversations that were acknowledged."""
    kept: list[str] = []
    for number in itertools.count():
        answer = save(api, f"c{number}")
        if answer.status != 202:
            assert (answer.status, answer.body["type"]) == (503, "/problems/buffer-full")
            assert int(answer.headers["Retry-After"]) >= 1
            return kept
        kept.append(f"c{number}")
        api.rig.pipeline.pressure.refresh()
    raise AssertionError


def test_it_refuses_whole_saves_while_reads_and_flushes_go_on_and_opens_again(
    small: tuple[Api, CrewRig],
) -> None:
    api, rig = small
    kept = fill(api)
    client = rig.buffer.client
    assert 40 < len(kept) < 110
    before = {key: client.dump(key) for key in client.scan_iter(count=1000)}
    sync = {"messages": [{"id": f"s{n}", "role": "user", "content": TEXT} for n in range(4)]}
    refused = [
        save(api, "new"),
        save(api, kept[0], content="another"),
        api("POST", f"{kept[0]}/sync", sync),
        api("POST", "/api/conversations", {"title": "new"}),
        api("PATCH", kept[0], {"title": "new"}),
    ]
    assert {(r.status, r.body["type"], "Retry-After" in r.headers) for r in refused} == {
        (503, "/problems/buffer-full", True)
    }
    assert {key: client.dump(key) for key in client.scan_iter(count=1000)} == before, "half of it was written"
    # Reads go on, and so does the way to Postgres.
    assert api("GET", kept[0]).body["messages"][0]["content"] == TEXT
    assert rig.crew.drain(within_s=30).done
    assert len(rig.stored(kept[-1])) == 1
    # And there is room again: what is stored leaves, nobody has to do anything.

    def opens() -> bool:
        rig.crew.sweeper.sweep()
        return save(api, "new").status == 202

    eventually(opens, within_s=20, every_s=0.1)
    for conversation in (kept[0], kept[-1], "new"):
        assert api("GET", conversation).body["messages"][0]["content"] == TEXT


def test_a_server_that_is_full_itself_refuses_as_clearly(small: tuple[Api, CrewRig]) -> None:
    """Between two looks at the figures: Valkey says OOM before a script writes its first byte."""
    api, rig = small
    assert save(api, "first").status == 202
    client = rig.buffer.client
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory", used - 1)
    before = {key: client.dump(key) for key in client.scan_iter(count=1000)}
    answer = save(api, "first", content="another")
    assert (answer.status, answer.body["type"]) == (503, "/problems/buffer-full")
    assert "Retry-After" in answer.headers
    assert {key: client.dump(key) for key in client.scan_iter(count=1000)} == before
    assert api("GET", "first").body["messages"][0]["content"] == TEXT
    assert rig.crew.drain(within_s=30).done
