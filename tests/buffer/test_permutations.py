"""Every arrival order of short histories: saves of two clients, a flush in its two halves, an eviction.

Flush, eviction and adoption must be invisible: after every step of every order the scripts show what the reference
model shows, which knows of neither. All orders of a history go through the buffer in step, in pipelines.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from models.buffer.buffer import Buffer
from models.buffer.scripts import SCRIPTS
from models.core.commands import ACKNOWLEDGED, Command, Delete
from tests.buffer import reference
from tests.buffer.chat import Chat, append, put, set_part
from tests.buffer.test_rules import shown

_numbers = itertools.count()
PEEK, ACK, EVICT = "peek", "ack", "evict"
Event = Command | str

TEXT = {"type": "text", "text": "a", "state": "streaming"}
TOOL = {"type": "tool-x", "toolCallId": "c", "state": "input-available"}


class _Recorded(Exception):
    pass


class _Once:
    """A client that hands on the one command it is given, or gives the answer it was made with."""

    def __init__(self, answer: Any = None, *, known: bool = False) -> None:
        self.answer, self.known = answer, known

    def execute_command(self, *command: Any) -> Any:
        if self.known:
            return self.answer
        raise _Recorded(*command)


def in_one_trip(buffer: Buffer, calls: Sequence[Callable[[Buffer], Any]]) -> list[Any]:
    """What each call would answer; all go to the server in one pipeline. For methods that run one script."""
    pipe = buffer.client.pipeline(transaction=False)
    for one in calls:
        try:
            one(Buffer(_Once(), buffer.settings))  # type: ignore[arg-type]
        except _Recorded as recorded:
            pipe.execute_command(*recorded.args)
    answers = pipe.execute()
    return [
        one(Buffer(_Once(answer, known=True), buffer.settings))  # type: ignore[arg-type]
        for one, answer in zip(calls, answers, strict=True)
    ]


@dataclass
class Run:
    """One order under way."""

    chat: Chat
    model: reference.Conversation = field(default_factory=reference.Conversation)
    fresh: bool = True
    peeked: list[Any] = field(default_factory=list)
    told: dict[str, int] = field(default_factory=dict)

    def saved(self, command: Command, reply: Any) -> None:
        expected = self.model.apply(command)
        if reply.s == "gone":
            assert expected == "gone"
            return
        assert reply.s == "done", reply
        [out] = reply.items
        assert out.outcome == expected, (command, out)
        name = f"{command.k}/{command.id}"
        if expected in ACKNOWLEDGED:
            assert out.version >= self.told.get(name, 0), "an acknowledged version went back"
            self.told[name] = out.version
        self.fresh = False


def orders(clients: Sequence[Sequence[Command]], *, in_order: bool) -> Iterator[tuple[Event, ...]]:
    """All ways in which the saves arrive among peek, ack (after it) and evict; ``in_order``: each client's in theirs."""
    numbered: list[Event] = [*itertools.chain.from_iterable(clients), PEEK, ACK, EVICT]
    groups = [*(list(range(len(c))) for c in clients)]
    start = 0
    for group, client in zip(groups, clients, strict=True):
        group[:] = range(start, start + len(client))
        start += len(client)
    chains = [*(groups if in_order else []), [start, start + 1]]
    free = [i for i in range(len(numbered)) if not any(i in chain for chain in chains)]

    def extend(
        done: tuple[int, ...], heads: tuple[int, ...], left: frozenset[int]
    ) -> Iterator[tuple[int, ...]]:
        if len(done) == len(numbered):
            yield done
            return
        for at, chain in enumerate(chains):
            if heads[at] < len(chain):
                moved = (*heads[:at], heads[at] + 1, *heads[at + 1 :])
                yield from extend((*done, chain[heads[at]]), moved, left)
        for one in sorted(left):
            yield from extend((*done, one), heads, left - {one})

    for order in extend((), (0,) * len(chains), frozenset(free)):
        yield tuple(numbered[i] for i in order)


def play(buffer: Buffer, all_orders: Sequence[tuple[Event, ...]]) -> list[Run]:
    """Run all orders, step by step; the state after each distinct beginning is compared with the model's."""
    for script in SCRIPTS.values():
        buffer.client.script_load(script.text)
    runs = [Run(Chat(buffer, "owner", f"order{next(_numbers)}", checked=False)) for _ in all_orders]
    seen: set[tuple[int, ...]] = set()
    for step in range(len(all_orders[0])):
        events = [(run, order[step]) for run, order in zip(runs, all_orders, strict=True)]
        _saves(buffer, [(run, event) for run, event in events if not isinstance(event, str)])
        _peeks(buffer, [run for run, event in events if event == PEEK])
        _acks(buffer, [run for run, event in events if event == ACK])
        for _, answer in _each(buffer, [run for run, event in events if event == EVICT], _evict):
            assert answer in (0, 1, -1)
        new = []
        for run, order in zip(runs, all_orders, strict=True):
            beginning = tuple(id(event) for event in order[: step + 1])
            if beginning not in seen:
                seen.add(beginning)
                new.append(run)
        _compare(buffer, new)
    # At rest: stored, out of the buffer, adopted again, and still the same.
    for _ in range(2):
        _peeks(buffer, runs)
        _acks(buffer, runs)
    _each(buffer, runs, _evict)
    _compare(buffer, runs)
    for run in runs[:: max(1, len(runs) // 50)]:
        run.chat.check()
    return runs


def _each(
    buffer: Buffer, runs: Sequence[Run], call: Callable[[Run], Callable[[Buffer], Any]]
) -> list[tuple[Run, Any]]:
    return list(zip(runs, in_one_trip(buffer, [call(run) for run in runs]), strict=True)) if runs else []


def _evict(run: Run) -> Callable[[Buffer], Any]:
    return lambda b: b.evict(run.chat.place.keys, run.chat.place.hex, 0)


def _saves(buffer: Buffer, saves: Sequence[tuple[Run, Any]]) -> None:
    def call(run: Run, command: Command) -> Callable[[Buffer], Any]:
        return lambda b: b.save(run.chat.place, [command], fresh=run.fresh)

    replies = in_one_trip(buffer, [call(run, command) for run, command in saves])
    for (run, command), reply in zip(saves, replies, strict=True):
        run.saved(command, run.chat.send(command) if reply.s == "cold" else reply)


def _peeks(buffer: Buffer, runs: Sequence[Run]) -> None:
    names = ("c/", "m/m1", "t/t1", "a/a1", "v/a1/1", "v/a1/2")
    calls = [
        (lambda b, r=run: b.rows(r.chat.place.keys, [f"{r.chat.place.hex}/{n}" for n in names], 1 << 20))
        for run in runs
    ]
    for run, rows in zip(runs, in_one_trip(buffer, calls), strict=True):
        run.peeked = [(row.ref, row.record) for row in rows if row.record is not None]


def _acks(buffer: Buffer, runs: Sequence[Run]) -> None:
    busy = [(run, run.chat.commit(run.peeked)) for run in runs if run.peeked]
    in_one_trip(
        buffer,
        [(lambda b, r=run, c=committed: b.acknowledge(r.chat.place.keys, c)) for run, committed in busy],
    )


def _compare(buffer: Buffer, runs: Sequence[Run]) -> None:
    replies = in_one_trip(buffer, [(lambda b, r=run: b.read(r.chat.place)) for run in runs])
    for run, first in zip(runs, replies, strict=True):
        reply = first
        if first.head.s == "cold":
            if run.fresh:
                continue
            assert run.chat.adopt() == "ok"
            reply = buffer.read(run.chat.place)
        items = {item.name: item for item in reply.items}
        if run.model.deleted:
            assert items["c/"].row.d is not None
            continue
        now = shown(run.chat, items)
        assert now == run.model.items
        for name, version in run.told.items():
            assert items[name].row.v >= version


STUB = put("m", "m1", st="streaming", content="")
HISTORIES: dict[str, tuple[list[list[Command]], bool]] = {
    "two tabs with revisions": (
        [
            [put("m", "m1", rev=1, content="a", st="streaming"), put("m", "m1", rev=3, content="abc", st="complete")],
            [put("m", "m1", rev=2, content="ab", st="streaming"), put("m", "m1", rev=2, content="xyz")],
        ],
        False,
    ),
    "a stream in any order": (
        [[STUB, append("m1", 0, "ab"), append("m1", 2, "😀d")], [append("m1", 5, "", st="complete")]],
        False,
    ),
    "a stream stopped from another tab": (
        [
            [STUB, append("m1", 0, "ab"), put("m", "m1", st="complete", content="abc")],
            [put("m", "m1", st="interrupted", status_reason="user")],
        ],
        False,
    ),
    "saves against a deletion": (
        [[put("m", "m1", rev=1, content="a"), append("m1", 1, "b", st="streaming", rev=2)], [Delete("m", "m1"), put("m", "m1", rev=9)]],
        False,
    ),
    "saves against the deletion of the conversation": (
        [[put("m", "m1", content="a", st="streaming"), append("m1", 1, "b")], [Delete("c", ""), put("a", "a1", content="x")]],
        False,
    ),
    "a tool, its result, and an artifact": (
        [
            [put("m", "m1", parts=[TEXT, TOOL], st="streaming"), put("t", "t1", message_id="m1", state="input-available")],
            [put("t", "t1", message_id="m1", state="output-available", output=1), put("a", "a1", content="v", message_id="m1")],
        ],
        False,
    ),
    "parts from two writers": (
        [
            [put("m", "m1", st="streaming", parts=[TEXT]), append("m1", 1, "b", part=0), set_part("m1", 1, TOOL)],
            [set_part("m1", 1, {**TOOL, "state": "output-available"}, st="complete")],
        ],
        False,
    ),
    "six saves, each client's in order": (
        [
            [STUB, append("m1", 0, "abc"), append("m1", 3, "", st="complete")],
            [append("m1", 0, "ab"), put("m", "m1", st="streaming", content="abcd", rev=1), append("m1", 4, "e", rev=1)],
        ],
        True,
    ),
}  # fmt: skip


#: `make test` takes all orders of a history of three saves, and of the others every seventh; the longer tier takes all.
STRIDE = 7


def test_flush_and_eviction_are_invisible_in_every_order_of_a_short_stream(quick_buffer: Buffer) -> None:
    clients: list[list[Command]] = [[STUB, append("m1", 0, "ab")], [append("m1", 2, "😀", st="complete")]]
    runs = play(quick_buffer, list(orders(clients, in_order=False)))
    assert len(runs) == 360


@pytest.mark.parametrize("name", list(HISTORIES))
def test_flush_and_eviction_are_invisible_in_many_orders(quick_buffer: Buffer, name: str) -> None:
    clients, in_order = HISTORIES[name]
    some = list(orders(clients, in_order=in_order))[::STRIDE]
    play(quick_buffer, some)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(HISTORIES))
def test_flush_and_eviction_are_invisible_in_every_order(quick_buffer: Buffer, name: str) -> None:
    clients, in_order = HISTORIES[name]
    runs = play(quick_buffer, list(orders(clients, in_order=in_order)))
    assert len(runs) == (5040 if in_order else 2520)


def test_revisions_lead_to_the_same_end_in_every_order(quick_buffer: Buffer) -> None:
    clients: list[list[Command]] = [
        [
            put("m", "m1", rev=1, content="a", st="streaming"),
            put("m", "m1", rev=4, content="abcd", st="complete"),
        ],
        [
            put("m", "m1", rev=2, content="x", st="complete"),
            put("m", "m1", rev=3, content="xy", st="streaming"),
        ],
    ]
    runs = play(quick_buffer, list(orders(clients, in_order=False))[::5])
    ends = {
        (run.model.items["m", "m1"].texts["content"], run.model.items["m", "m1"].revision) for run in runs
    }
    assert ends == {("abcd", 4)}


def test_a_deletion_wins_in_every_order(quick_buffer: Buffer) -> None:
    clients, _ = HISTORIES["saves against a deletion"]
    for run in play(quick_buffer, list(orders(clients, in_order=False))[::5]):
        assert run.model.items["m", "m1"].deleted


def test_a_stream_sent_again_until_it_is_taken_is_whole_in_every_order(quick_buffer: Buffer) -> None:
    """Appends that came too early are refused, not lost: their client sends them again."""
    clients: list[list[Command]] = [[STUB], [append("m1", n, "abcd"[n]) for n in range(3)]]
    for run in play(quick_buffer, list(orders(clients, in_order=False))[::23]):
        before = ""
        for _ in range(3):
            for command in clients[1]:
                run.chat.send(command)
            now = run.chat.message("m1").content or ""
            assert now.startswith(before)
            before = now
        assert before == "abc"
