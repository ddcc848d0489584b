"""What the tests of `blotter import` share: a running web, what Postgres holds of it, and a crew to flush and evict."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from blotter_client import Blotter
from psycopg.rows import dict_row

from models.identity import conversation_uid
from models.pipeline.crew import Crew
from tests.acceptance.webserver import token
from tests.servers import eventually
from web.cli.importing import verify

BLOTTER = str(Path(sys.executable).with_name("blotter"))


class Stage:
    """A running web; its Postgres; and a crew that works when a test says so (no worker runs)."""

    def __init__(self, url: str, environ: dict[str, str], crew: Crew) -> None:
        self.url = url
        self.environ = environ
        self.crew = crew

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """`blotter import` as a process of its own."""
        argv = [BLOTTER, "import", "--url", self.url, "--json", *arguments]
        return subprocess.Popen(
            argv, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> dict[str, Any]:
        """`blotter import`, which must succeed; what it reports."""
        return finished(self.command(*arguments))

    def view(self, owner: str, conversation_id: str) -> dict[str, Any]:
        with Blotter(self.url, token(owner)) as blotter:
            return verify.read(blotter, conversation_id)

    def stored_view(self, owner: str, conversation_id: str) -> dict[str, Any]:
        """What Postgres holds, by SQL alone, shaped as the API shows it."""
        uid = conversation_uid(owner, conversation_id)
        with psycopg.connect(self.environ["DATABASE_URL"], row_factory=dict_row) as connection:

            def rows(table: str, columns: str) -> list[dict[str, Any]]:
                order = "" if table == "conversations" else " AND deleted_at IS NULL ORDER BY position, id"
                found = connection.execute(
                    f"SELECT {columns} FROM {table} WHERE conversation_uid = %s{order}", (uid,)
                ).fetchall()
                return [{camel(name): value for name, value in row.items()} for row in found]

            return {
                "conversation": rows("conversations", "id, title, metadata")[0],
                "messages": rows("messages", "id, role, status, content, parts, metadata, tool_result_ids"),
                "toolResults": rows(
                    "tool_results",
                    "id, message_id, coalesce(tool_call_id, id) AS tool_call_id, tool_name, state, status, input, output, error_text",
                ),
                "artifacts": rows("artifacts", "id"),
            }

    def cool(self, owner: str, conversation_ids: list[str]) -> None:
        """Flush everything, and evict it."""
        assert self.crew.drain(within_s=60).done

        def cold() -> bool:
            self.crew.settler.settle(self.crew.buffer.now_ms())
            self.crew.evictor.evict(self.crew.buffer.now_ms())
            places = [self.crew.buffer.place(owner, name) for name in conversation_ids]
            return all(self.crew.buffer.read(place, "names", names=()).head.s == "cold" for place in places)

        eventually(cold, within_s=60)

    @contextmanager
    def churning(self) -> Iterator[None]:
        """Flush and evict all the time: what is not in flight goes cold between two saves, and is adopted again."""
        stop = threading.Event()
        faults: list[BaseException] = []

        def churn() -> None:
            try:
                while not stop.wait(0.02):
                    for keys in self.crew.buffer.partitions:
                        self.crew.flusher.flush(keys.number)
                    self.crew.evictor.evict(self.crew.buffer.now_ms())
            except BaseException as error:  # noqa: BLE001 (raised where the test looks)
                faults.append(error)

        thread = threading.Thread(target=churn)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert faults == []


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, f"{out[-3000:]}\n{err[-3000:]}"
    report: dict[str, Any] = json.loads(out)
    return report
