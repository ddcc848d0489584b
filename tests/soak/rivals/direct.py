"""A rival: a Flask application that upserts each save into Postgres before it answers."""

from __future__ import annotations

import psycopg
from flask import Flask, request
from flask.typing import ResponseReturnValue

from tests.soak.rivals.store import message_of, upsert

app = Flask("direct")


@app.get("/healthz")
@app.get("/readyz")
def ready() -> ResponseReturnValue:
    return {}, 200


@app.put("/api/conversations/<conversation>/messages")
def save(conversation: str) -> ResponseReturnValue:
    try:
        upsert(message_of(request, conversation))
    except psycopg.Error:
        return {"error": "try again"}, 503
    return {"state": "stored"}, 200
