"""Buffer and broker by Unix sockets: every program takes such addresses."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from models.postgres.migrate import upgrade
from models.settings import load
from tests.acceptance.webserver import environment, token, web_process
from tests.flow.crews import crew_rig
from tests.flow.test_workers import Programs, await_workers
from tests.servers import eventually, private_directory, start_postgres, start_valkey
from web.events.hints import Hints
from web.ops.around import state_of_broker


@pytest.mark.timeout(120)
def test_a_save_is_hinted_at_stored_and_read_by_unix_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        private_directory() as folder,
        start_valkey(unixsocket=f"{folder}/buffer.sock"),
        start_valkey(role="broker", unixsocket=f"{folder}/broker.sock"),
        start_postgres(fsync="off") as postgres,
    ):
        upgrade(postgres.url)
        buffer_url, broker_url = f"unix://{folder}/buffer.sock", f"redis+socket://{folder}/broker.sock"
        environ = environment(
            postgres.url, buffer_url, CELERY_BROKER_URL=broker_url, BLOTTER_SWEEP_SECONDS="60"
        )
        monkeypatch.setenv("CELERY_BROKER_URL", broker_url)
        with crew_rig(buffer_url, postgres.url, CELERY_BROKER_URL=broker_url) as chat:
            programs = Programs(environ, tmp_path)
            met: list[Any] = []
            hints = Hints(
                load(environ),
                [key.live for key in chat.buffer.partitions],
                {chat.place("c").hex},
                met.append,
                list,
            )
            try:
                hints.start()
                programs.worker()
                await_workers(chat, programs)
                eventually(lambda: hints.listening, within_s=10)
                assert state_of_broker(chat.pipeline.settings) == "ok"
                with web_process(environ) as base:
                    save(base, "c", "m1")
                    # The second one goes by the strands' connection: the first has connected the pipeline.
                    assert save(base, "c", "m2") == 202
                    eventually(lambda: set(chat.stored_texts()) == {"m1", "m2"}, within_s=20)
                    eventually(lambda: bool(met), within_s=10)
            finally:
                hints.close()
                programs.end()


def save(base: str, conversation: str, message: str) -> int:
    request = urllib.request.Request(
        f"{base}/api/conversations/{conversation}/messages",
        json.dumps({"id": message, "role": "user", "content": "a"}).encode(),
        {"Authorization": f"Bearer {token('ann')}", "Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return int(answer.status)
