"""The keys that tokens are checked with: shared secrets (HS256), or a key set fetched by URL (RS256, ES256).

A key set is fetched at first use and kept for five minutes. When it cannot be fetched again, the keys known last go on
being used: an identity provider's outage must not stop saves. An unknown key id causes a new fetch, but no attempt
starts within ten seconds of the last one, so a flood of invented ids costs nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import jwt
import orjson

from models.core.strands import aside
from models.errors import BlotterError, SettingsError
from models.settings import Settings

MIN_SECRET_BYTES: Final = 32
_LIFE_S: Final = 300.0
_ATTEMPT_GAP_S: Final = 10.0
_FETCH_S: Final = 3.0


class KeysUnavailable(BlotterError):
    """The key set has never been fetched, so nobody's token can be checked: 503 + Retry-After."""


def load_secrets(settings: Settings) -> tuple[bytes, ...]:
    """The HS256 secrets, the signing one first; empty where none is configured. Raises SettingsError for a bad file."""
    inline = () if settings.jwt_secret is None else (settings.jwt_secret.encode(),)
    if settings.jwt_secret_file is None:
        return inline
    return inline + _secrets_in(settings.jwt_secret_file)


def _secrets_in(path: Path) -> tuple[bytes, ...]:
    name = "BLOTTER_JWT_SECRET_FILE"
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise SettingsError(f"{name}: {path} cannot be read: {error.strerror}") from None
    secrets = tuple(line.strip() for line in lines if line.strip())
    if not secrets:
        raise SettingsError(
            f"{name}: {path} holds no key; one a line, at least {MIN_SECRET_BYTES} bytes each"
        )
    for number, secret in enumerate(secrets, 1):
        if len(secret) < MIN_SECRET_BYTES:
            raise SettingsError(f"{name}: key {number} of {path} is shorter than {MIN_SECRET_BYTES} bytes")
    return secrets


def fetch_jwks(url: str) -> Callable[[], Mapping[str, jwt.PyJWK]]:
    """A function that fetches the signing keys at ``url``, by key id, within _FETCH_S; raises jwt.PyJWTError when that fails.
    Raises SettingsError for what is no address of a web server.

    Not by jwt.PyJWKClient: its timeout counts anew with each byte, so a server that drips would hold the fetch, and whoever
    waits for the first keys, for as long as it likes.
    """
    import httpx

    if urlsplit(url).scheme not in ("http", "https"):
        raise SettingsError("BLOTTER_JWKS_URL: must be an http:// or https:// address")

    async def get() -> bytes:
        async with asyncio.timeout(_FETCH_S), httpx.AsyncClient(timeout=_FETCH_S) as client:
            response = await client.get(url)
            response.raise_for_status()
            return response.content

    def fetch() -> Mapping[str, jwt.PyJWK]:
        try:
            document = orjson.loads(asyncio.run(get()))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise jwt.PyJWKClientConnectionError(f"no keys from there: {type(error).__name__}") from error
        if not isinstance(document, dict):
            raise jwt.PyJWKSetError("a key set is a JSON object")
        keys = jwt.PyJWKSet.from_dict(document).keys
        return {
            key.key_id: key for key in keys if key.key_id is not None and key.public_key_use in ("sig", None)
        }

    return fetch


class KeySet:
    """Public keys by id, fetched again when old or when an id is unknown."""

    def __init__(
        self, fetch: Callable[[], Mapping[str, jwt.PyJWK]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = threading.Lock()

    def key(self, key_id: str) -> jwt.PyJWK | None:
        """The key named ``key_id``, None where there is none. Raises KeysUnavailable before the first fetch worked."""
        keys = self._keys
        if keys is None or key_id not in keys or self._clock() - self._fetched_at > _LIFE_S:
            keys = aside(self._refreshed)
        return keys.get(key_id)

    def _refreshed(self) -> Mapping[str, jwt.PyJWK]:
        # Who comes while another thread fetches takes the keys there are, and waits only where there are none.
        if self._lock.acquire(blocking=self._keys is None):
            try:
                now = self._clock()
                if now - self._tried_at >= _ATTEMPT_GAP_S:
                    self._tried_at = now
                    self._keys = self._fetch()
                    self._fetched_at = now
            except (jwt.PyJWTError, OSError, ValueError):
                pass  # the last keys stay in use; without any, the caller is told below
            finally:
                self._lock.release()
        if self._keys is None:
            raise KeysUnavailable("The keys that tokens are checked with cannot be fetched.")
        return self._keys
