"""A reader's request, checked as web checks its own: token, scopes, owner's rate, id, then the protocol's parameters."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jwt
from starlette.datastructures import Headers, QueryParams

from models.identity import is_id
from models.settings import Settings
from web.auth import LEEWAY_S, Verifier
from web.events.offsets import Position, parse_offset
from web.problems import Problem, invalid
from web.rate import OwnerRate

Live = Literal["", "long-poll", "sse"]


class Wish(NamedTuple):
    """Who reads what, from where, how. ``expires_at``: from then on the token is refused, Unix time in s."""

    owner: str
    conversation_id: str
    asked: Position | Literal["now"]
    live: Live
    cursor: str | None
    expires_at: float


class Gate:
    """Lets requests in. ``check`` may fetch keys: call it in a thread."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError where no key is configured."""
        self._verifier = Verifier(settings)
        self._rate = OwnerRate(0 if settings.embedded else settings.owner_requests_per_minute)

    def check(self, headers: Headers, conversation_id: str, query: QueryParams) -> Wish:
        """The wish. A token in the query is none. Raises Unauthenticated, Forbidden, KeysUnavailable, Problem."""
        authorization = _only(headers, "authorization")
        caller = self._verifier.caller(authorization)
        owner = caller.owner(_only(headers, "blotter-owner"))
        self._rate.spend(owner)
        if not is_id(conversation_id):
            raise invalid("conversationId", "Must be 1-256 characters of A-Z a-z 0-9 _ . ~ : @ -.")
        live = query.get("live", "")
        if live not in ("", "long-poll", "sse"):
            raise Problem("malformed", "live must be long-poll or sse.")
        offset = query.get("offset")
        if live and offset is None:
            raise Problem("malformed", "live needs an offset.")
        if len(query.getlist("offset")) > 1:
            raise Problem("malformed", "offset is given more than once.")
        return Wish(
            owner, conversation_id, parse_offset(offset), live, query.get("cursor"), _expiry(authorization)  # type: ignore[arg-type]
        )  # fmt: skip


def _only(headers: Headers, name: str) -> str | None:
    """A header's value. Of two neither is taken: no token and no owner's name holds a line feed, as in `web.edge`."""
    return "\n".join(headers.getlist(name)) if name in headers else None


def _expiry(authorization: str | None) -> float:
    """When a token that was just checked will be refused.

    Not its `exp`: readers sent away at that time were let in with it again, and sent away, for all of the leeway.
    """
    token = (authorization or "").partition(" ")[2].strip()
    claims = jwt.decode(token, options={"verify_signature": False})
    return float(claims["exp"]) + LEEWAY_S
