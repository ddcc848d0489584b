"""A rival: a Flask application that enqueues a Celery task for each save, and answers."""

from __future__ import annotations

import os
from typing import Any

import psycopg
from celery import Celery
from flask import Flask, request
from flask.typing import ResponseReturnValue
from kombu.exceptions import OperationalError

from tests.soak.rivals.store import message_of, upsert

app = Flask("queued")
celery = Celery("queued", broker=os.environ.get("CELERY_BROKER_URL"))
celery.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"socket_timeout": 2, "socket_connect_timeout": 2},
)


@celery.task(autoretry_for=(psycopg.OperationalError,), retry_backoff=1, max_retries=10)
def store(message: dict[str, Any]) -> None:
    upsert(message)


@app.get("/healthz")
@app.get("/readyz")
def ready() -> ResponseReturnValue:
    return {}, 200


@app.put("/api/conversations/<conversation>/messages")
def save(conversation: str) -> ResponseReturnValue:
    try:
        store.apply_async((message_of(request, conversation),), retry=False)
    except OperationalError:
        return {"error": "try again"}, 503
    return {"state": "queued"}, 202
