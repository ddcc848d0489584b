"""Every refusal, as RFC 9457 `application/problem+json`: one table of kinds, and from what each arises.

Laws: each error class and each outcome of a save maps to exactly one kind; a kind's `type` never changes once
published; no problem repeats chat text, a token, or what was sent as a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson
from flask import Response
from pydantic import ValidationError

from models.core import wording
from models.core.commands import Outcome
from models.errors import (
    BlotterError,
    BufferFull,
    BufferPolicyError,
    BufferSlow,
    BufferUnavailable,
    Contention,
    Gone,
    NotFound,
    RecordRejected,
    SettingsError,
    StoreUnavailable,
)
from web.auth import BadOwner, Forbidden, Unauthenticated
from web.keys import KeysUnavailable
from web.schemas import OUR_FAULTS

MEDIA_TYPE: Final = "application/problem+json"
_MAX_ERRORS: Final = 20
_MAX_FIELD: Final = 200


class Kind(NamedTuple):
    """One kind of problem. ``retry_after``: seconds, None where trying again changes nothing."""

    slug: str
    status: int
    title: str
    meaning: str
    retry_after: int | None = None

    @property
    def type(self) -> str:
        return f"/problems/{self.slug}"


_KINDS = (
    Kind("malformed", 400, "Malformed request", "The body is not JSON in UTF-8, or was cut off."),
    Kind("unauthenticated", 401, "Not authenticated", "There is no bearer token, or it does not hold."),
    Kind("forbidden", 403, "Scope missing", "The token holds, but lacks the scope this needs."),
    Kind("not-found", 404, "Not found", "There is no such address, conversation or item that you own."),
    Kind("method-not-allowed", 405, "Method not allowed", "The header Allow says what this address takes."),
    Kind("body-late", 408, "Body too slow", "The body did not arrive in time; nothing was kept: send it again."),
    Kind("stale-revision", 409, "Stale revision", "A higher revision is stored; `current` is that item."),
    Kind("revision-conflict", 409, "Revision conflict", "The same revision with other content is stored."),
    Kind("append-gap", 409, "Append beyond the end", "Text before the offset is missing; `length` is what there is."),
    Kind("append-mismatch", 409, "Append does not match", "The text that overlaps differs from what is stored."),
    Kind("part-gap", 409, "Part beyond the end", "Parts before this index are missing; `length` is their number."),
    Kind("terminal", 409, "Already finished", "The item is finished; only a higher revision opens it again."),
    Kind("gone", 410, "Deleted", "It was deleted; a late save does not revive it."),
    Kind("body-too-large", 413, "Body too large", "`limit` is the most bytes this address takes."),
    Kind("item-too-large", 413, "Item too large", "`limit` is the most bytes one item may have."),
    Kind("too-many-items", 413, "Too many items", "`limit` is the most items at once, or in a conversation."),
    Kind("too-many-parts", 413, "Too many parts", "`limit` is the most parts of one message."),
    Kind("too-many-links", 413, "Too many links", "`limit` is the most tool results, or artifacts, of one message."),
    Kind("conversation-too-large", 413, "Conversation too large", "`limit` is the most bytes of one conversation."),
    Kind("unsupported-media-type", 415, "Unsupported media type", "Bodies are application/json, UTF-8, uncompressed."),
    Kind("invalid", 422, "Invalid", "`errors` names each field and what is wrong with it."),
    Kind("surrogate-split", 422, "Offset inside a character", "The offset lies between the halves of a surrogate pair."),
    Kind("not-text", 422, "Part has no text", "The part that was appended to has no text."),
    Kind("rate-limited", 429, "Too many requests", "This owner's requests, or bytes, a minute are used up."),
    Kind("internal", 500, "Internal error", "A fault on our side; it was logged under the request's id."),
    Kind("buffer-unavailable", 503, "Buffer unavailable", "The save may or may not have been kept: send it again.", 1),
    Kind("buffer-unfit", 503, "Buffer unfit", "Nothing was kept: the buffer would not keep what it acknowledges. Its operator sees why in `blotter status`; send it again then.", 5),
    Kind("buffer-full", 503, "Buffer full", "Nothing was written; what is buffered is being stored first.", 5),
    Kind("store-unavailable", 503, "Store unavailable", "This needs Postgres, which does not answer.", 2),
    Kind("contention", 503, "Contention", "Others moved the conversation five times in a row.", 1),
    Kind("keys-unavailable", 503, "Keys unavailable", "The keys that tokens are checked with cannot be fetched.", 5),
    Kind("unavailable", 503, "Not saved", "Not tried, or the outcome is unknown: send it again.", 1),
    Kind("other", 400, "Refused", "The request was refused before it reached a resource."),
)  # fmt: skip
KINDS: Final[Mapping[str, Kind]] = MappingProxyType({kind.slug: kind for kind in _KINDS})

#: Error classes; a subclass not listed is its parent's kind, a BlotterError not listed is internal.
ERRORS: Final[Mapping[type[BlotterError], Kind]] = MappingProxyType(
    {
        BufferUnavailable: KINDS["buffer-unavailable"],
        BufferSlow: KINDS["buffer-unavailable"],
        BufferFull: KINDS["buffer-full"],
        BufferPolicyError: KINDS["buffer-unfit"],
        StoreUnavailable: KINDS["store-unavailable"],
        Contention: KINDS["contention"],
        NotFound: KINDS["not-found"],
        Gone: KINDS["gone"],
        RecordRejected: KINDS["internal"],
        SettingsError: KINDS["internal"],
        KeysUnavailable: KINDS["keys-unavailable"],
        Unauthenticated: KINDS["unauthenticated"],
        Forbidden: KINDS["forbidden"],
        BadOwner: KINDS["invalid"],
    }
)

#: Outcomes of a save; None where it is acknowledged.
OUTCOMES: Final[Mapping[Outcome, Kind | None]] = MappingProxyType(
    {
        "accepted": None,
        "duplicate": None,
        "noop": None,
        "stale-revision": KINDS["stale-revision"],
        "revision-conflict": KINDS["revision-conflict"],
        "append-gap": KINDS["append-gap"],
        "append-mismatch": KINDS["append-mismatch"],
        "part-gap": KINDS["part-gap"],
        "terminal": KINDS["terminal"],
        "surrogate-split": KINDS["surrogate-split"],
        "not-text": KINDS["not-text"],
        "not-found": KINDS["not-found"],
        "gone": KINDS["gone"],
        "item-too-large": KINDS["item-too-large"],
        "too-many-items": KINDS["too-many-items"],
        "too-many-parts": KINDS["too-many-parts"],
        "too-many-links": KINDS["too-many-links"],
        "conversation-too-large": KINDS["conversation-too-large"],
        "unavailable": KINDS["unavailable"],
    }
)

#: Statuses that Flask itself answers with, when not one of ours.
_HTTP: Final[Mapping[int, str]] = MappingProxyType(
    {
        404: "not-found",
        405: "method-not-allowed",
        413: "body-too-large",
        415: "unsupported-media-type",
        500: "internal",
    }
)


class Problem(Exception):
    """A refusal decided in web. ``extra``: members beside the standard ones, `errors`, `limit`, `length`, `current`."""

    def __init__(
        self, slug: str, detail: str | None = None, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(slug)
        self.kind = KINDS[slug]
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra

    def answer(self) -> Response:
        """This problem as a response."""
        return answer(self.kind, self.detail, self.headers, self.extra)


def answer(
    kind: Kind,
    detail: str | None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Response:
    """A problem response; Retry-After comes with the kind."""
    body = {"type": kind.type, "title": kind.title, "status": kind.status, "detail": detail or kind.meaning}
    response = Response(orjson.dumps(body | dict(extra or {})), kind.status, content_type=MEDIA_TYPE)
    # 404 and 410 may be cached without a word; here what is missing now may exist a moment later.
    response.headers["Cache-Control"] = "no-store"
    if kind.retry_after is not None:
        response.headers["Retry-After"] = str(kind.retry_after)
    if kind.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="blotter"'
    response.headers.update(headers or {})
    return response


def invalid(field: str, message: str) -> Problem:
    """422 for one field."""
    return Problem("invalid", errors=[{"field": _shown(field), "message": message}])


def from_validation(error: ValidationError) -> Problem:
    """422 for what pydantic found; the first 20 faults, without the values sent."""
    faults = error.errors(include_url=False, include_input=False)
    errors = [{"field": _field(fault), "message": _message(fault)} for fault in faults[:_MAX_ERRORS]]
    return Problem("invalid", errors=errors)


def _message(fault: Any) -> str:
    """A sentence of ours: what a validator of ours says, or the library's kind of fault in our words."""
    said: str = (
        fault["msg"] if fault["type"] in OUR_FAULTS else wording.fault(fault["type"], fault.get("ctx", {}))
    )
    return said if said.endswith(".") else f"{said[0].upper()}{said[1:]}."


def _field(fault: Any) -> str:
    named = fault.get("ctx", {}).get("field")
    return _shown(named if isinstance(named, str) else ".".join(str(step) for step in fault["loc"]))


def _shown(field: str) -> str:
    """A field's path as an answer repeats it: short, printable ASCII (a name may be anything)."""
    return field[:_MAX_FIELD].encode("ascii", "backslashreplace").decode()


def from_error(error: BlotterError) -> Response:
    """The response for an error of the layers below. The message of an internal one is not shown."""
    kind = next((ERRORS[cls] for cls in type(error).__mro__ if cls in ERRORS), KINDS["internal"])
    if isinstance(error, Unauthenticated):
        code = "" if error.error is None else f', error="{error.error}", error_description="{error}"'
        return answer(kind, str(error), {"WWW-Authenticate": f'Bearer realm="blotter"{code}'})
    if isinstance(error, Forbidden):
        challenge = f'Bearer realm="blotter", error="insufficient_scope", scope="{error.scope}"'
        return answer(kind, str(error), {"WWW-Authenticate": challenge})
    if isinstance(error, BadOwner):
        return answer(kind, None, None, {"errors": [{"field": "Blotter-Owner", "message": str(error)}]})
    return answer(kind, None)


def from_http(status: int, headers: Sequence[tuple[str, str]]) -> Response:
    """The response for a refusal of Flask or Werkzeug; their `Allow` and `Retry-After` are kept."""
    kept = {name: value for name, value in headers if name in ("Allow", "Retry-After")}
    slug = _HTTP.get(status)
    if slug is not None:
        return answer(KINDS[slug], None, kept)
    other = KINDS["other"]
    return answer(other._replace(status=status), None, kept)
