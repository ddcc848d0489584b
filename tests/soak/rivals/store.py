"""What both rivals share: the upsert that most tutorials show, and who calls."""

from __future__ import annotations

import os
import threading
from typing import Any

import jwt
import psycopg
from flask import Request

UPSERT = """
INSERT INTO saved (owner, conversation, id, role, content, status)
VALUES (%(owner)s, %(conversation)s, %(id)s, %(role)s, %(content)s, %(status)s)
ON CONFLICT (owner, conversation, id)
DO UPDATE SET role = excluded.role, content = excluded.content, status = excluded.status
"""

_mine = threading.local()


def upsert(message: dict[str, Any]) -> None:
    """Committed when it returns. A connection a thread; a broken one is made anew."""
    connection = getattr(_mine, "connection", None)
    if connection is None or connection.closed:
        connection = _mine.connection = psycopg.connect(
            os.environ["DATABASE_URL"], autocommit=True, connect_timeout=5
        )
    try:
        connection.execute(UPSERT, message)
    except psycopg.OperationalError:
        connection.close()
        raise


def message_of(request: Request, conversation: str) -> dict[str, Any]:
    """The message that a request carries, and its owner by the token."""
    token = request.headers["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, os.environ["BLOTTER_JWT_SECRET"], algorithms=["HS256"])
    sent = request.get_json()
    return {
        "owner": claims["sub"],
        "conversation": conversation,
        "id": sent["id"],
        "role": sent.get("role", "assistant"),
        "content": sent["content"],
        "status": sent.get("status", "complete"),
    }
