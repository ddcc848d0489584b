"""The web with two rival routes for rows 1 and 2: same application, same server, same authentication.

    granian … tests.bench.routes:create_app

    POST /rival/nothing/ID   authenticates, parses the JSON and answers: the ceiling of any such route here
    POST /rival/direct/ID    the same, and upserts the message straight into Postgres, one commit a request

The first runs on the event loop, as saves do (web/edge.py); the second in a thread, since it waits for Postgres.

Both are written as fast as they go: no validation, one prepared statement on a connection of the thread's own.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import orjson
import psycopg
from flask import Blueprint, Response, request

from models.identity import conversation_uid
from models.settings import current
from web.app import create_app as create_web
from web.auth import Verifier
from web.edge import Edge
from web.routes import OPERATIONS

UPSERT = """
INSERT INTO messages AS stored
  (conversation_uid, id, role, content, tool_result_ids, artifact_ids, position, status, version, created_at, updated_at)
VALUES (%s, %s, %s, %s, '{}', '{}', %s, 'complete', 1, now(), now())
ON CONFLICT (conversation_uid, id) DO UPDATE
  SET content = excluded.content, version = stored.version + 1, updated_at = excluded.updated_at
RETURNING version
"""


def create_app() -> Edge:
    app = create_web()
    app.register_blueprint(rivals())
    nothing = replace(
        next(one for one in OPERATIONS if one.strand), method="POST", path="/rival/nothing/{id}"
    )
    return Edge(app, current(), [*OPERATIONS, nothing])


def rivals() -> Blueprint:
    settings = current()
    verifier = Verifier(settings)
    mine = threading.local()
    routes = Blueprint("rivals", __name__, url_prefix="/rival")

    def connection() -> psycopg.Connection[tuple[int]]:
        if not hasattr(mine, "connection"):
            mine.connection = psycopg.connect(settings.database_url, autocommit=True, prepare_threshold=0)
        found: psycopg.Connection[tuple[int]] = mine.connection
        return found

    def answer(message_id: str, version: int) -> Response:
        body = {"id": message_id, "revision": None, "version": version, "state": "stored", "length": 0}
        return Response(orjson.dumps(body), 202, mimetype="application/json")

    @routes.post("/nothing/<chat>")
    def nothing(chat: str) -> Response:
        verifier.caller(request.headers.get("Authorization"))
        body = orjson.loads(request.get_data(cache=False))
        return answer(body["id"], 1)

    @routes.post("/direct/<chat>")
    def direct(chat: str) -> Response:
        caller = verifier.caller(request.headers.get("Authorization"))
        body = orjson.loads(request.get_data(cache=False))
        uid = conversation_uid(caller.subject, chat)
        row = (
            connection()
            .execute(UPSERT, (uid, body["id"], body["role"], body["content"], body["id"]))
            .fetchone()
        )
        assert row is not None
        return answer(body["id"], row[0])

    return routes
