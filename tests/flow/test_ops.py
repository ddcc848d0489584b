"""The operators' page and its figures, on a real pipeline; /metrics and the page tell the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.buffer import keys
from models.core import series
from models.pipeline.crew import Crew
from models.pipeline.figures import history, keep, measure
from models.settings import load
from tests.flow.api import SECRET, Api, fresh
from tests.flow.rig import rig
from tests.servers import RunningPostgres, eventually, start_valkey
from web.app import create_app
from web.ops.around import broker_state

OPERATOR = {"scope": "blotter:operate"}


@pytest.fixture
def own(postgres_server: RunningPostgres, template_database: str) -> Iterator[tuple[Api, Crew]]:
    """An API and a crew on servers of their own; the broker is a third server."""
    with (
        start_valkey() as valkey,
        start_valkey() as broker,
        postgres_server.new_database(template_database) as url,
        rig(valkey.url, url, CELERY_BROKER_URL=broker.url, BLOTTER_BUFFER_TIMEOUT_MS="300") as made,
    ):
        crew = Crew(made.buffer, made.pipeline.store, lambda _: None)
        yield Api(made, create_app(load({"BLOTTER_JWT_SECRET": SECRET}), made.pipeline)), crew


def sample_taken(crew: Crew) -> None:
    """Take one now, whoever took one before."""
    crew.buffer.client.delete(keys.SAMPLED)
    assert keep(crew.buffer, crew.partitions)


def test_only_an_operator_sees_them_and_the_page_itself_holds_nothing(api: Api) -> None:
    assert api("GET", "/api/ops").status == 403
    assert api.app.test_client().get("/api/ops").status_code == 401
    page = api.app.test_client().get("/ops")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]


def test_saves_are_drawn_by_whichever_process_took_them(own: tuple[Api, Crew]) -> None:
    api, crew = own
    other = Api(api.rig, create_app(load({"BLOTTER_JWT_SECRET": SECRET}), api.rig.pipeline))
    sample_taken(crew)
    conversation = fresh()
    for number in range(6):
        (api if number % 2 else other)(
            "POST", f"{conversation}/messages", {"id": "m", "role": "user", "content": str(number)}
        )
    synced = {"messages": [{"id": "n", "role": "user"}, {"id": "o", "role": "user"}]}
    assert api("POST", f"{conversation}/sync", synced).status == 200
    eventually(lambda: measure(crew.buffer, crew.partitions).sample.saves == 8, within_s=10)
    api.rig.flush(conversation)
    crew.partitions.count({"rows": 4})
    shown = api("GET", "/api/ops", **OPERATOR)
    assert shown.status == 200
    assert shown.body["recent"]["coalescing"] == 2.0
    assert 0 < shown.body["recent"]["ackP50Seconds"] <= shown.body["recent"]["ackP99Seconds"] < 10
    sample_taken(crew)
    drawn = other("GET", "/api/ops", **OPERATOR).body["series"]
    assert {len(values) for values in drawn.values()} == {2}
    assert drawn["savesPerSecond"][0] is None
    assert drawn["savesPerSecond"][1] > 0
    assert drawn["coalescing"][1] == 2.0


def test_a_sweep_takes_a_sample_every_ten_seconds_and_an_hour_is_kept(own: tuple[Api, Crew]) -> None:
    _, crew = own
    for _ in range(3):
        crew.sweeper.sweep()
    assert len(history(crew.partitions)) == 1
    assert 0 < crew.buffer.client.pttl(keys.SAMPLED) <= series.EVERY_MS
    for _ in range(series.KEPT + 5):
        crew.partitions.keep_sample(series.encode(series.Sample(at_ms=1)), series.KEPT)
    assert len(history(crew.partitions)) == series.KEPT
    sample_taken(crew)
    kept = history(crew.partitions)
    assert kept[-1].at_ms > kept[0].at_ms == 1
    assert 0 < kept[-1].buffer_write_seconds < 5


def test_samples_are_taken_when_the_buffer_is_full_for_that_is_when_they_are_looked_at(
    own: tuple[Api, Crew],
) -> None:
    _, crew = own
    client = crew.buffer.client
    client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)
    try:
        sample_taken(crew)
    finally:
        client.config_set("maxmemory", 0)
    assert len(history(crew.partitions)) == 1


def test_it_is_green_amber_and_red_with_reason_and_step(own: tuple[Api, Crew]) -> None:
    api, crew = own
    api.app.extensions["blotter"].around._look_s = 0.0
    crew.partitions.alive("host:1", 60_000)
    crew.sweeper.sweep(for_beat=True)
    assert api("GET", "/api/ops", **OPERATOR).body["reasons"] == []

    crew.partitions.gone("host:1")
    amber = api("GET", "/api/ops", **OPERATOR).body
    assert amber["level"] == "amber"
    assert amber["reasons"][0]["step"] == "start workers"

    crew.buffer.client.config_set("appendonly", "no")
    red = api("GET", "/api/ops", **OPERATOR).body
    assert red["level"] == "red"
    assert "appendonly" in red["reasons"][0]["reason"]
    assert "blotter_buffer_policy_faults 1.0" in api.app.test_client().get("/metrics").get_data(as_text=True)


def test_a_buffer_laid_out_for_another_number_of_partitions_is_red(own: tuple[Api, Crew]) -> None:
    """It was green: every figure was of the partitions that web knows, while every save was refused."""
    api, crew = own
    api.app.extensions["blotter"].around._look_s = 0.0
    crew.buffer.initialise()
    crew.partitions.alive("host:1", 60_000)
    crew.sweeper.sweep(for_beat=True)
    assert api("GET", "/api/ops", **OPERATOR).body["level"] == "green"
    for partition in crew.buffer.partitions:
        crew.buffer.client.hset(partition.meta, "n", "8")
    (told,) = api("GET", "/api/ops", **OPERATOR).body["reasons"]
    assert (told["level"], "set it to 8" in told["step"]) == ("red", True)
    assert "blotter_buffer_policy_faults 1.0" in api.app.test_client().get("/metrics").get_data(as_text=True)


def test_without_the_buffer_the_page_says_so(own: tuple[Api, Crew]) -> None:
    api, crew = own
    crew.buffer.client.shutdown(nosave=True)
    shown = api("GET", "/api/ops", **OPERATOR)
    assert shown.status == 200
    assert (shown.body["level"], shown.body["figures"], shown.body["series"]) == ("red", None, {})
    assert "saves are refused" in shown.body["reasons"][0]["reason"]


def test_metrics_tell_what_the_page_tells(own: tuple[Api, Crew]) -> None:
    api, crew = own
    api("POST", f"{fresh()}/messages", {"id": "m", "role": "user"})
    crew.sweeper.sweep(for_beat=True)
    text = api.app.test_client().get("/metrics").get_data(as_text=True)
    found = {
        (sample.name, sample.labels.get("partition", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    figures = api("GET", "/api/ops", **OPERATOR).body["figures"]
    assert found["blotter_store_up", ""] == found["blotter_broker_up", ""] == 1
    assert found["blotter_buffer_policy_faults", ""] == 0
    assert found["blotter_buffer_write_seconds", ""] == figures["bufferWriteSeconds"] > 0
    assert found["blotter_acknowledgement_seconds_count", ""] >= 1
    assert 0 <= found["blotter_beat_age_seconds", ""] < 60
    due = {str(one["partition"]): one["due"] for one in figures["partitions"]}
    assert {
        part: value for (name, part), value in found.items() if name == "blotter_partition_due_items"
    } == due
    assert sum(due.values()) == 2


@pytest.mark.parametrize(
    ("url", "state"),
    [
        ("redis://127.0.0.1:1/0", "unavailable"),
        ("amqp://u:secret@127.0.0.1:1//", "unavailable"),
        ("memory://", "ok"),
        ("nonsense://u:secret@x", "KeyError"),
    ],
)
def test_a_broker_of_any_kind_is_asked_once_and_its_address_is_not_told(url: str, state: str) -> None:
    assert broker_state(url) == state
