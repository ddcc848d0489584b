"""What is saved of one message, and what of a source message the saved fields do not carry.

A format reads a message as well as it can and guesses, from what will be stored, how the message looked. Where the guess
is wrong, what differs goes into the message's metadata, under the format's own name: ``{"openai": {"set": {…}, "unset":
[…]}}``. So nothing is lost however odd the source is, and nothing is stored twice where it is ordinary.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from blotter_client.types import FINAL_STATES, Json, Role, ToolState

_ID: Final = re.compile(r"[A-Za-z0-9_.~:@-]{1,256}")
_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
#: Blotter's bounds on JSON values; one level is kept for what a value is put into.
_MAX_DEPTH: Final = 56
_INT64: Final = 2**63
_MAX_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class PlannedResult:
    """A tool's answer. ``message_id``: the message that called, or the answer's own where nobody did."""

    id: str
    message_id: str
    tool_call_id: str
    tool_name: str | None
    state: ToolState
    input: Json = None
    output: Json = None
    error_text: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedMessage:
    """One message. ``results``: saved while it is written (its own calls' answers); ``links``: results it shows besides."""

    id: str
    role: Role
    content: str | None = None
    parts: tuple[Mapping[str, Any], ...] | None = None
    metadata: Json = None
    results: tuple[PlannedResult, ...] = ()
    links: tuple[str, ...] = ()

    @property
    def characters(self) -> int:
        """About how much text it carries, for a progress bar."""
        own = len(self.content or "") + (0 if self.parts is None else len(compact(self.parts)))
        return own + sum(len(compact(result.output)) for result in self.results)


def role_of(value: object) -> Role:
    """The role to store; one that Blotter does not know is stored as the user's (and kept in the metadata)."""
    return _ROLES.get(value, "user") if isinstance(value, str) else "user"


def is_id(value: object) -> bool:
    """True for a text that Blotter takes as an id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def compact(value: Json) -> str:
    """``value`` as JSON without blanks, names in their order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def same(left: Json, right: Json) -> bool:
    """Equal as JSON: 1, 1.0 and true are three things; the order of names is none."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def digest(value: Json) -> str:
    """24 hex digits that name ``value``; the order of names does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def result_id(message_id: str, tool_call_id: str, taken: Iterable[str]) -> str:
    """``{message_id}.{tool_call_id}``, by a digest where that is no id, with a number where it is taken."""
    name = f"{message_id}.{tool_call_id}"
    if not is_id(name) or len(name) > 240:
        name = f"{message_id}.{digest(tool_call_id)}"
    taken = set(taken)
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}~{number}"
    return found


def is_final(state: object) -> bool:
    """True for a state after which a tool says nothing more."""
    return isinstance(state, str) and state in FINAL_STATES


def short(value: object) -> str | None:
    """``value`` where it may be a tool's name or a call's id, else None."""
    return value if isinstance(value, str) and len(value) <= _MAX_NAME else None


def parsed(text: str) -> Json:
    """The value of ``text`` where it is JSON that Blotter keeps exactly, else ``text`` itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, (dict, list)) and keepable(value) else text


def keepable(value: Json, depth: int = 0) -> bool:
    """True where Blotter takes ``value``: numbers within 64 bits and finite, whole characters, no NUL, not too deep."""
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int):
        return -_INT64 <= value < _INT64
    if isinstance(value, float):
        return math.isfinite(value)
    if depth >= _MAX_DEPTH:
        return False
    if isinstance(value, dict):
        return all(keepable(name) and keepable(child, depth + 1) for name, child in value.items())
    return all(keepable(child, depth + 1) for child in value)


def difference(guess: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be done to ``guess`` to make it ``source``; empty where nothing."""
    wrong = {
        name: value for name, value in source.items() if name not in guess or not same(guess[name], value)
    }
    surplus = sorted(name for name in guess if name not in source)
    return {**({"set": wrong} if wrong else {}), **({"unset": surplus} if surplus else {})}


def applied(guess: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `difference`."""
    unset = change.get("unset", ())
    return {**{name: value for name, value in guess.items() if name not in unset}, **change.get("set", {})}
