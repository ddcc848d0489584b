"""Chat files: what is in them, found by looking, as chats ready to be sent.

A file is JSON or one JSON value a line, either of them gzipped. A value is one of

    a list of messages                                       one conversation
    {"messages": [...]} or {"traj": [...]}, further names    one conversation; `id`, `title` are its own, the rest metadata
    a list of any of these                                   as many

and messages are AI SDK `UIMessage`s where all of them carry `parts`, else OpenAI's. Ids are made from the content, so the
same file gives the same ids, whoever imports it and how often.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from blotter_client.formats import openai, ui
from blotter_client.formats.plan import PlannedMessage, digest, is_id

from web.cli.errors import CannotRun

_GZIP: Final = b"\x1f\x8b"
_LISTS: Final = ("messages", "traj")
_MAX_TITLE: Final = 1000


@dataclass(frozen=True)
class Chat:
    """One conversation of a file. ``place``: where it stands, for messages to the operator."""

    id: str
    place: str
    format: Literal["openai", "ui"]
    title: str | None
    metadata: dict[str, Any] | None
    source: Sequence[Mapping[str, Any]]
    planned: Sequence[PlannedMessage]

    @property
    def characters(self) -> int:
        return sum(message.characters for message in self.planned)

    def restored(self, view: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The messages in their own format, from what the API shows of the conversation."""
        return openai.restore(view) if self.format == "openai" else ui.restore(view)


def read(paths: Iterable[Path]) -> Iterator[Chat]:
    """The chats of these files, in order. Raises CannotRun for the first thing that is no chat."""
    seen: Counter[str] = Counter()
    for path in paths:
        for place, value in _conversations(path.name, _values(path)):
            yield _chat(place, value, seen)


def _values(path: Path) -> list[Any]:
    """All JSON values of the file."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw.startswith(_GZIP) else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise CannotRun(f"{path} cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise CannotRun(f"{path} is not UTF-8: byte {error.start}") from None
    try:
        return [json.loads(text)]
    except RecursionError:
        raise CannotRun(f"{path}: nested too deep") from None
    except json.JSONDecodeError as whole:
        values = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    values.append(json.loads(line))
                except (json.JSONDecodeError, RecursionError):
                    at = f"line {whole.lineno}" if number == 1 else f"line {number}"
                    raise CannotRun(f"{path} is neither JSON nor JSON a line: {at}") from None
        return values


def _conversations(name: str, values: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, {"messages": […], …}) of each conversation in ``values``."""
    if len(values) > 1 and all(_is_message(value) for value in values):
        values = [values]
    for number, value in enumerate(values, 1):
        place = name if len(values) == 1 else f"{name}:{number}"
        if isinstance(value, list) and not (value and all(_is_message(one) for one in value)):
            for index, one in enumerate(value):
                yield f"{place}[{index}]", _conversation(f"{place}[{index}]", one)
        else:
            yield place, _conversation(place, value)


def _conversation(place: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        value = {"messages": value}
    if isinstance(value, dict):
        for name in _LISTS:
            messages = value.get(name)
            if isinstance(messages, list) and all(_is_message(one) for one in messages):
                return {"messages": messages, **{key: value[key] for key in value if key != name}}
    raise CannotRun(f"{place}: neither a list of messages with roles nor an object with `messages` or `traj`")


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "role" in value and not any(name in value for name in _LISTS)


def _chat(place: str, value: dict[str, Any], seen: Counter[str]) -> Chat:
    rest = dict(value)
    messages = rest.pop("messages")
    own_id = rest.get("id")
    conversation_id = own_id if isinstance(own_id, str) and is_id(own_id) else f"chat-{digest(value)}"
    if conversation_id == own_id:
        del rest["id"]
    seen[conversation_id] += 1
    if seen[conversation_id] > 1:
        conversation_id = f"{conversation_id}~{seen[conversation_id]}"
    title = rest.get("title")
    if isinstance(title, str) and len(title) <= _MAX_TITLE:
        del rest["title"]
    else:
        title = None
    is_ui = bool(messages) and all(isinstance(message.get("parts"), list) for message in messages)
    return Chat(
        id=conversation_id,
        place=place,
        format="ui" if is_ui else "openai",
        title=title,
        metadata=rest or None,
        source=messages,
        planned=ui.plan(messages) if is_ui else openai.plan(messages),
    )
