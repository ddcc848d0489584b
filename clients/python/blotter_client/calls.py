"""Each call of the API as a value: what is sent, before anybody sends it. No I/O; async and blocking clients share it.

Field names are Python's (snake_case) here and the API's (camelCase) in the body; a field not given is not sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from blotter_client.errors import NotSent
from blotter_client.types import UNSET

#: The longest `Prefer: wait` the API knows, s.
MAX_WAIT_S: Final = 10


def origin(url: str) -> str:
    """``url`` where requests can be sent to it. Raises ValueError with a sentence that says what is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is no address of Blotter: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"{url!r} is no address of Blotter: write it as http://127.0.0.1:8400")
    if any(character.isspace() for character in url):
        raise ValueError(f"{url!r} is no address of Blotter: it holds white space")
    return url


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. ``wait_s``: hold the answer until stored, at most so long (`Prefer: wait`)."""

    method: str
    path: str
    body: bytes | None = None
    wait_s: int | None = None

    def headers(self) -> dict[str, str]:
        """The headers that depend on the request alone."""
        headers = {} if self.body is None else {"Content-Type": "application/json"}
        if self.wait_s is not None:
            headers["Prefer"] = f"wait={self.wait_s}"
        return headers


def request(
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, str | int | bool | None] | None = None,
    wait: float | None = None,
) -> Request:
    """A Request. ``query``: None values are left out. Raises NotSent for a body that is no JSON, ValueError for ``wait``."""
    if wait is not None and not 0 < wait <= MAX_WAIT_S:
        raise ValueError(f"wait: more than 0 and at most {MAX_WAIT_S} seconds")
    given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
    if given:
        path = f"{path}?{urlencode(given)}"
    return Request(
        method, path, None if body is None else encode(body), None if wait is None else max(1, round(wait))
    )


def encode(body: Mapping[str, Any]) -> bytes:
    """``body`` as JSON in UTF-8. Raises NotSent: NaN, half a surrogate pair, a set, a cycle, …"""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        # Not the error's own text: it may quote the chat.
        raise NotSent(f"a value of the body is no JSON ({type(error).__name__})") from None


def fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """API names and values of what was given; UNSET is left out. Names that are camelCase already stay."""
    return {camel(name): _plain(value) for name, value in given.items() if value is not UNSET}


def camel(name: str) -> str:
    """``tool_call_id`` -> ``toolCallId``."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def conversation_path(conversation_id: str, *rest: str) -> str:
    """The path of a conversation, or of something in it."""
    return "/".join(
        ("/api/conversations", quote(conversation_id, safe=""), *(quote(part, safe="") for part in rest))
    )


def append(
    path: str, offset: int, text: str, *, part: int | None = None, alongside: Mapping[str, Any] | None = None
) -> Request:
    """Text that belongs at ``offset`` (UTF-16 units) of the content, or of a part's text. Empty: a heartbeat."""
    step: dict[str, Any] = {"offset": offset, "text": text}
    if part is not None:
        step["part"] = part
    return request("PATCH", path, {"append": step, **fields(alongside or {})})


def set_part(
    path: str, index: int, value: Mapping[str, Any], *, alongside: Mapping[str, Any] | None = None
) -> Request:
    """One part, whole."""
    return request("PATCH", path, {"part": {"index": index, "value": value}, **fields(alongside or {})})


def items(given: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Items of a sync."""
    return [fields(item) for item in given]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _text(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
