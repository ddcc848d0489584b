"""A browser's own demo owner, and the tokens of the demo: short-lived, signed with the key that `web` checks.

A browser keeps a random key. The owner's name is made from it and our secret, so who reads the name somewhere (in
Postgres, on the page) cannot ask for that owner's tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import jwt

from models.settings import Settings

#: What the page makes: 128 random bits or more, in hex.
BROWSER_KEY: Final = re.compile(r"[0-9a-f]{32,64}", re.ASCII)
TOKEN_S: Final = 30 * 60


def owner_of(secret: bytes, browser_key: str) -> str:
    """The owner that stands for the browser with that key."""
    digest = blake2b(browser_key.encode(), key=blake2b(secret, digest_size=32).digest(), digest_size=8)
    return f"demo-{digest.hexdigest()}"


def token(settings: Settings, secret: bytes, subject: str, now_s: int, scopes: Iterable[str] = ()) -> str:
    """A token for ``subject`` that holds for half an hour."""
    claims: dict[str, object] = {"sub": subject, "iat": now_s, "exp": now_s + TOKEN_S}
    scope = " ".join(scopes)
    if scope:
        claims["scope"] = scope
    if settings.jwt_audience:
        claims["aud"] = settings.jwt_audience
    if settings.jwt_issuer:
        claims["iss"] = settings.jwt_issuer
    return jwt.encode(claims, secret, algorithm="HS256")
