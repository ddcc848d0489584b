"""Events as bytes: JSON arrays, and the protocol's server-sent events `data` and `control`.

orjson escapes line ends, so one `data:` line holds a whole array.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from web.events.offsets import Position

#: A comment, so that proxies and readers see that the connection lives.
HEARTBEAT: Final = b":\n\n"


def array(events: Sequence[Any]) -> bytes:
    """A JSON array; b"" where there is nothing to tell."""
    return orjson.dumps(events) if events else b""


def joined(arrays: Sequence[bytes]) -> bytes:
    """One JSON array of the elements of several (not empty ones)."""
    return b"[" + b",".join(one[1:-1] for one in arrays) + b"]"


def data(events: bytes) -> list[bytes]:
    """The event that carries an array, in parts."""
    return [b"event: data\ndata: ", events, b"\n\n"]


def control(position: Position, cursor: str, *, up_to_date: bool, closed: bool = False) -> bytes:
    """The event that tells where the reader stands now."""
    body: dict[str, Any] = {"streamNextOffset": str(position)}
    if closed:
        body["streamClosed"] = True
    else:
        body["streamCursor"] = cursor
    if up_to_date or closed:
        body["upToDate"] = True
    return b"event: control\ndata: " + orjson.dumps(body) + b"\n\n"
