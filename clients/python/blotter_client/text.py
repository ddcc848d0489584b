"""Text measured as browsers do, in UTF-16 code units, and never cut inside a character.

Offsets of appends count what `string.length` counts, so that a reply begun by a backend can be gone on with by a page.
A Python string may hold half a surrogate pair: some providers cut their events there, and JSON lets them. Such a half is
held back until its partner comes, because Blotter takes whole characters only.
"""

from __future__ import annotations

from bisect import bisect_right

REPLACEMENT = "\ufffd"


def units(text: str) -> int:
    """Length of ``text`` in UTF-16 code units; half a pair counts one."""
    return len(text) if text.isascii() else len(text) + sum(character > "\uffff" for character in text)


def split(text: str, limit: int) -> tuple[str, str]:
    """``text`` cut in two: the longest beginning of at most ``limit`` units, but at least one character; the rest."""
    if len(text) <= limit and units(text) <= limit:
        return text, ""
    end = min(len(text), max(limit, 1))
    while end > 1 and units(text[:end]) > limit:
        # Each character beyond 16 bits in text[:end] may cost one; take off what is surely too much at once.
        end -= max(1, (units(text[:end]) - limit) // 2)
    return text[:end], text[end:]


def whole(text: str) -> tuple[str, str]:
    """``text`` with halves that stand together joined and lone ones replaced (U+FFFD); and what is held back.

    Held back is a first half at the very end: its partner may come with the next piece.
    """
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return text, ""
    held = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
    raw = text[: len(text) - len(held)].encode("utf-16-le", "surrogatepass")
    return raw.decode("utf-16-le", "replace"), held


class Growing:
    """A text that only grows at its end and gives out any part of itself by UTF-16 offset."""

    __slots__ = ("_pieces", "_starts", "length")

    def __init__(self, text: str = "") -> None:
        self._pieces: list[str] = []
        self._starts: list[int] = []
        #: Units so far.
        self.length = 0
        self.add(text)

    def add(self, text: str) -> None:
        """Put ``text`` (whole characters) at the end."""
        if text:
            self._pieces.append(text)
            self._starts.append(self.length)
            self.length += units(text)

    def piece(self, offset: int, limit: int) -> str:
        """At most ``limit`` units from ``offset`` on (at least one character); empty at the end.

        Raises ValueError where ``offset`` lies inside a character.
        """
        if offset >= self.length:
            return ""
        index = bisect_right(self._starts, offset) - 1
        skip = offset - self._starts[index]
        found = [_after(self._pieces[index], skip)]
        size = units(found[0])
        for text in self._pieces[index + 1 :]:
            if size >= limit:
                break
            found.append(text)
            size += units(text)
        return split("".join(found), limit)[0]

    def is_boundary(self, offset: int) -> bool:
        """True where ``offset`` lies between characters of this text, or at one of its ends."""
        try:
            return offset == self.length or bool(self.piece(offset, 1))
        except ValueError:
            return False

    def __str__(self) -> str:
        if len(self._pieces) > 1:
            self._pieces, self._starts = ["".join(self._pieces)], [0]
        return self._pieces[0] if self._pieces else ""


def _after(text: str, skip: int) -> str:
    """``text`` without its first ``skip`` units. Raises ValueError where that cuts a character."""
    if text.isascii():
        return text[skip:]
    at = index = 0
    while at < skip and index < len(text):
        at += 2 if text[index] > "\uffff" else 1
        index += 1
    if at > skip:
        raise ValueError("the offset lies inside a character")
    return text[index:]
