"""What a reply's writer is made of: its pace, what waits in its queue, and the step it asks for next. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blotter_client.calls import Request
from blotter_client.text import Growing


@dataclass(frozen=True, slots=True)
class Pace:
    """How a reply is cut into requests. Texts in UTF-16 units, times in seconds."""

    #: Text is sent once this much waits …
    batch: int = 100
    #: … or the oldest of it waited this long.
    linger_s: float = 0.25
    #: Most text of one request.
    most: int = 16_384
    #: `append` waits for the server while more than this is unacknowledged.
    waiting: int = 262_144
    #: A sign of life after this much silence, below the server's BLOTTER_STALE_SECONDS.
    heartbeat_s: float = 20.0

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= self.most or self.waiting < 1 or self.linger_s < 0 or self.heartbeat_s <= 0:
            raise ValueError("Pace: 1 <= batch <= most, waiting >= 1, linger_s >= 0, heartbeat_s > 0")


@dataclass(slots=True)
class Channel:
    """A text that grows: the content (part None) or a part's. ``sent``: acknowledged units."""

    part: int | None
    text: Growing
    sent: int = 0


@dataclass(slots=True)
class TextOp:
    """Text up to ``end``; the oldest unit not yet sent came at ``since_s``."""

    channel: Channel
    end: int
    since_s: float
    taken_s: float = 0.0


@dataclass(slots=True)
class PartOp:
    """``forward``: the server itself tells it from a newer one, should it arrive late: it says "streaming", and is ignored
    where there is more. Any other takes a revision of its own.
    """

    index: int
    value: dict[str, Any]
    channel: Channel | None
    forward: bool
    taken: bool = False


@dataclass(slots=True)
class Restate:
    """Say everything once more. ``over``: above this revision, whatever is there; None: as an ordinary upsert."""

    over: int | None = None
    covers: tuple[PartOp, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A request, and what will be true once it is acknowledged."""

    request: Request
    op: TextOp | PartOp | Restate | None
    ends: tuple[tuple[Channel, int], ...] = ()
    final: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to send now: look again after so many seconds, or when something was added."""

    seconds: float


class Done:
    """The final status is acknowledged."""


_TOOL_STATES = {
    "input-streaming": 0,
    "input-available": 1,
    "approval-requested": 2,
    "approval-responded": 3,
}
_FINAL = 5


def leads_on(had: Mapping[str, Any] | None, value: Mapping[str, Any]) -> bool:
    """Whether the server ranks part ``value`` above ``had`` (None: nothing) by their states and texts alone."""
    text = _text(value)
    if had is None:
        return text is not None or _rank(value) < _FINAL
    old = _text(had)
    return _rank(value) > _rank(had) and (text is None or old is None or text.startswith(old))


def _text(part: Mapping[str, Any]) -> str | None:
    text = part.get("text")
    return text if part.get("type") in ("text", "reasoning") and isinstance(text, str) else None


def _rank(part: Mapping[str, Any]) -> int:
    kind = str(part.get("type"))
    if kind != "dynamic-tool" and not kind.startswith("tool-"):
        return 0 if _text(part) is not None and part.get("state") == "streaming" else _FINAL
    rank = _TOOL_STATES.get(str(part.get("state")), _FINAL)
    return 4 if rank == _FINAL and part.get("preliminary") is True else rank
