"""UTF-16 units, cuts between characters, halves of surrogate pairs."""

from __future__ import annotations

import pytest
from blotter_client.text import REPLACEMENT, Growing, split, units, whole
from hypothesis import given, strategies as st

TEXT = st.text(st.sampled_from("aé\u0301א𝔘😀\u200d🇩👩z \n"), max_size=60)
HALVES = st.text(st.sampled_from("a😀\ud83d\ude00\udbff\udc00"), max_size=12)


def in_utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


@given(st.text())
def test_units_are_what_a_browser_counts(text: str) -> None:
    assert units(text) == in_utf16(text)


@given(TEXT, st.integers(1, 20))
def test_a_cut_gives_the_longest_beginning_that_fits_and_loses_nothing(text: str, limit: int) -> None:
    piece, rest = split(text, limit)
    assert piece + rest == text
    assert units(piece) <= max(limit, 2)
    if rest:
        assert piece, "something must go out, or nothing ever would"
        assert units(piece + rest[0]) > limit, "one more character would have fitted"


@given(st.lists(TEXT, max_size=8), st.integers(1, 30))
def test_a_growing_text_is_given_out_in_pieces_that_make_it_up_again(added: list[str], limit: int) -> None:
    text = Growing()
    for one in added:
        text.add(one)
    assert (text.length, str(text)) == (in_utf16("".join(added)), "".join(added))
    pieces, offset = [], 0
    while piece := text.piece(offset, limit):
        assert units(piece) <= max(limit, 2)
        pieces.append(piece)
        offset += units(piece)
    assert "".join(pieces) == "".join(added)
    assert offset == text.length


@given(TEXT, st.integers(0, 130))
def test_an_offset_inside_a_character_is_refused(text: str, offset: int) -> None:
    growing = Growing(text)
    boundaries = {in_utf16(text[:index]) for index in range(len(text) + 1)}
    assert growing.is_boundary(offset) is (offset in boundaries)
    if offset < growing.length and offset not in boundaries:
        with pytest.raises(ValueError, match="inside a character"):
            growing.piece(offset, 5)


@given(st.lists(HALVES, max_size=6))
def test_halves_that_meet_are_joined_and_lone_ones_replaced_however_they_were_cut(pieces: list[str]) -> None:
    out, held = "", ""
    for piece in pieces:
        text, held = whole(held + piece)
        out += text
    out += REPLACEMENT if held else ""
    raw = "".join(pieces).encode("utf-16-le", "surrogatepass")
    assert out == raw.decode("utf-16-le", "replace")
    out.encode()
