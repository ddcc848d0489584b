"""Names derived from names: stable for ever, because they name keys and rows that are kept."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, strategies as st

from models.identity import conversation_uid, is_id, mint_id, owner_tag, partition_of


@pytest.mark.parametrize("text", ["a", "A-Z_0.9~:@", "x" * 256, "msg_01J9.call:1@v~2", "-", "."])
def test_ids_of_clients_are_opaque(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize("text", ["", "x" * 257, "a b", "a/b", "a\n", "\n", "é", "a\0", "{a}", "a,b", "a%20"])
def test_what_could_break_a_key_is_no_id(text: str) -> None:
    assert not is_id(text)


def test_a_uid_never_changes() -> None:
    """Keys and primary keys carry it: another answer would lose every conversation there is."""
    assert conversation_uid("owner", "chat") == UUID("7ecd7c75-cd47-3eba-751a-ac2ad86f9152")
    assert conversation_uid("", "") == UUID("d5343797-3027-0d49-0195-25e608ffcc64")
    assert conversation_uid("ünï\0", "😀") == UUID("e3c4e59c-10a9-d803-9ad8-97aad8968c1b")
    assert owner_tag("owner") == "5e83c21616cf9267b622077c1d4023bf"


@given(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4), st.text(max_size=4))
def test_no_pair_of_names_poses_as_another(owner: str, chat: str, other_owner: str, other_chat: str) -> None:
    same = (owner, chat) == (other_owner, other_chat)
    assert (conversation_uid(owner, chat) == conversation_uid(other_owner, other_chat)) == same


def test_shifting_a_letter_between_the_names_is_another_conversation() -> None:
    assert (
        len({conversation_uid(*pair) for pair in [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")]}) == 4
    )


@given(st.uuids(), st.integers(1, 1024))
def test_a_partition_lies_within_bounds_and_never_changes(uid: UUID, partitions: int) -> None:
    number = partition_of(uid, partitions)
    assert 0 <= number < partitions
    assert number == partition_of(uid, partitions)


def test_partitions_fill_evenly() -> None:
    counts = [0] * 16
    for number in range(16_000):
        counts[partition_of(conversation_uid("owner", str(number)), 16)] += 1
    assert min(counts) > 850
    assert max(counts) < 1150
    assert partition_of(UUID(int=5 << 64), 16) == 5


def test_minted_ids_are_valid_unique_and_ordered_by_time() -> None:
    minted = [mint_id() for _ in range(1000)]
    assert len(set(minted)) == 1000
    assert all(is_id(one) and UUID(one).version == 7 for one in minted)
    assert minted == sorted(minted)
