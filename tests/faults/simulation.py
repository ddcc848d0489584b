"""Seeded runs: a program of decisions drawn from a seed, carried out in a world, then healed, drained and checked.

A program is a list of actions made before the run and without looking at it, so that any part of it can be left out and
the rest still means something: that is how a failure is shrunk. ``step 3`` lets the fourth living actor make one call of
a server; ``save`` starts a client's request as a new actor; the others are faults and the passing of time.

    program(seed, length)    the actions
    run(world, actions)      carry them out, heal, and check: the verdict
    shrink(world, actions)   fewer actions that still fail (delta debugging: Zeller and Hildebrandt, 2002)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from models.core import commands as c
from models.errors import BlotterError
from tests.faults.checker import Verdict, check
from tests.faults.clients import OWNER, Clients
from tests.faults.history import NEVER, Fault, Place, Rest
from tests.faults.rest import gather, left
from tests.faults.world import Actor, World

Action: TypeAlias = tuple[Any, ...]
CHATS: Final = ("c0", "c1", "c2")
ROUNDS: Final = 60

#: Kind of action → weight; without the misfortunes that lose what was acknowledged.
WEIGHTS: Final[dict[str, float]] = {
    "step": 60, "run": 5, "save": 12, "read": 3, "list": 0.5, "bell": 4, "flush": 2, "sweep": 1.2, "evict": 1.5, "kill": 1.2,
    "expire": 1.5, "advance": 3, "commit": 0.8, "lose": 0.5, "away": 0.5, "back": 1, "restart": 0.25, "apart": 0.2,
}  # fmt: skip
#: With them.
LOSSES: Final[dict[str, float]] = {"copy": 0.5, "roll": 0.35, "empty": 0.2}

WORDS: Final = ("a", "be", "ça ", "😀", "fünf", "x" * 20, "\n", "end.")
STATUSES: Final = (
    None,
    None,
    "pending",
    "streaming",
    "streaming",
    "complete",
    "complete",
    "interrupted",
    "error",
)


# ---------------------------------------------------------------- the program
def program(seed: int, length: int, *, losses: bool = True) -> list[Action]:
    """``length`` actions."""
    chance = random.Random(seed)
    weights = {**WEIGHTS, **LOSSES} if losses and chance.random() < 0.4 else WEIGHTS
    kinds, shares = list(weights), list(weights.values())
    return [_action(chance, kind) for kind in chance.choices(kinds, shares, k=length)]


def _action(chance: random.Random, kind: str) -> Action:
    if kind in ("step", "run", "kill", "bell"):
        return kind, chance.randrange(1 << 16)
    if kind in ("read", "evict"):
        return kind, chance.choice(CHATS)
    if kind == "flush":
        return kind, chance.randrange(2)
    if kind == "save":
        return (
            kind,
            chance.choice(CHATS),
            chance.choices(("new", "again", "sync"), (8, 1.5, 1))[0],
            _orders(chance),
        )
    if kind == "expire":
        return kind, chance.choice(("lease", "lease", "hold", "bell")), chance.randrange(2)
    if kind == "advance":
        ms = chance.choice((1, 5, 300, 1_100, 5_000, 40_000, 130_000, 1_000_000))
        return kind, -ms if chance.random() < 0.08 else ms
    if kind == "commit":
        return kind, chance.choice(("lost", "refused"))
    if kind == "roll":
        return kind, chance.choice((-1, -1, -2)), chance.random() < 0.7
    return (kind,)


def _orders(chance: random.Random) -> tuple[dict[str, Any], ...]:
    """What a save asks for, in terms that make sense whatever the state is."""
    return tuple(_order(chance) for _ in range(chance.choice((1, 1, 1, 1, 2, 3))))


def _order(chance: random.Random) -> dict[str, Any]:
    what = chance.choices(("put", "append", "part", "append part", "delete"), (6, 6, 2, 1.5, 0.6))[0]
    kind = chance.choices("mtac", (8, 2, 1.5, 0.7))[0]
    order: dict[str, Any] = {
        "what": what, "k": kind, "id": f"{kind}{chance.randrange(4 if kind == 'm' else 2)}" if kind != "c" else "",
        "rev": chance.choice((None, None, None, 0, 1, 2, 3)), "st": chance.choice(STATUSES) if kind != "c" else None,
        "text": "".join(chance.choices(WORDS, k=chance.choice((0, 1, 1, 2, 3)))), "at": chance.choices((0, 1, 2, 3), (12, 3, 1, 1))[0],
        "index": chance.randrange(3), "more": chance.randrange(1 << 16),
    }  # fmt: skip
    if what == "delete" and kind == "c" and chance.random() < 0.7:
        order["k"], order["id"] = "m", "m3"
    return order


# ---------------------------------------------------------------- the run
class Run:
    """One program in a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients = Clients(world)
        self.acts: dict[str, Callable[..., None]] = {
            name.removeprefix("_do_"): getattr(self, name) for name in dir(self) if name.startswith("_do_")
        }

    def carry_out(self, actions: Sequence[Action]) -> None:
        for name, *arguments in actions:
            self.acts[name](*arguments)

    def _living(self) -> list[Actor]:
        self.world.actors = [actor for actor in self.world.actors if not actor.done]
        return self.world.actors

    def _pick(self, number: int) -> Actor | None:
        living = self._living()
        return living[number % len(living)] if living else None

    # ------------------------------------------------------------------ actors
    def _do_step(self, number: int) -> None:
        actor = self._pick(number)
        if actor is not None:
            actor.step()

    def _do_run(self, number: int) -> None:
        actor = self._pick(number)
        if actor is not None:
            actor.finish()

    def _do_kill(self, number: int) -> None:
        actor = self._pick(number)
        if actor is not None:
            actor.kill()

    def _do_save(self, conversation: str, how: str, orders: Sequence[dict[str, Any]]) -> None:
        if how == "again" and self.clients.sent:
            old = self.clients.sent[orders[0]["more"] % len(self.clients.sent)]
            self.clients.start_save(old.conversation, old.commands, order=old.order)
            return
        sent = [self.clients.command(conversation, order) for order in orders]
        if how == "sync":
            sent = [command for command in sent if isinstance(command, c.Put)]
            ids = [command.id for command in sent if command.k == "m"]
            if sent:
                known = sorted(
                    {key[2] for key in self.clients.believed if key[:2] == (conversation, "m")} - set(ids)
                )
                self.clients.start_save(conversation, sent, order=(*ids, *known) or ("m0",))
            return
        self.clients.start_save(conversation, sent)

    def _do_read(self, conversation: str) -> None:
        self.clients.read(conversation)

    def _do_list(self) -> None:
        self.clients.list()

    def _do_bell(self, number: int) -> None:
        bells = self.world.doorbells
        if bells:
            self._do_flush(bells.pop(number % len(bells)))

    def _do_flush(self, number: int) -> None:
        self._work(f"flush {number}", lambda: self.world.new_crew().flusher.flush(number))

    def _do_sweep(self) -> None:
        self._work("sweep", self.world.crew.sweeper.sweep)

    def _do_evict(self, conversation: str) -> None:
        place = self.world.buffer.place(OWNER, conversation)
        self._work(f"evict {conversation}", lambda: self.world.buffer.evict(place.keys, place.hex, 0))

    def _work(self, name: str, work: Callable[[], object]) -> None:
        def guarded() -> None:
            with suppress(BlotterError):
                work()

        if len(self._living()) < 8:
            self.world.start(name, guarded)

    # ------------------------------------------------------------------ faults and time
    def _do_expire(self, what: str, number: int) -> None:
        self.world.expire(what, number)

    def _do_advance(self, ms: int) -> None:
        self.world.advance(ms)

    def _do_commit(self, fault: str) -> None:
        self.world.commit_faults = [fault]

    def _do_apart(self) -> None:
        """From now on as on a cluster: an owner's index lies in another slot."""
        self.world.buffer.index_apart = True

    def _do_lose(self) -> None:
        self.world.lose_answer = True

    def _do_away(self) -> None:
        self.world.store_away = True

    def _do_back(self) -> None:
        self.world.store_away = False

    def _do_restart(self) -> None:
        self.world.restart()

    def _do_copy(self) -> None:
        self.world.copy()

    def _do_roll(self, number: int, at_once: bool) -> None:
        if len(self.world.copies) >= -number:
            self.world.roll_back(number)
            if at_once:
                self.world.buffer.initialise()

    def _do_empty(self) -> None:
        self.world.empty()

    # ------------------------------------------------------------------ the end
    def heal(self) -> None:
        """Whoever is left dies, the servers are well, time passes, until nothing is left to do."""
        world = self.world
        for actor in self._living():
            actor.kill()
        world.store_away, world.lose_answer = False, False
        world.commit_faults.clear()
        for number in range(len(world.buffer.partitions)):
            for what in ("lease", "hold", "bell"):
                world.expire(what, number)
        world.crew = world.new_crew()
        for _ in range(ROUNDS):
            world.tick += 1
            world.crew.sweeper.sweep()
            bells, world.doorbells[:] = list(world.doorbells), []
            for number in dict.fromkeys(bells):
                world.crew.flusher.flush(number)
            if not world.doorbells and not any(left(world.buffer)) and not self._sweep_has_more():
                return
            world.advance(61_000)

    def _sweep_has_more(self) -> bool:
        """Replies past their deadline, or tables still to be walked."""
        partitions = self.world.crew.partitions
        return any(partitions.stale(self.world.clock_us // 1000, 1)) or bool(
            partitions.chores().get("scan_after")
        )

    def answer_bells(self) -> None:
        """What workers do without beat."""
        bells = self.world.doorbells
        for _ in range(ROUNDS):
            if bells:
                self.world.crew.flusher.flush(bells.pop(0))

    def finish(self, heal: Callable[[], None] | None = None) -> Verdict:
        """Heal, read, gather and check."""
        (heal or self.heal)()
        world, clients = self.world, self.clients
        chats = sorted({(save.owner, save.conversation) for save in clients.sent})
        places: list[Place] = []
        for cold in (False, True):
            for _, name in chats:
                place = world.buffer.place(OWNER, name)
                if cold:
                    world.buffer.evict(place.keys, place.hex, 0)
                clients.read(name).finish()
            clients.list().finish()
            rest = gather(world.buffer, world.real_store, world.pipeline, chats)
            places += rest.places
        rest = Rest(places=tuple(places), left=tuple(left(world.buffer)))
        for fault in world.history.of(Fault):
            assert fault.noticed != NEVER, "nobody noticed that the buffer lost something"
        return check(world.history, rest)


def run(world: World, actions: Sequence[Action]) -> Verdict:
    """Carry out ``actions`` in an empty world."""
    world.reset()
    made = Run(world)
    made.carry_out(actions)
    return made.finish()


def shrink(fails: Callable[[list[Action]], bool], actions: Sequence[Action]) -> list[Action]:
    """A sublist of ``actions`` that still fails and from which no single piece can be left out."""
    left_ = list(actions)
    size = max(len(left_) // 2, 1)
    while True:
        at, smaller = 0, False
        while at < len(left_):
            tried = left_[:at] + left_[at + size :]
            if tried and fails(tried):
                left_, smaller = tried, True
            else:
                at += size
        if size == 1 and not smaller:
            return left_
        size = max(size // 2, 1)
