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
        before = seen.total()
        for place, value in _conversations(str(path), _values(path)):
            yield _chat(place, value, seen)
        if seen.total() == before:
            raise CannotRun(f"{path} holds no conversations: its list is empty")


def _values(path: Path) -> list[tuple[int, Any]]:
    """All JSON values of the file, each with the line on which it begins (0: the file is one value)."""
    text = _text(path)
    if not text.strip():
        raise CannotRun(f"{path} is empty: it holds no conversations")
    try:
        return [(0, json.loads(text))]
    except RecursionError:
        raise CannotRun(f"{path}: nested too deep") from None
    except json.JSONDecodeError as whole:
        values: list[tuple[int, Any]] = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    values.append((number, json.loads(line)))
                except (json.JSONDecodeError, RecursionError) as error:
                    raise _no_json(path, text, whole, number, error, first=not values) from None
        return values


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw.startswith(_GZIP) else raw
    except EOFError:
        raise CannotRun(f"{path} is cut off: its gzip stream has no end; copy it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise CannotRun(f"{path} is damaged: {error}; copy it again") from None
    except OSError as error:
        raise CannotRun(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CannotRun(f"{path} is not UTF-8: line {line}, byte {error.start}") from None


def _no_json(
    path: Path,
    text: str,
    whole: json.JSONDecodeError,
    number: int,
    error: json.JSONDecodeError | RecursionError,
    *,
    first: bool,
) -> CannotRun:
    """What is wrong with a file that is neither JSON nor JSON lines, and where. Chat text is not quoted."""
    if isinstance(error, RecursionError):
        return CannotRun(f"{path}, line {number}: nested too deep")
    if not first:
        last = number == text.count("\n") + 1
        cut = "the last line is cut off" if last else "no JSON"
        return CannotRun(f"{path}, line {number}: {cut} ({error.msg}, column {error.colno})")
    if text.lstrip()[0] not in "[{":
        return CannotRun(
            f"{path}, line {number}: neither JSON nor JSON a line: it begins with neither [ nor {{"
        )
    ended = whole.pos >= len(text.rstrip()) or whole.msg.startswith("Unterminated string")
    cut = "the file is cut off" if ended else "neither JSON nor JSON a line"
    return CannotRun(f"{path}, line {whole.lineno}: {cut} ({whole.msg}, column {whole.colno})")


def _conversations(name: str, values: list[tuple[int, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, {"messages": […], …}) of each conversation in ``values``."""
    if len(values) > 1 and all(_is_message(value) for _, value in values):
        values = [(0, [value for _, value in values])]
    for number, value in values:
        place = f"{name}:{number}" if number else name
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
    raise CannotRun(
        f"{place}: neither a list of messages with roles nor an object with `messages` or `traj`, but {_shape(value)}"
    )


def _shape(value: Any) -> str:
    """What it is, without what it says."""
    if isinstance(value, dict):
        return f"an object with {', '.join(map(repr, list(value)[:5]))}" if value else "an empty object"
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


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
