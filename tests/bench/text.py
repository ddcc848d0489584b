"""Text to save: words in random order, the same in every run; it compresses about as prose does."""

from __future__ import annotations

import random
import string
from functools import lru_cache

_LENGTH = 1 << 20


@lru_cache(maxsize=1)
def corpus() -> str:
    """A megabyte of words."""
    chance = random.Random(20231116)
    words = ["".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 9))) for _ in range(3000)]
    return " ".join(chance.choices(words, k=_LENGTH // 5))[:_LENGTH]


def prose(number: int, size: int) -> str:
    """``size`` characters, others for another ``number``."""
    text = corpus()
    start = number * 7919 % _LENGTH
    piece = text[start : start + size]
    while len(piece) < size:
        piece += text[: size - len(piece)]
    return piece
