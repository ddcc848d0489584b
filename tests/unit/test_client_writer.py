"""A reply's writer against a model of the server, on a clock of the test's own: batching, repeats, gaps, lost buffers."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from blotter_client.calls import Request
from blotter_client.errors import BlotterError, StaleRevision, Unreachable, from_problem
from blotter_client.steps import Done, Pace, Step, Wait
from blotter_client.text import split, units
from blotter_client.writer import OnConflict, Writer
from hypothesis import given, settings, strategies as st

PATH = "/api/conversations/c/messages"
STUB = {"id": "m", "role": "assistant", "status": "streaming"}


class Server:
    """What the API does to one message, as far as a writer can tell (section 6 of the design)."""

    def __init__(self) -> None:
        self.message: dict[str, Any] | None = None
        self.epoch = "e1"
        self.requests: list[dict[str, Any]] = []

    def lose(self, message: dict[str, Any] | None) -> None:
        """The buffer comes back as it was when it held ``message``."""
        self.message = json.loads(json.dumps(message))
        self.epoch += "'"

    def __call__(self, request: Request) -> dict[str, Any]:
        body = json.loads(request.body or b"{}")
        self.requests.append(body)
        if request.method in ("PUT", "POST"):
            return self._put(body)
        if self.message is None:
            raise problem(404, "not-found")
        there = self.message["revision"]
        if "revision" in body and there is not None and body["revision"] < there:
            raise problem(409, "stale-revision", current=dict(self.message))
        if "append" in body:
            self._append(body["append"])
        else:
            self._part(body)
        self._status(body)
        self.message["revision"] = body.get("revision", there)
        return self._saved()

    def _put(self, body: dict[str, Any]) -> dict[str, Any]:
        there = self.message
        if there is None:
            self.message = {"content": None, "parts": [], "revision": None, **body}
            return self._saved()
        forced = "revision" in body and (there["revision"] is None or body["revision"] > there["revision"])
        if not forced and "revision" in body and body["revision"] == there["revision"]:
            if any(there.get(name) != value for name, value in body.items()):
                raise problem(409, "revision-conflict")
            return self._saved()
        if not forced and body.get("status") == "streaming":
            if there["status"] != "streaming" or units(body.get("content") or "") < units(
                there["content"] or ""
            ):
                return self._saved("noop")
            if any(
                len(new.get("text", "")) < len(old.get("text", ""))
                for new, old in zip(body.get("parts", ()), there["parts"], strict=False)
            ):
                return self._saved("noop")
        self.message = {**there, **body}
        return self._saved()

    def _append(self, step: dict[str, Any]) -> None:
        assert self.message is not None
        holder, name = self.message, "content"
        if "part" in step:
            if step["part"] >= len(self.message["parts"]):
                raise problem(409, "part-gap", length=len(self.message["parts"]))
            holder, name = self.message["parts"][step["part"]], "text"
        text = (holder[name] or "").encode("utf-16-le")
        new = step["text"].encode("utf-16-le")
        at = 2 * step["offset"]
        if at > len(text):
            raise problem(409, "append-gap", length=len(text) // 2)
        overlap = min(len(text) - at, len(new))
        if text[at : at + overlap] != new[:overlap]:
            raise problem(409, "append-mismatch", length=len(text) // 2, current=dict(self.message))
        if len(new) > overlap:
            if self.message["status"] != "streaming":
                raise problem(409, "terminal", length=len(text) // 2, current=dict(self.message))
            holder[name] = (text + new[overlap:]).decode("utf-16-le")

    def _part(self, body: dict[str, Any]) -> None:
        assert self.message is not None
        step, parts = body["part"], self.message["parts"]
        if step["index"] > len(parts):
            raise problem(409, "part-gap", length=len(parts))
        if step["index"] == len(parts):
            parts.append(step["value"])
            return
        if body.get("status") == "streaming":
            new, old = step["value"], parts[step["index"]]
            shorter = len(new.get("text", "")) < len(old.get("text", ""))
            if shorter or rank(new) < rank(old) or self.message["status"] != "streaming":
                return
        parts[step["index"]] = step["value"]

    def _status(self, body: dict[str, Any]) -> None:
        assert self.message is not None
        if "status" in body and not (body["status"] == "streaming" and self.message["status"] != "streaming"):
            self.message["status"] = body["status"]
            self.message["reason"] = body.get("statusReason")

    def _saved(self, outcome: str = "accepted") -> dict[str, Any]:
        return {"id": "m", "outcome": outcome, "bufferEpoch": self.epoch}


def rank(part: dict[str, Any]) -> int:
    states = ("input-streaming", "input-available", "output-available")
    return states.index(part["state"]) if "state" in part else len(states)


def problem(status: int, slug: str, **more: Any) -> BlotterError:
    return from_problem(status, {"type": f"/problems/{slug}", **more})


class Desk:
    """A writer, a server and a clock between them."""

    def __init__(
        self, *, on_conflict: OnConflict = "raise", stub: dict[str, Any] | None = None, **pace: Any
    ) -> None:
        self.server = Server()
        self.now = 1000.0
        stub = stub or STUB
        self.writer = Writer(f"{PATH}/m", PATH, stub, Pace(**pace), on_conflict)
        self.writer.started(self.server._put(stub), self.now)  # type: ignore[arg-type]
        self.server.requests.clear()

    def next(self) -> Step | Wait | Done:
        return self.writer.next(self.now)

    def send(self, step: Step, *, times: int = 1) -> bool:
        """Send a step, perhaps more than once, as a transport does that lost the answer. False: the reply failed."""
        try:
            saved: Any = None
            for _ in range(times):
                saved = self.server(step.request)
        except BlotterError as error:
            return self.writer.refused(step, error)
        self.writer.acknowledged(step, saved, self.now)
        return True

    def settle(self, times: int = 1) -> bool:
        """Send all there is to send now; True when nothing waits, False when the reply failed."""
        for _ in range(200):
            step = self.next()
            if not isinstance(step, Step):
                return True
            if not self.send(step, times=times):
                return False
        raise AssertionError("it does not come to rest")

    def texts(self) -> list[str]:
        return [body["append"]["text"] for body in self.server.requests if "append" in body]

    @property
    def message(self) -> dict[str, Any]:
        assert self.server.message is not None
        return self.server.message


# ---------------------------------------------------------------------- pace
def test_text_waits_until_a_batch_is_together() -> None:
    desk = Desk()
    for _ in range(9):
        desk.writer.add("ten chars.", desk.now)
        assert isinstance(desk.next(), Wait)
    desk.writer.add("ten chars.", desk.now)
    assert desk.settle()
    assert desk.texts() == ["ten chars." * 10]


def test_what_waits_goes_out_after_a_quarter_of_a_second_counted_from_the_oldest() -> None:
    desk = Desk()
    desk.writer.add("a", desk.now)
    desk.now += 0.2
    desk.writer.add("b", desk.now)
    waited = desk.next()
    assert isinstance(waited, Wait)
    assert waited.seconds == pytest.approx(0.05)
    desk.now += waited.seconds
    assert desk.settle()
    assert desk.texts() == ["ab"]


def test_what_came_while_a_request_was_under_way_waits_no_longer_than_that() -> None:
    desk = Desk()
    desk.writer.add("x" * 100, desk.now)
    step = desk.next()
    assert isinstance(step, Step)
    desk.now += 0.1
    desk.writer.add("y", desk.now)
    desk.now += 0.1
    assert desk.send(step)
    waited = desk.next()
    assert isinstance(waited, Wait)
    assert waited.seconds <= 0.05 + 1e-9
    desk.now += waited.seconds
    assert desk.settle()
    assert desk.texts() == ["x" * 100, "y"]


def test_a_request_takes_all_that_waits_up_to_its_bound() -> None:
    desk = Desk(most=250)
    desk.writer.add("z" * 600, desk.now)
    assert desk.settle()
    assert [len(text) for text in desk.texts()] == [250, 250, 100]


def test_a_silent_reply_beats_and_text_counts_as_a_beat() -> None:
    desk = Desk(heartbeat_s=20.0)
    desk.now += 19.0
    waited = desk.next()
    assert isinstance(waited, Wait)
    assert waited.seconds == pytest.approx(1.0)
    desk.now += 1.0
    assert desk.settle()
    assert desk.texts() == [""]
    desk.now += 15.0
    desk.writer.add("x" * 100, desk.now)
    assert desk.settle()
    assert isinstance(waited := desk.next(), Wait)
    assert waited.seconds == pytest.approx(20.0)


def test_the_last_text_carries_the_status() -> None:
    desk = Desk()
    desk.writer.add("the end", desk.now)
    desk.writer.finish("complete", None, desk.now)
    assert desk.settle()
    assert isinstance(desk.next(), Done)
    assert desk.server.requests == [{"append": {"offset": 0, "text": "the end"}, "status": "complete"}]


def test_an_end_without_text_is_an_empty_append_with_status_and_reason() -> None:
    desk = Desk()
    desk.writer.finish("error", "KeyError", desk.now)
    desk.writer.finish("complete", None, desk.now)
    assert desk.settle()
    assert desk.server.requests == [
        {"append": {"offset": 0, "text": ""}, "status": "error", "statusReason": "KeyError"}
    ]


def test_nothing_is_added_after_the_end() -> None:
    desk = Desk()
    desk.writer.finish("complete", None, desk.now)
    with pytest.raises(ValueError, match="finished"):
        desk.writer.add("x", desk.now)
    with pytest.raises(ValueError, match="finished"):
        desk.writer.put_part(0, {"type": "text", "text": ""})


def test_memory_is_bounded_by_asking_the_caller_to_wait() -> None:
    desk = Desk(waiting=500)
    desk.writer.add("x" * 500, desk.now)
    assert not desk.writer.full
    desk.writer.add("😀", desk.now)
    assert (desk.writer.full, desk.writer.waiting) == (True, 502)
    assert desk.settle()
    assert not desk.writer.full
    desk.now += 1
    assert desk.settle()
    assert desk.writer.waiting == 0


def test_a_pace_that_makes_no_sense_is_refused() -> None:
    for wrong in (
        {"batch": 0},
        {"batch": 200, "most": 100},
        {"heartbeat_s": 0},
        {"linger_s": -1},
        {"waiting": 0},
    ):
        with pytest.raises(ValueError, match="Pace"):
            Pace(**wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- parts
def test_a_newer_part_replaces_one_that_waits_but_not_one_that_was_sent() -> None:
    desk = Desk()
    desk.writer.put_part(0, {"type": "tool-x", "state": "input-streaming"})
    desk.writer.put_part(0, {"type": "tool-x", "state": "input-available"})
    step = desk.next()
    assert isinstance(step, Step)
    desk.writer.put_part(0, {"type": "tool-x", "state": "output-available"})
    assert desk.send(step)
    assert desk.settle()
    assert [body["part"]["value"]["state"] for body in desk.server.requests] == [
        "input-available",
        "output-available",
    ]


def test_text_for_a_part_that_waits_goes_with_it_and_later_text_after_it() -> None:
    desk = Desk()
    desk.writer.put_part(0, {"type": "text", "text": ""})
    desk.writer.add("a", desk.now, 0)
    step = desk.next()
    assert isinstance(step, Step)
    desk.writer.add("b", desk.now, 0)
    assert desk.send(step)
    desk.writer.finish("complete", None, desk.now)
    assert desk.settle()
    assert desk.message["parts"] == [{"type": "text", "text": "ab"}]
    assert desk.server.requests[1]["append"] == {"offset": 1, "text": "b", "part": 0}


def test_text_goes_only_to_parts_that_have_one() -> None:
    desk = Desk()
    desk.writer.put_part(0, {"type": "tool-x", "state": "input-available"})
    for part in (0, 1):
        with pytest.raises(ValueError, match="is no text"):
            desk.writer.add("x", desk.now, part)
    with pytest.raises(ValueError, match="there are 1"):
        desk.writer.put_part(2, {"type": "text", "text": ""})


def test_a_late_copy_of_a_new_part_does_not_shorten_it() -> None:
    desk = Desk()
    desk.writer.put_part(0, {"type": "text", "text": ""})
    first = desk.next()
    assert isinstance(first, Step)
    assert desk.send(first)
    desk.writer.add("x" * 100, desk.now, 0)
    assert desk.settle()
    desk.server(first.request)
    assert desk.message["parts"] == [{"type": "text", "text": "x" * 100}]


@pytest.mark.parametrize(
    "values",
    [
        [{"type": "data-y", "data": n} for n in range(3)],
        [{"type": "data-y", "data": 0}]
        + [
            {"type": "tool-x", "state": "output-available", "preliminary": True, "output": n}
            for n in range(3)
        ],
        [{"type": "tool-x", "state": state} for state in ("input-available", "output-available")],
        [{"type": "data-y", "data": 0}, {"type": "text", "text": "so"}, {"type": "text", "text": "other"}],
    ],
)
def test_late_copies_of_a_parts_older_values_change_nothing_while_it_is_open(
    values: list[dict[str, Any]],
) -> None:
    desk = Desk()
    steps = []
    for value in values:
        desk.writer.put_part(0, value)
        step = desk.next()
        assert isinstance(step, Step)
        assert desk.send(step)
        steps.append(step)
        for late in steps:
            with suppress(StaleRevision):
                desk.server(late.request)
            assert desk.message["parts"] == [value]
    assert desk.message["status"] == "streaming"


def test_a_part_takes_another_writers_revision_but_goes_not_over_its_end() -> None:
    desk = Desk()
    desk.message["revision"] = 7
    desk.writer.put_part(0, {"type": "data-y", "data": 1})
    assert desk.settle()
    assert (desk.message["parts"], desk.message["revision"]) == ([{"type": "data-y", "data": 1}], 7)
    desk.message.update({"revision": 9, "status": "interrupted"})
    desk.writer.put_part(0, {"type": "data-y", "data": 2})
    assert not desk.settle()
    assert (desk.message["parts"][0]["data"], desk.message["status"]) == (1, "interrupted")


# ---------------------------------------------------------------------- what goes wrong
def test_a_gap_is_filled_from_the_length_the_server_has() -> None:
    desk = Desk(most=100)
    desk.writer.add("a" * 200 + "b" * 100, desk.now)
    assert desk.settle()
    desk.message["content"] = "a" * 150
    desk.writer.add("c" * 100, desk.now)
    assert desk.settle()
    desk.now += 0.25
    assert desk.settle()
    assert desk.message["content"] == "a" * 200 + "b" * 100 + "c" * 100


def test_a_gap_found_by_a_heartbeat_or_by_the_end_is_filled_too() -> None:
    for end in (False, True):
        desk = Desk()
        desk.writer.add("a" * 200, desk.now)
        assert desk.settle()
        desk.message["content"] = "a" * 10
        if end:
            desk.writer.finish("complete", None, desk.now)
        desk.now += 20.0
        assert desk.settle()
        assert desk.message["content"] == "a" * 200


def test_other_text_fails_the_reply_unless_it_may_be_replaced() -> None:
    for on_conflict in ("raise", "reopen"):
        desk = Desk(on_conflict=on_conflict)  # type: ignore[arg-type]
        desk.message["content"] = "other"
        desk.writer.add("x" * 100, desk.now)
        assert not desk.settle()
        assert desk.message["content"] == "other"
    desk = Desk(on_conflict="replace")
    desk.message.update(content="other", revision=7)
    desk.writer.add("x" * 100, desk.now)
    assert desk.settle()
    desk.writer.add("y", desk.now)
    desk.writer.finish("complete", None, desk.now)
    assert desk.settle()
    assert (desk.message["content"], desk.message["revision"], desk.message["status"]) == (
        "x" * 100 + "y",
        8,
        "complete",
    )


def test_a_length_inside_one_of_our_characters_means_other_text() -> None:
    desk = Desk(on_conflict="replace")
    desk.writer.add("😀" * 60, desk.now)
    assert desk.settle()
    desk.message["content"] = "x"
    desk.writer.add("😀" * 60, desk.now)
    assert desk.settle()
    assert desk.message["content"] == "😀" * 120


def test_a_stopped_message_ends_the_reply_unless_it_may_be_opened_again() -> None:
    desk = Desk()
    desk.message["status"] = "interrupted"
    desk.writer.add("x" * 100, desk.now)
    assert not desk.settle()
    assert desk.message["status"] == "interrupted"
    desk = Desk(on_conflict="reopen")
    desk.message["status"] = "interrupted"
    desk.writer.add("x" * 100, desk.now)
    assert desk.settle()
    assert (desk.message["status"], desk.message["content"]) == ("streaming", "x" * 100)


def test_it_gives_up_when_nothing_helps() -> None:
    desk = Desk()
    desk.writer.add("x" * 100, desk.now)
    step = desk.next()
    assert isinstance(step, Step)
    refusals = 0
    while desk.writer.refused(step, problem(404, "not-found")):
        refusals += 1
        again = desk.next()
        assert isinstance(again, Step)
        desk.writer.acknowledged(again, {"bufferEpoch": "e1"}, desk.now)
    assert refusals == 5
    assert not desk.writer.refused(step, Unreachable("away"))


def test_a_revision_of_the_caller_is_passed_on_and_never_sent_twice_with_other_content() -> None:
    desk = Desk(stub={**STUB, "revision": 4})
    desk.writer.put_part(0, {"type": "text", "text": "x"})
    desk.writer.add("a" * 100, desk.now)
    assert desk.settle()
    desk.server.lose({**STUB, "revision": 4, "content": None, "parts": []})
    desk.writer.finish("complete", None, desk.now)
    assert desk.settle()
    assert isinstance(desk.next(), Done)
    assert (desk.message["content"], desk.message["parts"]) == ("a" * 100, [{"type": "text", "text": "x"}])
    assert (desk.message["revision"], desk.message["status"]) == (5, "complete")


def test_a_lost_buffer_is_told_everything_in_one_put_that_covers_what_waits() -> None:
    desk = Desk()
    desk.writer.add("a" * 100, desk.now)
    assert desk.settle()
    desk.server.lose(None)
    desk.writer.put_part(0, {"type": "text", "text": "x"})
    desk.writer.put_part(1, {"type": "data-y", "n": 1})
    desk.server.requests.clear()
    assert desk.settle()
    assert [next(iter(body)) for body in desk.server.requests] == ["part", "id"], (
        "the first found it lost; one put"
    )
    assert desk.message["content"] == "a" * 100
    assert desk.message["parts"] == [{"type": "text", "text": "x"}, {"type": "data-y", "n": 1}]


def test_a_buffer_that_came_back_with_longer_parts_is_told_in_single_steps() -> None:
    desk = Desk()
    for index in range(2):
        desk.writer.put_part(index, {"type": "text", "text": "long text"})
    desk.writer.add("a" * 100, desk.now)
    assert desk.settle()
    before = json.loads(json.dumps(desk.message))
    for index in range(2):
        desk.writer.put_part(index, {"type": "text", "text": "short"})
    desk.writer.add("b" * 100, desk.now)
    assert desk.settle()
    desk.server.lose(before)
    desk.writer.add("c" * 100, desk.now)
    assert desk.settle()
    desk.writer.finish("complete", None, desk.now)
    assert desk.settle()
    assert isinstance(desk.next(), Done)
    assert desk.message["content"] == "a" * 100 + "b" * 100 + "c" * 100
    assert desk.message["parts"] == [{"type": "text", "text": "short"}] * 2
    assert desk.message["status"] == "complete"


# ---------------------------------------------------------------------- everything at once
WORDS = st.text(st.sampled_from("ab😀é\ud83d\ude00"), max_size=12)
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("add"), WORDS, st.none() | st.integers(0, 2)),
        st.tuples(st.just("part"), st.integers(0, 3), st.sampled_from(["text", "tool-x", "data-y"])),
        st.tuples(st.just("pass"), st.floats(0, 30)),
        st.tuples(st.just("send"), st.integers(1, 3)),
        st.tuples(st.just("begin")),
        st.tuples(st.just("answer"), st.integers(1, 2)),
        st.tuples(st.just("remember")),
        st.tuples(st.just("lose"), st.booleans()),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(MOVES, st.integers(1, 9))
def test_whatever_happens_on_the_way_all_that_was_written_is_there_in_the_end(
    moves: list[Any], batch: int
) -> None:
    desk = Desk(batch=batch, most=batch + 3)
    content, parts = "", []  # what was written, halves of characters included
    kept: dict[str, Any] | None = None
    under_way: Step | None = None
    for number, move in enumerate(moves):
        match move:
            case ("add", text, part):
                if part is None:
                    desk.writer.add(text, desk.now)
                    content += text
                elif part < len(parts) and "text" in parts[part]:
                    desk.writer.add(text, desk.now, part)
                    parts[part]["text"] += text
            case ("part", index, kind) if index == len(parts) or (
                index < len(parts) and parts[index]["type"] == kind
            ):
                value: dict[str, Any] = {"type": kind, "n": number}
                if kind == "text":
                    value["text"] = "new"
                desk.writer.put_part(index, value)
                parts[index : index + 1] = [dict(value)]
            case ("pass", seconds):
                desk.now += seconds
            case ("send", times) if under_way is None:
                if isinstance(step := desk.next(), Step):
                    assert desk.send(step, times=times)
            case ("begin",) if under_way is None:
                step = desk.next()
                under_way = step if isinstance(step, Step) else None
            case ("answer", times) if under_way is not None:
                assert desk.send(under_way, times=times)
                under_way = None
            case ("remember",) if desk.server.message is not None:
                kept = json.loads(json.dumps(desk.message))
            case ("lose", everything) if under_way is None:
                desk.server.lose(None if everything else kept or desk.server.message)
    if under_way is not None:
        assert desk.send(under_way)
    desk.writer.finish("complete", None, desk.now)
    assert desk.settle(times=2)
    assert isinstance(desk.next(), Done)
    assert (desk.message["content"] or "") == as_read(content)
    expected = [{**part, "text": as_read(part["text"])} if "text" in part else part for part in parts]
    assert desk.message["parts"] == expected
    assert desk.message["status"] == "complete"


def as_read(text: str) -> str:
    """With halves of characters joined, or replaced where they stand alone."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@given(st.text(max_size=80), st.lists(st.integers(1, 9), max_size=30), st.integers(1, 7))
def test_appends_are_made_of_whole_characters_and_bounded(text: str, cuts: list[int], most: int) -> None:
    desk = Desk(batch=1, most=most)
    rest = text
    for cut in cuts:
        piece, rest = split(rest, cut)
        desk.writer.add(piece, desk.now)
        assert desk.settle()
    desk.writer.add(rest, desk.now)
    desk.writer.finish("complete", None, desk.now)
    assert desk.settle()
    assert "".join(desk.texts()) == text
    assert all(units(piece) <= max(most, 2) for piece in desk.texts())
    offsets = [body["append"]["offset"] for body in desk.server.requests]
    assert offsets == sorted(offsets)
