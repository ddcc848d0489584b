"""What can go wrong, one class a kind, so that callers catch what they can do something about.

    BlotterError                   everything this package raises on purpose
      NotSent                      the request could not even be written down: no JSON, a bad token source
      Unreachable                  no answer after all tries; the save may or may not have been kept
        NotReached                 nobody takes connections at this address, and nobody has before: it is not tried again
      ApiError                     Blotter answered with a problem (RFC 9457); one subclass for each `type`
        AppendGap, AppendMismatch, Terminal, Gone, NotFound, Invalid, RateLimited, …

Laws: no message repeats chat text; an ApiError carries the whole problem in its attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final


class BlotterError(Exception):
    """Root of all errors this package raises on purpose."""


class NotSent(BlotterError):
    """The request could not be made: a value that is no JSON, no token."""


class Unreachable(BlotterError):
    """No answer came in time, however often it was tried. Sending it again later is safe."""


class NotReached(Unreachable):
    """The very first connection was refused, or the host's name is unknown: a wrong address, or nothing runs there.

    Told at once: patience is for a server that has answered before.
    """


# What a proxy answers in Blotter's place has members of the same names, and other things in them.
def _dicts(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _number(found: Any) -> int | None:
    return found if isinstance(found, int) else None


class ApiError(BlotterError):
    """Blotter refused: its problem document as attributes."""

    slug: ClassVar[str] = ""

    def __init__(
        self, status: int, problem: Mapping[str, Any] | None = None, *, retry_after_s: float | None = None
    ) -> None:
        problem = {} if problem is None else problem
        self.status = status
        self.type: str = str(problem.get("type", ""))
        self.title: str = str(problem.get("title", ""))
        self.detail: str = str(problem.get("detail", ""))
        #: Each field that was wrong, and why (422).
        self.errors: list[dict[str, str]] = _dicts(problem.get("errors"))
        #: The bound that was passed (413, 429).
        self.limit: int | None = _number(problem.get("limit"))
        #: Units of the text, or number of parts, as they stand (409).
        self.length: int | None = _number(problem.get("length"))
        #: The item as it stands (409).
        self.current: dict[str, Any] | None = next(iter(_dicts([problem.get("current")])), None)
        self.retry_after_s = retry_after_s
        fields = "; ".join(f"{one.get('field')}: {one.get('message')}" for one in self.errors)
        super().__init__(f"{status} {self.title}: {self.detail}" + (f" ({fields})" if fields else ""))


class Malformed(ApiError):
    """400: the body is not JSON."""

    slug = "malformed"


class Unauthenticated(ApiError):
    """401: no token, or one that does not hold; a token function was asked again first."""

    slug = "unauthenticated"


class Forbidden(ApiError):
    """403: the token lacks a scope, such as `blotter:act-for`."""

    slug = "forbidden"


class NotFound(ApiError):
    """404: no such conversation or item of this owner."""

    slug = "not-found"


class MethodNotAllowed(ApiError):
    """405."""

    slug = "method-not-allowed"


class BodyLate(ApiError):
    """408: the body did not arrive in time; nothing was kept, sending it again is safe."""

    slug = "body-late"


class Conflict(ApiError):
    """409: what is stored says otherwise; ``current`` is the item as it stands."""


class StaleRevision(Conflict):
    """A higher revision is stored."""

    slug = "stale-revision"


class RevisionConflict(Conflict):
    """The same revision with other content is stored."""

    slug = "revision-conflict"


class AppendGap(Conflict):
    """Text before the offset is missing; ``length`` is what there is."""

    slug = "append-gap"


class AppendMismatch(Conflict):
    """The text that overlaps differs from what is stored."""

    slug = "append-mismatch"


class PartGap(Conflict):
    """Parts before this index are missing; ``length`` is their number."""

    slug = "part-gap"


class Terminal(Conflict):
    """The item is finished (a reader may have pressed Stop): only a higher revision opens it again."""

    slug = "terminal"


class Gone(ApiError):
    """410: it was deleted, and a late save does not revive it."""

    slug = "gone"


class TooLarge(ApiError):
    """413: ``limit`` is the bound."""


class BodyTooLarge(TooLarge):
    """The request's body."""

    slug = "body-too-large"


class ItemTooLarge(TooLarge):
    """The item would grow beyond its bound."""

    slug = "item-too-large"


class TooManyItems(TooLarge):
    """Too many in one sync, or in the conversation."""

    slug = "too-many-items"


class TooManyParts(TooLarge):
    """The message would have more parts than one may."""

    slug = "too-many-parts"


class TooManyLinks(TooLarge):
    """More tool results, or artifacts, than one message may link to."""

    slug = "too-many-links"


class ConversationTooLarge(TooLarge):
    """The conversation would grow beyond its bound."""

    slug = "conversation-too-large"


class UnsupportedMediaType(ApiError):
    """415."""

    slug = "unsupported-media-type"


class Invalid(ApiError):
    """422: ``errors`` names each field."""

    slug = "invalid"


class SurrogateSplit(Invalid):
    """The offset lies inside a character of the stored text."""

    slug = "surrogate-split"


class NotText(Invalid):
    """The part that was appended to has no text."""

    slug = "not-text"


class RateLimited(ApiError):
    """429: this owner's requests a minute are used up."""

    slug = "rate-limited"


class ServerError(ApiError):
    """5xx: tried again until patience ran out."""


class Internal(ServerError):
    """500: a fault of the server's."""

    slug = "internal"


class BufferUnavailable(ServerError):
    """503: the save may or may not have been kept."""

    slug = "buffer-unavailable"


class BufferUnfit(ServerError):
    """503: nothing was kept; the buffer would not keep what it acknowledges, its operator has to see to it."""

    slug = "buffer-unfit"


class BufferFull(ServerError):
    """503: nothing was written."""

    slug = "buffer-full"


class StoreUnavailable(ServerError):
    """503: this needs Postgres, which does not answer."""

    slug = "store-unavailable"


class Contention(ServerError):
    """503: others moved the conversation again and again."""

    slug = "contention"


class KeysUnavailable(ServerError):
    """503: the keys that tokens are checked with cannot be fetched."""

    slug = "keys-unavailable"


class Unavailable(ServerError):
    """503: not tried, or the outcome is unknown."""

    slug = "unavailable"


def _kinds(root: type[ApiError]) -> dict[str, type[ApiError]]:
    found = {root.slug: root} if root.slug else {}
    for child in root.__subclasses__():
        found |= _kinds(child)
    return found


#: Last part of a problem's `type` -> class.
KINDS: Final[Mapping[str, type[ApiError]]] = _kinds(ApiError)


def from_problem(
    status: int, problem: Mapping[str, Any] | None, *, retry_after_s: float | None = None
) -> ApiError:
    """The error for a response that is no success; by status where the body is no problem of Blotter's."""
    slug = str((problem or {}).get("type", "")).rpartition("/")[2]
    kind = KINDS.get(slug)
    if kind is None:
        kind = RateLimited if status == 429 else ServerError if status >= 500 else ApiError
    return kind(status, problem, retry_after_s=retry_after_s)
