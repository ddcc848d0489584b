"""One authenticated request on its way to a view: checks in order, then a Call with everything a view needs.

Order: token (401, 403), owner's rate (429), ids in the path (422), query (422), then the body: owner's bytes (429), media
type (415), size (413), JSON (400), schema (422). So a stranger's 20 MB are never read, and nothing reaches the pipeline unchecked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from flask import Request, Response, g, request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import ClientDisconnected

from models.identity import conversation_uid, is_id
from models.settings import Settings
from web.auth import OPERATE, OWNER_HEADER, Verifier
from web.operation import Operation, Parsed, query_reader
from web.ops.around import Around
from web.parse import Malformed, Refused, parse
from web.prefer import Waiters, wait_asked
from web.problems import Problem, from_validation, invalid
from web.rate import OwnerRate

if TYPE_CHECKING:
    from models.pipeline.service import Pipeline


#: In the environ, what `web.edge` tells of a body that it did not receive whole: coded, cut, late, large, unread; or empty.
BODY: Final = "blotter.body"


class Context:
    """What all requests of one process share."""

    def __init__(self, settings: Settings, connect: Callable[[], Pipeline]) -> None:
        self.settings = settings
        self.verifier = Verifier(settings)
        self.waiters = Waiters(settings.web_threads // 4)
        self.rate = OwnerRate(0 if settings.embedded else settings.owner_requests_per_minute)
        self.sent = OwnerRate(0 if settings.embedded else settings.owner_bytes_per_minute, unit="bytes")
        self._connect = connect
        self._connecting = threading.Lock()
        #: None until somebody asked for it.
        self.connected: Pipeline | None = None
        self.around = Around(self.pipeline)
        #: Bytes; the most that any address takes.
        self.largest_body = 0

    def pipeline(self) -> Pipeline:
        """The pipeline; whoever asks first connects (after a fork, that is), all others wait. Raises as ``connect``."""
        if self.connected is None:
            with self._connecting:
                if self.connected is None:
                    self.connected = self._connect()
        return self.connected


class Call:
    """A checked request: who, what, and the pipeline to call."""

    __slots__ = ("body", "context", "owner", "pipeline", "query", "wait_ms")

    def __init__(
        self, context: Context, owner: str, body: Any, query: Mapping[str, Parsed], wait_ms: int
    ) -> None:
        self.context = context
        self.owner = owner
        self.pipeline = context.pipeline()
        self.body = body
        self.query = query
        self.wait_ms = wait_ms


def handler(operation: Operation, context: Context) -> Callable[..., Response]:
    """The function Flask calls for ``operation``; its keyword arguments are the path's ids."""
    if operation.auth == "none":
        return _open(operation, context)
    read_query = query_reader(operation.query)
    read_body = (
        None if operation.body is None else body_reader(operation.body, operation.max_bytes(context.settings))
    )
    view = operation.view
    must_operate = operation.auth == "operator" and not context.settings.embedded
    verifier, rate, sent = context.verifier, context.rate, context.sent
    prefers, names = operation.prefer, operation.names

    def handle(**ids: str) -> Response:
        incoming: Request = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
        headers = incoming.headers
        caller = verifier.caller(headers.get("Authorization"))
        if must_operate:
            caller.require(OPERATE)
        owner = caller.owner(headers.get(OWNER_HEADER))
        rate.spend(owner)
        for name, value in ids.items():
            if not is_id(value):
                raise invalid(names[name], "Must be 1-256 characters of A-Z a-z 0-9 _ . ~ : @ -.")
        if "conversation_id" in ids:
            g.conversation = conversation_uid(owner, ids["conversation_id"]).hex
        query = read_query(incoming)
        body = None
        if read_body is not None:
            sent.spend(owner, incoming.content_length or 0)
            body = read_body(incoming)
        wait_ms = wait_asked(headers.get("Prefer")) if prefers else 0
        return view(Call(context, owner, body, query, wait_ms), **ids)

    return handle


def _open(operation: Operation, context: Context) -> Callable[..., Response]:
    def handle(**names: str) -> Response:
        return operation.view(context, **names)

    return handle


def body_reader(model: type[BaseModel], limit: int) -> Callable[[Request], BaseModel]:
    """A function from a request to its body as ``model``; at most ``limit`` bytes are read, chunked or not."""
    validate = model.__pydantic_validator__.validate_python

    def read(incoming: Request) -> BaseModel:
        raw = _json_bytes(incoming, limit)
        try:
            value = parse(raw)
        except Malformed as error:
            raise Problem("malformed", str(error)) from None
        except Refused as error:
            raise invalid(error.field, error.message) from None
        try:
            checked: BaseModel = validate(value)
        except ValidationError as error:
            raise from_validation(error) from None
        return checked

    return read


def _json_bytes(incoming: Request, limit: int) -> bytes:
    """The request's body. Raises Problem: unsupported-media-type, body-too-large, malformed."""
    headers = incoming.headers
    if headers.get("Content-Type") != "application/json":
        charset = incoming.mimetype_params.get("charset", "utf-8").lower()
        if incoming.mimetype != "application/json" or charset not in {"utf-8", "utf8"}:
            raise Problem("unsupported-media-type", "Content-Type must be application/json.")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("unsupported-media-type", "Content-Encoding is not taken: send the body uncompressed.")
    declared = incoming.content_length or 0
    fault = incoming.environ.get(BODY, "")
    if declared > limit or fault == "large":
        raise _too_large(limit)
    if fault == "late":
        raise Problem("body-late")
    if fault == "unread":
        raise Problem(
            "unavailable", "Too much is being received at once: the body was not read. Send it again."
        )
    # One byte more than the limit: of a chunked body Werkzeug gives what fits and does not tell that there is more.
    incoming.max_content_length = limit + 1
    try:
        raw = incoming.get_data(cache=False)
    except ClientDisconnected:
        raise _cut_off() from None
    if len(raw) > limit:
        raise _too_large(limit)
    if fault == "cut" or len(raw) < declared:
        raise _cut_off()
    return raw


def _cut_off() -> Problem:
    return Problem("malformed", "The body ended before its length.")


def _too_large(limit: int) -> Problem:
    return Problem("body-too-large", f"The body has more than {limit} bytes.", limit=limit)
