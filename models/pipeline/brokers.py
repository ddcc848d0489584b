"""What Celery has to know of a broker, by its address: Redis or Valkey, the same under Sentinels, or RabbitMQ.

Bells are hints that the sweep can ring again, so no broker has to keep them at any price: time-outs are short, and nothing
waits for a confirmation.
"""

from __future__ import annotations

from typing import Any

from models.settings import Settings


def is_redis(url: str) -> bool:
    """Redis' protocol, whoever says which server."""
    return url.startswith(("redis", "sentinel", "unix"))


def celery_options(settings: Settings, *, patience_s: float, connect_s: float) -> dict[str, Any]:
    """Celery's settings for CELERY_BROKER_URL; a frozen broker is waited for ``patience_s``."""
    url = settings.celery_broker_url
    transport: dict[str, Any] = {}
    queue_type = "classic"
    if is_redis(url):
        transport = {
            "socket_timeout": patience_s,
            "socket_connect_timeout": connect_s,
            "socket_keepalive": True,
            # A half-open connection is noticed after brpop_timeout + twice this.
            "health_check_interval": 5,
            # A message a killed worker had taken comes back after this, long after it expired; no countdown comes near it.
            "visibility_timeout": 60,
        }
    if url.startswith("sentinel"):
        # Which of the servers that they watch; and a Sentinel that does not answer is passed over soon.
        transport["master_name"] = settings.broker_master
        transport["sentinel_kwargs"] = {"socket_timeout": connect_s, "socket_connect_timeout": connect_s}
    if url.startswith(("amqp", "pyamqp")):
        # Kept by a majority of RabbitMQ's nodes. (Classic queues go with their node.)
        queue_type = "quorum"
    return {
        "broker_url": url,
        "broker_transport_options": transport,
        "task_default_queue_type": queue_type,
        "task_create_missing_queue_type": queue_type,
    }
