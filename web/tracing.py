"""A span around every request: named for its route, the child of the caller's own span where one came (`traceparent`)."""

from __future__ import annotations

from flask import Flask, Response, g, request

from models import tracing
from models.settings import Settings
from web import observe


def install(app: Flask, settings: Settings) -> None:
    """Put the hooks around every request of ``app``; none where nothing is traced. Raises SettingsError."""
    tracing.start(settings, "web")
    if not tracing.on():
        return

    def begin() -> None:
        came = {name: request.headers.get(name) for name in ("traceparent", "tracestate")}
        route = "unmatched" if request.url_rule is None else request.url_rule.rule
        g.around = tracing.span(f"{request.method[:16]} {route}", kind="server", carrier=came)
        g.span = g.around.__enter__()
        g.span.set_attribute("http.route", route)

    def answered(response: Response) -> Response:
        g.span.set_attributes(
            {
                "http.request.method": request.method[:16],
                "http.response.status_code": response.status_code,
                "blotter.request_id": observe.request_id(),
                **{f"blotter.{name}": value for name, value in observe.bound().items()},
            }
        )
        return response

    def end(_: BaseException | None) -> None:
        around = g.pop("around", None)
        if around is not None:
            around.__exit__(None, None, None)

    app.before_request(begin)
    app.after_request(answered)
    app.teardown_request(end)
