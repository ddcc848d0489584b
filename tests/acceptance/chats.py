"""Chats to import: real ones where BLOTTER_TEST_DATA names a folder that has them, else a stand-in made here.

BLOTTER_TEST_DATA      folder with tau-bench-airline-a.json.gz
BLOTTER_TEST_CHATS     how many conversations of it the tests import (default 6; 100 are all)
"""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path
from typing import Any

REAL = "tau-bench-airline-a.json.gz"
COUNT = int(os.environ.get("BLOTTER_TEST_CHATS", "6"))

_TEXT = (
    "the flight of tomorrow morning is cancelled please confirm naïve cafe\u0301 שלום مرحبا 👩‍👩‍👧‍👦 𝔘𝔫𝔦 🇩🇪 "
    'double  blank "quoted" back\\slash \ttab \nline 日本語 ½ {"json": true}'
)
_WORDS = _TEXT.split(" ")


def real_chats() -> Path | None:
    """The file of real conversations, where there is one."""
    folder = os.environ.get("BLOTTER_TEST_DATA")
    path = None if folder is None else Path(folder) / REAL
    return path if path is not None and path.exists() else None


def write_stand_in(path: Path, count: int = COUNT, seed: int = 7) -> Path:
    """``count`` made-up agent conversations in the same format, gzipped."""
    chance = random.Random(seed)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump([made_up(chance, number) for number in range(count)], file)
    return path


def made_up(chance: random.Random, number: int) -> dict[str, Any]:
    """One agent conversation: system, user, assistant, tools; call ids come again, arguments are written in many ways."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": prose(chance, 60)}]
    for turn in range(chance.randint(2, 6)):
        messages.append({"role": "user", "content": prose(chance, chance.randint(1, 40))})
        for _ in range(chance.randint(0, 3)):
            call_id = f"call_{chance.randint(0, 4)}"
            value = {"query": prose(chance, 3), "limit": chance.randint(0, 9), "exact": 1.0, "tags": []}
            arguments = json.dumps(
                value, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, None, 2])
            )
            call = {
                "id": call_id,
                "type": "function",
                "function": {"name": f"tool_{turn}", "arguments": arguments},
            }
            messages.append(
                {
                    "role": "assistant",
                    "content": chance.choice([None, "", prose(chance, 9)]),
                    "tool_calls": [call],
                }
            )
            if chance.random() < 0.9:
                answer = {
                    "role": "tool",
                    "tool_call_id": call_id,
                    "content": prose(chance, chance.randint(0, 200)),
                }
                messages.append(answer if chance.random() < 0.5 else {**answer, "name": f"tool_{turn}"})
        messages.append({"role": "assistant", "content": prose(chance, chance.randint(1, 150))})
    return {"task_id": number, "reward": chance.random(), "traj": messages}


def prose(chance: random.Random, words: int) -> str:
    return " ".join(chance.choice(_WORDS) for _ in range(words))
