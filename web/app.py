"""The application: settings in, Flask out. Everything a request needs is made here, once a process.

It is served behind `web.edge`, which receives the bodies. Another WSGI server will do if it does the same (a proxy that
buffers requests, say): a view reads its body in its thread.

Nothing connects while the application is made: servers fork or spawn after that, and a connection must not be shared.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from models.errors import BlotterError
from models.settings import Settings, current
from web import cors, framing, observe, tracing
from web.call import BODY, Context, handler
from web.demo import views
from web.openapi import document_view
from web.ops import views as ops
from web.problems import Problem, from_error, from_http
from web.routes import OPERATIONS

if TYPE_CHECKING:
    from models.pipeline.service import Pipeline


def create_app(settings: Settings | None = None, pipeline: Pipeline | None = None) -> Flask:
    """The WSGI application. ``settings``: default, the environment's; ``pipeline``: default, connected at first use.

    Raises SettingsError where they do not describe a runnable web: no key to check tokens with, a bad origin.
    """
    settings = current() if settings is None else settings
    app = Flask("web", static_folder="static", static_url_path="/static")
    app.url_map.merge_slashes = False
    log = observe.logger(settings.log_level)
    if pipeline is None:
        # Imported here, not by the first request: Celery and SQLAlchemy take a second.
        importlib.import_module("models.pipeline.doorbell")
        importlib.import_module("models.pipeline.service")
    context = Context(settings, lambda: _connect(settings) if pipeline is None else pipeline)
    context.largest_body = max(
        operation.max_bytes(settings) for operation in OPERATIONS if operation.body is not None
    )
    app.extensions["blotter"] = context
    for operation in (*OPERATIONS, document_view()):
        app.add_url_rule(
            operation.rule, operation.id, handler(operation, context), methods=[operation.method]
        )
    app.add_url_rule("/favicon.ico", "icon", lambda: app.send_static_file("demo/icon.svg"))
    views.install(app, context)
    ops.install(app, context)
    observe.install(app, log)
    app.before_request(_refuse_codings)
    tracing.install(app, settings)
    cors.install(app, settings.cors_origins)
    _answer_errors(app, log)
    return app


def _connect(settings: Settings) -> Pipeline:
    from models.pipeline.doorbell import Doorbell
    from models.pipeline.service import Pipeline

    return Pipeline.connect(settings, role="web", ring=Doorbell(settings))


def _refuse_codings() -> None:
    """Whatever is asked: who sent it may not agree with us on where the next request begins."""
    if request.environ.get(BODY) == "coded":
        raise Problem("malformed", framing.DETAIL)


def _answer_errors(app: Flask, log: Any) -> None:
    """Every refusal is a problem document, Flask's own included."""

    def problem(error: Problem) -> Response:
        return error.answer()

    def known(error: BlotterError) -> Response:
        response = from_error(error)
        if response.status_code == 500:
            observe.note_fault(log, error)
        return response

    def http(error: HTTPException) -> Response:
        return from_http(error.code or 500, error.get_headers())

    def fault(error: Exception) -> Response:
        observe.note_fault(log, error)
        return from_http(500, ())

    app.register_error_handler(Problem, problem)
    app.register_error_handler(BlotterError, known)
    app.register_error_handler(HTTPException, http)
    app.register_error_handler(Exception, fault)
