"""Calls from other origins' pages: an allow-list, bearer tokens by header, no cookies."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from flask import Flask
from flask_cors import CORS

from models.errors import SettingsError

#: How long a browser may remember a preflight's answer (Chromium caps it here), s.
MAX_AGE_S: Final = 7200
#: What pages may send, and read of answers.
SENT: Final = ["Authorization", "Content-Type", "Prefer", "If-None-Match", "Blotter-Owner", "X-Request-Id"]
EXPOSED: Final = [
    "ETag",
    "Location",
    "Retry-After",
    "Preference-Applied",
    "X-Request-Id",
    "WWW-Authenticate",
]


def install(app: Flask, origins: tuple[str, ...]) -> None:
    """Answer preflights and mark answers for ``origins``; nothing at all where the list is empty."""
    for origin in origins:
        check(origin)
    if origins:
        CORS(
            app,
            origins=list(origins),
            methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=SENT,
            expose_headers=EXPOSED,
            max_age=MAX_AGE_S,
            supports_credentials=False,
        )


def check(origin: str) -> None:
    """An origin is scheme and host. Also keeps out what the library would read as a regular expression."""
    parts = urlsplit(origin)
    plain = (
        parts.scheme in ("http", "https") and parts.hostname and origin == f"{parts.scheme}://{parts.netloc}"
    )
    if origin != "*" and (not plain or parts.username is not None or set(origin) & set("*?[]\\$^|()")):
        raise SettingsError(f"BLOTTER_CORS_ORIGINS: {origin!r} is no origin such as https://chat.example.com")
