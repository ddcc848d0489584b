"""A voice without a model: original texts, a tool and artifacts, the same for the same question and message id.

It looks for a word in the question and recites; nothing is understood. What it can do is chosen to show what Blotter
keeps: long streams, markdown of every kind, tool calls whose input grows, artifacts that are written while one watches.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from web.demo.assistant import texts
from web.demo.assistant.voice import (
    Begin,
    Content,
    End,
    Line,
    Said,
    Silence,
    Text,
    ToolInput,
    ToolOutput,
)

#: What the question must hold for each of the recitals; the first that fits.
_TOPICS: Final[Sequence[tuple[str, str]]] = (
    (r"weather|forecast|rain|sun(ny)?\b", "weather"),
    (r"draw|picture|svg|lighthouse|image", "drawing"),
    (r"page|website|html|invitation", "page"),
    (r"code|python|function|program|script", "code"),
    (r"long|story|tale", "story"),
)
_WORDS: Final = re.compile(r"\S+\s*|\s+")
#: While a tool "runs", in characters' time: fast tests wait as little as fast readers.
_TOOL_CHARACTERS: Final = 160
_THINKING_CHARACTERS: Final = 40


class Simulator:
    """The voice."""

    repeats = True

    async def speak(self, message_id: str, history: Sequence[Line], speed: int) -> AsyncIterator[Said]:
        """See Voice."""
        question = history[-1].text if history else ""
        dice = _dice(message_id, question)
        yield Silence(_THINKING_CHARACTERS / speed)
        for one in _recital(question, dice):
            yield one
            yield Silence(_length(one) / speed)
            await asyncio.sleep(0)


def _recital(question: str, dice: int) -> Iterator[Said]:
    topic = next((topic for pattern, topic in _TOPICS if re.search(pattern, question, re.IGNORECASE)), "")
    if topic == "weather":
        yield from _weather(question, dice)
    elif topic == "drawing":
        yield from _artifact(texts.DRAWING)
    elif topic == "page":
        yield from _artifact(texts.PAGE)
    elif topic == "code":
        yield from _artifact(texts.CODE)
    elif topic == "story":
        yield from _words(texts.STORY)
    else:
        yield from _words(texts.ANSWERS[dice % len(texts.ANSWERS)])


def _weather(question: str, dice: int) -> Iterator[Said]:
    place = re.search(r"\b(?:in|at|for)\s+([A-ZÀ-Þ][\w'-]*(?:\s[A-ZÀ-Þ][\w'-]*)*)", question)
    name = place[1] if place else "Inkwell Bay"
    days = 4
    yield from _words(texts.WEATHER_BEFORE.format(place=name))
    call = {"place": name, "days": days, "units": "metric"}
    for partial in _growing(call):
        yield ToolInput("forecast", "forecast", partial, complete=False)
    yield ToolInput("forecast", "forecast", call, complete=True)
    found = []
    for day, label in enumerate(("today", "tomorrow", "the day after", "then")[:days]):
        roll = _dice(f"{dice}", f"{name} {day}")
        sky = texts.SKIES[roll % len(texts.SKIES)]
        found.append({"day": label, "sky": sky, "high": 9 + roll % 17, "low": 2 + roll % 7})
    yield ToolOutput("forecast", {"place": name, "source": "invented", "days": found})
    rows = "".join(f"| {one['day']} | {one['sky']} | {one['high']}° | {one['low']}° |\n" for one in found)
    yield from _words(texts.WEATHER_AFTER.format(place=name, rows=rows))


def _growing(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A tool's input as it comes in: one member after the other."""
    members = list(value.items())
    for count in range(1, len(members)):
        yield dict(members[:count])


def _artifact(work: texts.Work) -> Iterator[Said]:
    yield from _words(work.before)
    yield Begin("work", work.kind, work.title, work.language, work.media_type)
    for line in work.content.splitlines(keepends=True):
        yield Content(line)
    yield End()
    yield from _words(work.after)


def _words(text: str) -> Iterator[Said]:
    for word in _WORDS.findall(text):
        yield Text(word)


def _length(one: Said) -> int:
    match one:
        case Text(text):
            return len(text)
        case Content(text):
            return len(text) // 3  # markup is written faster than it is read
        case ToolInput(input=value):
            return _TOOL_CHARACTERS if one.complete else len(json.dumps(value)) // 2
        case _:
            return 0


def _dice(*names: str) -> int:
    return int.from_bytes(blake2b("\n".join(names).encode(), digest_size=6).digest(), "big")
