"""What a voice says, as values, and what it is told. Performing them is `turn`'s part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Text:
    """Some more text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolInput:
    """A tool call begins, or its input has grown; ``complete``: all of it is there."""

    call_id: str
    name: str
    input: Any
    complete: bool


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """The tool answered."""

    call_id: str
    output: Any


@dataclass(frozen=True, slots=True)
class Begin:
    """An artifact begins. ``name``: its id within the reply."""

    name: str
    kind: str
    title: str
    language: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Content:
    """Some more of the artifact that was begun last."""

    text: str


@dataclass(frozen=True, slots=True)
class End:
    """The artifact is whole."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing, for so many seconds."""

    seconds: float


Said: TypeAlias = Text | ToolInput | ToolOutput | Begin | Content | End | Silence


@dataclass(frozen=True, slots=True)
class Line:
    """A message of the chat so far."""

    role: Literal["system", "user", "assistant"]
    text: str


class Failed(Exception):
    """The voice cannot go on; the text is for the reader."""


class Voice(Protocol):
    """Something that answers."""

    #: Whether it says the same again when it is asked the same for the same message.
    repeats: bool

    def speak(self, message_id: str, history: Sequence[Line], speed: int) -> AsyncIterator[Said]:
        """The reply to the last of ``history``, at about ``speed`` characters a second. Raises Failed."""
        ...


def lines(path: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Messages as the API shows them -> what was said; those without text are left out."""
    said = []
    for message in path:
        role = message["role"]
        text = text_of(message)
        if role in ("system", "user", "assistant") and text:
            said.append(Line(role, text))
    return said


def text_of(message: Mapping[str, Any]) -> str:
    """All of a message's text: its content, else its text parts."""
    parts = message.get("parts") or []
    texts = [
        part["text"] for part in parts if part.get("type") == "text" and isinstance(part.get("text"), str)
    ]
    return "\n\n".join(texts) if texts else message.get("content") or ""
