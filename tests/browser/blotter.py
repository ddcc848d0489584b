"""The running Blotter as the tests see it: what the API says, what Postgres holds, and how to break parts of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import redis
from psycopg.rows import dict_row

from models.identity import conversation_uid
from tests.acceptance.up import Up
from tests.servers import eventually

MESSAGE = ("id", "role", "status", "content", "parts", "parentId", "version", "statusReason")
TOOL_RESULT = ("id", "messageId", "toolCallId", "toolName", "state", "input", "output", "version")
ARTIFACT = ("id", "messageId", "kind", "title", "content", "status", "version")


class Blotter:
    """A `blotter up` that is ready."""

    def __init__(self, up: Up, environ: dict[str, str]) -> None:
        self.up = up
        self.url = environ["BASE_URL"]
        self._environ = environ
        self._tokens: dict[str, str] = {}

    # ------------------------------------------------------------------ what is true
    def token(self, owner: str) -> str:
        """A bearer token of the owner's."""
        if owner not in self._tokens:
            argv = [
                os.path.join(os.path.dirname(sys.executable), "blotter"),
                "token",
                owner,
                "--data",
                str(self.up.folder),
            ]
            self._tokens[owner] = subprocess.run(
                argv, capture_output=True, text=True, check=True
            ).stdout.strip()
        return self._tokens[owner]

    def call(self, owner: str, method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token(owner)}"}
        answer = httpx.request(method, f"{self.url}/api/conversations{path}", json=body, headers=headers)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def read(self, owner: str, conversation_id: str, *, branches: bool = True) -> Any:
        """What the API says."""
        return self.call(owner, "GET", f"/{conversation_id}?limit=5000{'&branches=all' if branches else ''}")

    def stored(self, owner: str, conversation_id: str) -> dict[str, Any]:
        """What Postgres holds, in the API's words and order."""
        uid = conversation_uid(owner, conversation_id)
        with psycopg.connect(self._environ["DATABASE_URL"], row_factory=dict_row) as connection:

            def rows(table: str) -> list[dict[str, Any]]:
                order = "" if table == "conversations" else ' ORDER BY position COLLATE "C", id'
                sql = f"SELECT * FROM {table} WHERE conversation_uid = %s AND deleted_at IS NULL{order}"
                return [_api(row) for row in connection.execute(sql, (uid,))]

            own = rows("conversations")
            return {
                "conversation": own[0] if own else None,
                "messages": rows("messages"),
                "toolResults": rows("tool_results"),
                "artifacts": rows("artifacts"),
            }

    def check_stored(self, owner: str, conversation_id: str) -> Any:
        """Assert that the API and Postgres say the same, nothing under way, nothing doubled; what the API says."""
        says, holds = self.read(owner, conversation_id), self.stored(owner, conversation_id)
        assert not says["inFlight"], "a reply is still under way"
        assert holds["conversation"] is not None, "the conversation is not stored"
        for field in ("id", "title", "headId", "archived", "version"):
            assert says["conversation"][field] == holds["conversation"][field], field
        for name, fields in (("messages", MESSAGE), ("toolResults", TOOL_RESULT), ("artifacts", ARTIFACT)):
            there = [{field: one[field] for field in fields} for one in says[name]]
            kept = [{field: one[field] for field in fields} for one in holds[name]]
            assert there == kept, name
            assert all(one["stored"] for one in says[name]), f"{name}: not all are stored"
            ids = [one["id"] for one in there]
            assert len(set(ids)) == len(ids), f"{name}: doubled"
        return says

    # ------------------------------------------------------------------ breaking
    def kill(self, name: str) -> None:
        """SIGKILL that program's main process; it is started again by itself."""
        was = self.up.pid(name)
        os.kill(was, signal.SIGKILL)
        eventually(lambda: self.up.pid(name) not in (0, was), within_s=20)

    @contextlib.contextmanager
    def without(self, name: str) -> Iterator[None]:
        """That program, with all it forked, does nothing at all meanwhile."""
        group = self.up.pid(name)
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)

    def lose_buffer(self) -> None:
        """The buffer is there, and empty."""
        with redis.Redis.from_url(self._environ["REDIS_URL"]) as client:
            client.flushall()


def _api(row: dict[str, Any]) -> dict[str, Any]:
    """A row under the API's names."""

    def camel(name: str) -> str:
        first, *rest = name.split("_")
        return first + "".join(word.capitalize() for word in rest)

    return {camel(name): value for name, value in row.items()}
