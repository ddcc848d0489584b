"""`blotter dead`: listed without chat text, shown, replayed when the cause is mended, purged."""

from __future__ import annotations

import pytest

from tests.acceptance.console import Console
from tests.flow.crews import CrewRig


@pytest.fixture
def chat(chat: CrewRig) -> CrewRig:
    chat.reject_poison()
    return chat


def bury(chat: CrewRig, *names: str) -> None:
    """In each conversation a healthy m1 and a poisonous m2."""
    for name in names:
        chat.say(name, "m1", "a")
        chat.say(name, "m2", "poison SECRET")
        chat.flush_once(name)


def refs(blotter: Console, *arguments: str) -> list[str]:
    return sorted(letter["ref"] for letter in blotter.json("dead", "list", *arguments)["deadLetters"])


def test_they_are_listed_with_the_reason_and_without_chat_text(chat: CrewRig, blotter: Console) -> None:
    assert blotter.json("dead", "list") == {"deadLetters": []}
    bury(chat, "c1", "c2")
    (first,) = (x for x in blotter.json("dead", "list")["deadLetters"] if x["conversation"] == "c1")
    assert first["ref"] == f"{chat.place('c1').hex}/m/m2"
    assert (first["owner"], first["kind"], first["id"], first["sqlstate"]) == (
        "ann",
        "message",
        "m2",
        "23514",
    )
    assert "no_poison" in first["reason"]
    listed = blotter("dead", "list")
    assert "SECRET" not in listed.output + blotter("dead", "list", "--json").output
    assert len(listed.stdout.splitlines()) == 2
    assert "2 dead letters" in listed.stderr


def test_filters_by_owner_and_conversation(chat: CrewRig, blotter: Console) -> None:
    bury(chat, "c1", "c2")
    assert len(refs(blotter, "--owner", "ann")) == 2
    assert refs(blotter, "--owner", "bob") == []
    assert refs(blotter, "--owner", "ann", "--conversation", "c2") == [f"{chat.place('c2').hex}/m/m2"]
    assert refs(blotter, "--owner", "bob", "--conversation", "c2") == []
    assert "needs --owner" in blotter("dead", "list", "--conversation", "c2", exits=2).stderr


def test_the_record_is_printed_only_when_asked_for(chat: CrewRig, blotter: Console) -> None:
    bury(chat, "c1")
    (ref,) = refs(blotter)
    shown = blotter.json("dead", "show", ref)
    assert shown["record"]["role"] == "user"
    assert shown["record"]["content"] == "13 characters"
    assert "SECRET" not in blotter("dead", "show", ref).output
    assert blotter.json("dead", "show", ref, "--content")["record"]["content"] == "poison SECRET"
    assert "record.content: poison SECRET" in blotter("dead", "show", ref, "--content").stdout
    assert "is no dead letter" in blotter("dead", "show", ref[:-1] + "1", exits=1).stderr


def test_replayed_too_early_they_are_set_aside_again_and_after_the_mending_stored(
    chat: CrewRig, blotter: Console
) -> None:
    bury(chat, "c1", "c2")
    both = refs(blotter)
    assert blotter.json("dead", "replay", *both) == {"done": both, "notFound": []}
    assert refs(blotter) == []
    blotter("drain", "--timeout", "20")
    assert refs(blotter) == both
    chat.accept_poison()
    assert "2 done" in blotter("dead", "replay", "--all").stderr
    blotter("drain", "--timeout", "20")
    assert chat.stored_texts("c1") == {"m1": "a", "m2": "poison SECRET"}
    chat.assert_clean("c1", "c2")
    blotter("verify")


def test_what_is_no_dead_letter_is_exit_code_1_and_the_others_are_done(
    chat: CrewRig, blotter: Console
) -> None:
    bury(chat, "c1")
    (ref,) = refs(blotter)
    healthy = ref[:-1] + "1"
    answer = blotter.json("dead", "replay", ref, healthy, exits=1)
    assert answer == {"done": [ref], "notFound": [healthy]}
    assert f"{ref} is no dead letter (anymore)" in blotter("dead", "replay", ref, exits=1).stderr
    blotter("dead", "replay", "--all")


def test_a_newer_save_overtakes_a_dead_letter(chat: CrewRig, blotter: Console) -> None:
    bury(chat, "c1")
    (ref,) = refs(blotter)
    chat.say("c1", "m2", "harmless")
    assert refs(blotter) == []
    blotter("dead", "replay", ref, exits=1)
    blotter("drain", "--timeout", "20")
    assert chat.stored_texts("c1") == {"m1": "a", "m2": "harmless"}
    chat.assert_clean("c1")


def test_purging_asks_first_and_drops_for_good(chat: CrewRig, blotter: Console) -> None:
    bury(chat, "c1", "c2")
    place = chat.place("c1")
    ref = f"{place.hex}/m/m2"
    blotter("dead", "purge", ref, exits=1, answer="n\n")
    blotter("dead", "purge", ref, exits=1, answer="")
    assert len(refs(blotter)) == 2
    blotter("dead", "purge", ref, answer="y\n")
    assert refs(blotter) == [f"{chat.place('c2').hex}/m/m2"]
    assert chat.texts("c1") == [("m1", "a")]
    assert blotter.json("dead", "purge", "--all", "--owner", "ann", "--yes")["done"] == [
        f"{chat.place('c2').hex}/m/m2"
    ]
    blotter("verify")
    assert chat.buffer.evict(place.keys, place.hex, 0) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay",),
        ("purge", "--yes"),
        ("replay", "--all", f"{0:032x}/m/m1"),
        ("replay", "nonsense"),
        ("show",),
    ],
)
def test_wrong_usage_is_exit_code_2(blotter: Console, arguments: tuple[str, ...]) -> None:
    blotter("dead", *arguments, exits=2)
