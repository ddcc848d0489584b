"""Who calls: bearer tokens (JWT), checked once and then remembered until they expire.

    Authorization: Bearer <token>          `sub` is the owner
    Blotter-Owner: <owner>                 only with the scope `blotter:act-for`: a backend acts for its user

The owner's name is percent-encoded (UTF-8, as in an address) where it holds anything but plain characters: granian hands
on a header with other bytes as an empty text, and a browser cannot send one.

A save must be quick, so a checked token is kept by its digest (never the token itself), at most until its `exp` and
for five minutes, so that a key that was withdrawn stops working. Algorithms are pinned by kind of key: a secret never
checks RS256 or ES256, a public key never HS256.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import unquote

import jwt

from models.errors import BlotterError, SettingsError
from models.settings import Settings
from web.keys import KeySet, fetch_jwks, load_secrets

ACT_FOR: Final = "blotter:act-for"
OPERATE: Final = "blotter:operate"
OWNER_HEADER: Final = "Blotter-Owner"

#: So long after its `exp` a token still holds, s: clocks differ.
LEEWAY_S: Final = 10
_REMEMBERED: Final = 10_000
_REMEMBER_S: Final = 300.0
_MAX_TOKEN: Final = 8192
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_OWNER_BYTES: Final = 256


class Unauthenticated(BlotterError):
    """No token, or one that does not hold: 401. ``error`` is the code of RFC 6750, None where no token came."""

    def __init__(self, detail: str, error: str | None = "invalid_token") -> None:
        super().__init__(detail)
        self.error = error


class Forbidden(BlotterError):
    """A valid token that does not carry the scope: 403."""

    def __init__(self, detail: str, scope: str) -> None:
        super().__init__(detail)
        self.scope = scope


class BadOwner(BlotterError):
    """The header `Blotter-Owner` holds no owner's name: 422."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A checked token: its subject and scopes."""

    subject: str
    scopes: frozenset[str]

    def owner(self, acting_for: str | None) -> str:
        """The owner this request is about; ``acting_for`` is the header's value as WSGI gives it. Raises Forbidden."""
        if acting_for is None:
            return self.subject
        if ACT_FOR not in self.scopes:
            raise Forbidden(f"{OWNER_HEADER} needs a token with the scope {ACT_FOR}.", ACT_FOR)
        try:
            owner = unquote(acting_for.encode("latin-1").decode(), errors="strict")
        except UnicodeError:
            raise BadOwner(f"{OWNER_HEADER} must be UTF-8, percent-encoded.") from None
        if not is_owner(owner):
            raise BadOwner(
                f"{OWNER_HEADER} must be one name of 1-{_MAX_OWNER_BYTES} bytes, without control characters."
            )
        return owner

    def require(self, scope: str) -> None:
        """Raises Forbidden where the token lacks ``scope``."""
        if scope not in self.scopes:
            raise Forbidden(f"This needs a token with the scope {scope}.", scope)


def is_owner(name: object) -> bool:
    """True for a text that may name an owner: 1-256 bytes of UTF-8, no control characters, no half surrogate pairs."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= _MAX_OWNER_BYTES
        and _CONTROL.search(name) is None
        and len(name.encode()) <= _MAX_OWNER_BYTES
    )


class Verifier:
    """Checks tokens against the configured keys."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        """Raises SettingsError where no key is configured (the embedded mode may start without: nobody gets in)."""
        self._secrets = load_secrets(settings)
        self._key_set = None if settings.jwks_url is None else KeySet(fetch_jwks(settings.jwks_url))
        if not self._secrets and self._key_set is None and not settings.embedded:
            raise SettingsError(
                "BLOTTER_JWT_SECRET, BLOTTER_JWT_SECRET_FILE or BLOTTER_JWKS_URL: one is needed to know who calls"
            )
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._clock = clock
        self._known: dict[bytes, tuple[Caller, float]] = {}

    def caller(self, authorization: str | None) -> Caller:
        """The caller that the header ``Authorization`` proves. Raises Unauthenticated, KeysUnavailable."""
        token = _bearer(authorization)
        digest = blake2b(token, digest_size=16).digest()
        known = self._known.get(digest)
        now = self._clock()
        if known is not None and now < known[1]:
            return known[0]
        caller, until = self._checked(token, now)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()  # checking costs ~0.1 ms: not worth the bookkeeping of a finer choice
        self._known[digest] = (caller, until)
        return caller

    def _checked(self, token: bytes, now: float) -> tuple[Caller, float]:
        try:
            claims = self._claims(token)
            # JSON's integers have no end; a float's range has.
            expires_at = float(claims["exp"])
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The token has expired.") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("The token is not valid yet.") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthenticated(f"The token lacks the claim {error.claim}.") from None
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            raise Unauthenticated("The token is for another audience or from another issuer.") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise Unauthenticated("The token is not valid.") from None
        subject = claims["sub"]
        if not is_owner(subject):
            raise Unauthenticated(
                f"The token's sub must be 1-{_MAX_OWNER_BYTES} bytes, no control characters."
            )
        return Caller(subject, _scopes(claims)), min(expires_at, now + _REMEMBER_S)

    def _claims(self, token: bytes) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        if header.get("alg") == "HS256":
            return self._by_secret(token)
        key_id = header.get("kid")
        if self._key_set is None or not isinstance(key_id, str):
            raise jwt.InvalidKeyError
        key = self._key_set.key(key_id)
        if key is None:
            raise jwt.InvalidKeyError
        return self._decode(token, key, ["RS256", "ES256"])

    def _by_secret(self, token: bytes) -> dict[str, Any]:
        for secret in self._secrets:
            try:
                return self._decode(token, secret, ["HS256"])
            except jwt.InvalidSignatureError:
                continue
        raise jwt.InvalidSignatureError

    def _decode(self, token: bytes, key: Any, algorithms: list[str]) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=algorithms,
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "sub"], "verify_aud": self._audience is not None},
        )
        return claims


def _bearer(authorization: str | None) -> bytes:
    if authorization is None:
        raise Unauthenticated("A bearer token is needed.", None)
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN or not token.isascii():
        raise Unauthenticated("A bearer token is needed.", "invalid_request")
    return token.strip().encode()


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """OAuth's `scope` (one string, blanks between) or a list of strings."""
    scope = claims.get("scope", "")
    if isinstance(scope, str):
        return frozenset(scope.split())
    return frozenset(one for one in scope if isinstance(one, str)) if isinstance(scope, list) else frozenset()
