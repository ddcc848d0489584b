"""Every alert fires in the state it is for, and no other does: real /metrics of a stack in that state, judged by Prometheus."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from models.buffer import keys
from models.buffer.partitions import Partitions
from models.pipeline.figures import flush_counters, keep
from models.postgres.store import Store
from models.settings import load
from tests.flow.api import SECRET, Api, fresh
from tests.flow.crews import CrewRig
from tests.flow.rig import rig
from tests.flow.test_alerts import DEPLOY, rules
from tests.servers import Running, RunningPostgres, start_valkey
from web.app import create_app
from web.events.metrics import Metrics

PROMTOOL = shutil.which("promtool")
#: A web process is scraped each minute: so often when all is well, then so often in the bad state.
WELL, BAD = 10, 20
NOWHERE = "postgresql://127.0.0.1:1/none"


class Stack(NamedTuple):
    """Web, a worker's crew, events' figures, and the servers behind them."""

    api: Api
    chat: CrewRig
    broker: Running
    events: Metrics
    patch: pytest.MonkeyPatch

    def scrape(self) -> str:
        web = self.api.app.test_client().get("/metrics").get_data(as_text=True)
        return web + self.events.exposition().decode()

    def save(self) -> int:
        return self.api("POST", f"{fresh()}/messages", {"id": "m", "role": "user"}).status


@pytest.fixture
def stack(
    postgres_server: RunningPostgres, template_database: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stack]:
    """All is well: a worker, sweeps, beat, a broker."""
    if PROMTOOL is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    with (
        start_valkey() as valkey,
        start_valkey() as broker,
        postgres_server.new_database(template_database) as url,
        rig(valkey.url, url, CELERY_BROKER_URL=broker.url) as made,
    ):
        chat = CrewRig(made.pipeline, url, made.rung)
        made.buffer.initialise()
        chat.crew.partitions.alive("host:1", 600_000)
        chat.crew.sweeper.sweep(for_beat=True)
        for key in (keys.SWEEP, keys.BEAT):
            made.buffer.client.pexpire(key, 600_000)
        events = Metrics()
        events.listening.set(1)
        yield Stack(api_of(chat), chat, broker, events, monkeypatch)


def api_of(made: CrewRig) -> Api:
    api = Api(made, create_app(load({"BLOTTER_JWT_SECRET": SECRET}), made.pipeline))
    api.app.extensions["blotter"].around._look_s = 0.0
    return api


# ------------------------------------------------------------------ states
def nothing(_: Stack) -> None:
    pass


def buffer_away(stack: Stack) -> None:
    stack.chat.buffer.client.shutdown(nosave=True)


def web_away(stack: Stack) -> None:
    stack.patch.setattr(Stack, "scrape", lambda self: self.events.exposition().decode())


def no_append_only_file(stack: Stack) -> None:
    stack.chat.buffer.client.config_set("appendonly", "no")


def another_number_of_partitions(stack: Stack) -> None:
    for partition in stack.chat.buffer.partitions:
        stack.chat.buffer.client.hset(partition.meta, "n", "8")


def used(share: float) -> Callable[[Stack], None]:
    def fill(stack: Stack) -> None:
        client = stack.chat.buffer.client
        client.config_set("maxmemory", round(client.info("memory")["used_memory"] / share))

    return fill


def four_minutes_without_a_flush(stack: Stack) -> None:
    assert stack.save() == 202
    now_ms = Partitions.now_ms
    stack.patch.setattr(Partitions, "now_ms", lambda self: now_ms(self) + 240_000)


def postgres_away(stack: Stack) -> None:
    settings = stack.chat.pipeline.settings.model_copy(update={"database_url": NOWHERE})
    away = Store.open(settings, role="web")

    def ping() -> None:
        try:
            away.ping()
        finally:
            away.close()

    stack.patch.setattr(stack.chat.pipeline.store, "ping", ping)


def set_back(stack: Stack) -> None:
    stack.chat.crew.partitions.claim(keys.SET_BACK, 600_000)


def flushes(seconds: float, *, failed: int = 0) -> Callable[[Stack], None]:
    def count(stack: Stack) -> None:
        counted = flush_counters(
            round(seconds * 1e6), rows=1, batches=1, buried=0, healed=0, replayed=0, failed=failed
        )
        stack.chat.crew.partitions.count(counted)

    return count


def no_worker(stack: Stack) -> None:
    stack.chat.crew.partitions.gone("host:1")


def dead_letter(stack: Stack) -> None:
    stack.chat.reject_poison()
    stack.chat.say("c", "m1", "poison")
    stack.chat.flush_once()


def broker_away(stack: Stack) -> None:
    stack.broker.kill()


def gone(*names: str) -> Callable[[Stack], None]:
    return lambda stack: stack.chat.buffer.client.delete(*names)


def writes_take_400_ms(stack: Stack) -> None:
    stack.chat.buffer.client.execute_command("CLIENT", "PAUSE", 400, "WRITE")


def a_slow_save(stack: Stack) -> None:
    conversation = fresh()
    assert stack.api("POST", f"{conversation}/messages", {"id": "m", "role": "user"}).status == 202
    stack.chat.flush(conversation)
    writes_take_400_ms(stack)
    assert stack.api("POST", f"{conversation}/messages", {"id": "n", "role": "user"}).status == 202
    stack.chat.flush(conversation)


def a_slow_disk(stack: Stack) -> None:
    stack.chat.buffer.client.delete(keys.SAMPLED)
    writes_take_400_ms(stack)
    assert keep(stack.chat.buffer, stack.chat.crew.partitions)


def a_fault(stack: Stack) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    stack.patch.setattr(stack.chat.pipeline, "save", fail)
    assert stack.save() == 500


def events_deaf(stack: Stack) -> None:
    stack.events.listening.set(0)


def events_away(stack: Stack) -> None:
    stack.patch.setattr(
        Stack, "scrape", lambda self: self.api.app.test_client().get("/metrics").get_data(as_text=True)
    )


STATES: dict[str, tuple[Callable[[Stack], None], set[str]]] = {
    "all is well": (nothing, set()),
    "buffer away": (buffer_away, {"BufferAway"}),
    "web away": (web_away, {"BufferAway"}),
    "no append-only file": (no_append_only_file, {"BufferKeepsNothing"}),
    "another number of partitions": (another_number_of_partitions, {"BufferKeepsNothing"}),
    "buffer full": (used(0.9), {"BufferFull", "BufferFilling"}),
    "buffer filling": (used(0.7), {"BufferFilling"}),
    "four minutes without a flush": (four_minutes_without_a_flush, {"BacklogOld", "PartitionLate"}),
    "Postgres away": (postgres_away, {"PostgresAway"}),
    "Postgres set back": (set_back, {"PostgresSetBack"}),
    "a flush of 7 s a minute": (flushes(7.0), {"FlushesSlow"}),
    "failing flushes": (flushes(0.1, failed=3), {"FlushesFail"}),
    "no worker": (no_worker, {"NoWorkers"}),
    "a dead letter": (dead_letter, {"DeadLetters"}),
    "broker away": (broker_away, {"BrokerAway"}),
    "nobody sweeps": (gone(keys.SWEEP, keys.BEAT), {"NobodySweeps", "BeatAway"}),
    "beat away": (gone(keys.BEAT), {"BeatAway"}),
    "slow saves": (a_slow_save, {"SavesSlow"}),
    "a slow disk": (a_slow_disk, {"BufferDiskSlow"}),
    "a fault": (a_fault, {"Faults"}),
    "events deaf": (events_deaf, {"EventsAway"}),
    "events away": (events_away, {"EventsAway"}),
}


# ------------------------------------------------------------------ tests
def test_there_is_a_state_for_every_alert() -> None:
    assert {f"Blotter{name}" for _, fired in STATES.values() for name in fired} == {
        rule["alert"] for rule in rules()
    }


@pytest.mark.parametrize("state", STATES)
def test_what_fires(stack: Stack, state: str, tmp_path: Path) -> None:
    make, expected = STATES[state]
    before = stack.scrape()
    make(stack)
    # One fault is enough.
    document = rule_test(
        before, stack.scrape(), expected, at_minute=WELL + (2 if state == "a fault" else BAD)
    )
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(document))
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rule_test(before: str, after: str, expected: set[str], *, at_minute: int) -> dict[str, object]:
    """For `promtool test rules`: ``before`` was scraped for a while, then ``after``, whose counters go on as they had come."""
    first, then = samples(before), samples(after)
    values = {}
    for name in first | then:
        well = f"{first[name]}+0x{WELL - 1}" if name in first else f"_x{WELL}"
        bad = (
            f" {then[name]}+{then[name] - first.get(name, 0.0) if counts(name) else 0}x{BAD}"
            if name in then
            else ""
        )
        values[name] = well + bad
    firing = {
        "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": f"{at_minute}m",
        "exp_samples": [
            {"labels": f'{{alertname="Blotter{name}"}}', "value": 1} for name in sorted(expected)
        ],
    }
    series = [{"series": name, "values": told} for name, told in values.items()]
    return {
        "rule_files": [str(DEPLOY / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [firing]}],
    }


def samples(text: str) -> dict[str, float]:
    """Series, with its labels -> value."""
    return {
        sample.name
        + "{"
        + ",".join(f"{label}={json.dumps(value)}" for label, value in sample.labels.items())
        + "}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("blotter_")
    }


def counts(series: str) -> bool:
    return series.partition("{")[0].endswith(("_total", "_bucket", "_count", "_sum"))
