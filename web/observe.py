"""What every answer gets, and what is noted of every request: id, security headers, latency, one line of log.

Law: the log holds method, route (the template, never the path with its ids), status, milliseconds, the request's
id and the conversation's uid; never a query, a body, a token or chat text (see models/logs.py).
"""

from __future__ import annotations

import re
import time
from typing import Any, Final

from flask import Flask, Request, Response, g, has_request_context, request

from models import logs, tracing
from models.identity import mint_id
from web.metrics import FAULTS, REQUESTS

#: JSON is nothing to be rendered, framed or run.
_API_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"
#: The pages: only what this server itself serves.
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:@-]{1,128}", re.ASCII)
#: Requests that only ask whether we live are not worth a line each.
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})


def logger(level: str) -> Any:
    """The web's log; lines of the data layer name the request they were written in."""
    return logs.logger(level, _request)


def _request() -> dict[str, str]:
    return {"request_id": request_id(), **bound()} if has_request_context() else {}


def install(app: Flask, log: Any) -> None:
    """Put the hooks around every request of ``app``."""

    def begin() -> None:
        g.began = time.perf_counter()

    def end(response: Response) -> Response:
        headers = response.headers
        headers.add("X-Request-Id", request_id())
        headers.add("X-Content-Type-Options", "nosniff")
        headers.add("Referrer-Policy", "no-referrer")
        # A page that needs another policy, such as the demo chat, has brought it.
        headers.setdefault("Content-Security-Policy", PAGE_POLICY if _is_page(response) else _API_POLICY)
        _note(response, log)
        return response

    app.before_request(begin)
    app.after_request(end)


def _is_page(response: Response) -> bool:
    return (response.content_type or "").startswith("text/html")


def _note(response: Response, log: Any) -> None:
    incoming: Request = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    rule = incoming.url_rule
    route = "unmatched" if rule is None else rule.rule
    began = g.get("began")
    seconds = 0.0 if began is None else time.perf_counter() - began
    REQUESTS.labels(incoming.method if rule is not None else "ANY", route, response.status_code).observe(
        seconds
    )
    if route not in _QUIET:
        log.info(
            "request",
            method=incoming.method[:16],
            route=route,
            status=response.status_code,
            ms=round(seconds * 1000, 2),
            request_id=request_id(),
            **bound(),
        )


def bound() -> dict[str, str]:
    """What else a line of this request carries: the uid of its conversation, which the workers' log names too; and its
    trace, where traces are on.

    It is a digest of owner and id, and tells neither.
    """
    conversation, trace = g.get("conversation"), tracing.trace_id()
    return {
        **({} if conversation is None else {"conversation": conversation}),
        **({"trace": trace} if trace else {}),
    }


def request_id() -> str:
    """The caller's `X-Request-Id` where it is usable, else one minted for this request."""
    found: str | None = g.get("request_id")
    if found is None:
        given = request.headers.get("X-Request-Id")
        found = given if given is not None and _REQUEST_ID.fullmatch(given) else mint_id()
        g.request_id = found
    return found


def note_fault(log: Any, error: BaseException) -> None:
    """Count and log a fault of ours: class and places, no message."""
    FAULTS.inc()
    log.error("fault", **logs.fault(error), request_id=request_id(), **bound())
