"""A save can be followed from its request, through the doorbell, to the commit; off, nothing of OpenTelemetry is there."""

from __future__ import annotations

import gzip
import logging
import subprocess
import sys
import threading
import timeit
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from models import tracing
from models.errors import SettingsError
from models.pipeline.doorbell import Doorbell
from models.settings import load
from tests.acceptance.webserver import SECRET, environment, token, web_process
from tests.flow.crews import CrewRig
from tests.flow.events import bearer, events_process
from tests.flow.test_workers import (  # noqa: F401 (fixtures)
    Programs,
    await_workers,
    chat,
    doorbell,
    postgres,
    programs,
)
from tests.servers import eventually
from tests.unit.test_logs import data_layer  # noqa: F401 (fixture)
from web.app import create_app

WORD = "Zaubertrank"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What this process traces."""
    exporter = InMemorySpanExporter()
    tracing.start(load({}), "test", exporter)
    yield exporter
    tracing.stop()


def post(chat: CrewRig, doorbell: Doorbell, number: int, **headers: str) -> None:
    """A save through the web application, in this process; it rings for real."""
    settings = chat.pipeline.settings.model_copy(update={"jwt_secret": SECRET})
    app = create_app(settings, chat.pipeline)
    chat.pipeline._saver._ring = doorbell
    answer = app.test_client().put(
        "/api/conversations/c/messages",
        json={"id": "m1", "role": "user", "content": f"{WORD} {number}"},
        headers={"Authorization": f"Bearer {token('ann')}", **headers},
    )
    assert answer.status_code == 202, answer.text


def requests(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name.startswith("PUT ")]


def test_the_request_is_the_callers_child_and_tells_ids_alone(
    chat: CrewRig, doorbell: Doorbell, spans: InMemorySpanExporter, capfd: pytest.CaptureFixture[str]
) -> None:
    post(chat, doorbell, 1, traceparent=CALLER)
    (span,) = requests(spans)
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" in CALLER
    assert span.name == "PUT /api/conversations/<conversation_id>/messages"
    attributes = dict(span.attributes or {})
    assert attributes["http.response.status_code"] == 202
    assert attributes["blotter.conversation"] == chat.place("c").hex
    assert WORD not in span.to_json()
    logged = capfd.readouterr().err
    assert CALLER.split("-")[1] in logged, "the line of log names the trace"


def test_a_commit_is_linked_to_every_save_that_its_rows_hold(
    chat: CrewRig, doorbell: Doorbell, spans: InMemorySpanExporter
) -> None:
    for number in range(3):
        post(chat, doorbell, number)
    chat.flush_once()
    commits = [span for span in spans.get_finished_spans() if span.name == "blotter.commit"]
    linked = {link.context.span_id for span in commits for link in span.links}
    assert linked == {span.get_span_context().span_id for span in requests(spans)}
    spans.clear()
    post(chat, doorbell, 9)
    chat.flush_once()
    (commit,) = (span for span in spans.get_finished_spans() if span.name == "blotter.commit")
    assert len(commit.links) == 1, "those of the first commit were taken"
    place = chat.place("c")
    assert not chat.buffer.client.exists(place.keys.spans(place.hex, "m/m1"))


def test_a_failed_commit_keeps_its_links_and_tells_no_message(
    chat: CrewRig, doorbell: Doorbell, spans: InMemorySpanExporter
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(WORD)

    post(chat, doorbell, 1)
    with pytest.raises(RuntimeError):
        chat.flush_once(crew=chat.another(fail))
    (commit,) = (span for span in spans.get_finished_spans() if span.name == "blotter.commit")
    assert commit.status.description == "RuntimeError"
    assert WORD not in commit.to_json()
    place = chat.place("c")
    assert chat.buffer.client.llen(place.keys.spans(place.hex, "m/m1")) == 1


def test_what_is_noted_is_bounded_and_goes_by_itself(
    chat: CrewRig, doorbell: Doorbell, spans: InMemorySpanExporter
) -> None:
    for number in range(40):
        post(chat, doorbell, number)
    place = chat.place("c")
    key = place.keys.spans(place.hex, "m/m1")
    assert chat.buffer.client.llen(key) == 32
    assert 0 < chat.buffer.client.pttl(key) <= 3_600_000


@pytest.mark.timeout(120)
def test_a_save_is_followed_into_a_real_worker(
    chat: CrewRig, doorbell: Doorbell, programs: Programs, spans: InMemorySpanExporter
) -> None:
    programs.worker(OTEL_TRACES_EXPORTER="console", OTEL_BSP_SCHEDULE_DELAY="100")
    await_workers(chat, programs)
    post(chat, doorbell, 1)
    (request,) = requests(spans)
    context = request.get_span_context()
    trace, parent = f"0x{context.trace_id:032x}", f"0x{context.span_id:016x}"

    def followed() -> None:
        told = {span["name"]: span for span in documents(programs.log())}
        flush = told.get("blotter.flush")
        assert flush is not None, programs.log()
        assert (flush["context"]["trace_id"], flush["parent_id"]) == (trace, parent)
        assert flush["resource"]["attributes"]["service.name"] == "blotter-worker"
        commit = told.get("blotter.commit")
        assert commit is not None
        assert commit["parent_id"] == flush["context"]["span_id"]
        assert parent in [link["context"]["span_id"] for link in commit["links"]]

    eventually(followed, within_s=30)
    assert WORD not in programs.log()


def test_a_reader_of_events_is_followed_and_logged_under_the_conversations_uid(
    chat: CrewRig, tmp_path: Path
) -> None:
    """A stream's span ends with the stream; what it sent before SIGTERM is not lost."""
    chat.say("c", "m1", WORD)
    settings, log = chat.pipeline.settings, tmp_path / "events.log"
    environ = {
        "REDIS_URL": settings.redis_url,
        "DATABASE_URL": settings.database_url,
        "OTEL_TRACES_EXPORTER": "console",
    }
    with events_process(log, **environ) as events:
        headers = bearer() | {"traceparent": CALLER}
        assert httpx.get(events.path("c") + "?offset=-1", headers=headers).status_code == 200
        assert httpx.get(events.path("c") + "?offset=x", headers=headers).status_code == 400
        with httpx.stream("GET", events.path("c") + "?offset=-1&live=sse", headers=headers) as stream:
            next(stream.iter_bytes())
        events.stop()
    said = log.read_text()
    name = "GET /api/conversations/{conversation_id}/events"
    spans = [span for span in documents(said) if span["name"] == name]
    told = sorted(
        (span["attributes"]["http.response.status_code"], span["attributes"].get("blotter.conversation"))
        for span in spans
    )
    uid = chat.place("c").hex
    assert told == [(200, uid), (200, uid), (400, None)]
    assert {span["resource"]["attributes"]["service.name"] for span in spans} == {"blotter-events"}
    assert {(span["context"]["trace_id"], span["parent_id"]) for span in spans} == {
        tuple(f"0x{part}" for part in CALLER.split("-")[1:3])
    }
    lines = [orjson.loads(line) for line in said.splitlines() if line.startswith('{"')]
    logged = [line for line in lines if line.get("route") == "events"]
    assert {line["trace"] for line in logged} == {CALLER.split("-")[1]}
    assert {line.get("conversation") for line in logged} == {uid, None}
    assert WORD not in said


def documents(text: str) -> Iterator[dict[str, Any]]:
    """The console exporter's spans: indented JSON between lines of log."""
    for piece in f"\n{text}".split("\n{\n")[1:]:
        yield orjson.loads("{" + piece.partition("\n}")[0] + "}")


@pytest.mark.timeout(120)
def test_a_web_process_sends_what_it_traced_by_otlp_before_it_ends(
    buffer_url: str, database_url: str
) -> None:
    """To the standard's address, with the standard's variables; the last batch at SIGTERM, not five seconds later."""
    got: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, gzip_or_not(self)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        environ = environment(
            database_url,
            buffer_url,
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
            OTEL_SERVICE_NAME="chats",
        )
        try:
            with web_process(environ) as url:
                answer = httpx.put(
                    f"{url}/api/conversations/c/messages",
                    json={"id": "m1", "role": "user", "content": WORD},
                    headers={"Authorization": f"Bearer {token('ann')}"},
                )
                assert answer.status_code == 202, answer.text
        finally:
            server.shutdown()
            thread.join()
    assert {path for path, _ in got} == {"/v1/traces"}
    told = b"".join(body for _, body in got)
    assert b"PUT /api/conversations/<conversation_id>/messages" in told
    assert b"chats" in told
    assert WORD.encode() not in told


def gzip_or_not(request: BaseHTTPRequestHandler) -> bytes:
    body = request.rfile.read(int(request.headers["Content-Length"]))
    return gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body


OFF = """
import sys
from models.settings import load
from web.app import create_app
from web.edge import Edge
import workers.tasks, web.events.app, models.pipeline.spans
create_app(load({"BLOTTER_EMBEDDED": "1"})).test_client().get("/healthz")
# redis-py imports the SDK's metrics where it finds them; traces are ours.
print([name for name in sys.modules if name.startswith("opentelemetry.sdk.trace")])
"""


def test_off_nothing_is_imported_and_a_span_costs_nothing(tmp_path: Path) -> None:
    for missing in ("", "import sys; sys.modules['opentelemetry'] = None\n"):
        run = subprocess.run(
            [sys.executable, "-c", missing + OFF], capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == "[]"
    assert not tracing.on()
    seconds = min(timeit.repeat(lambda: tracing.span("x", links=()), number=10_000, repeat=5)) / 10_000
    logging.getLogger(__name__).info("a span that is off: %.0f ns", seconds * 1e9)
    assert seconds < 5e-6
    assert tracing.carried() == {}
    assert tracing.trace_id() == ""


@pytest.mark.parametrize(("name", "said"), [("nonesuch", "no exporter nonesuch is installed")])
def test_an_exporter_that_is_not_there_is_refused(name: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        tracing.check(load({"OTEL_TRACES_EXPORTER": name}))


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'blotter\[otel\]'"):
        tracing.check(load({"OTEL_TRACES_EXPORTER": "otlp"}))
    tracing.check(load({}))
