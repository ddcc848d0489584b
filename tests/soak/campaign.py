"""One campaign: clients at work, faults one after another, then rest, then judgement.

The order of faults comes from the seed: each round has every kind once, shuffled. After each fault is taken back the
nemesis waits until a save of its own is acknowledged, and stored in Postgres, in every partition, and all programs are
there; the time from taking back (for what is killed: from the killing, or from the server's start) until then is the
time to recover. Then comes the next. What clients do meanwhile is counted under that fault.

Judged at the end, when all is healed and drained:

- the checker of tests/faults, an owner at a time (its anomalies, by name);
- the ledger: each message of a snap… owner is the last that was acknowledged, or a later one. Missing: lost; older: reverted.
- nothing is dirty, dead or journaled; deleted messages are gone; buffer, Postgres and API agree.

Where the buffer came back empty, what was acknowledged before and not yet stored may be gone: counted apart. What Postgres
had at that moment may not.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import redis
from tqdm import tqdm

from models.pipeline.crew import Crew
from tests.acceptance.webserver import token
from tests.faults import history as h
from tests.faults.checker import check
from tests.faults.rest import left, place_of
from tests.soak.nemesis import FAULTS, Fault, Skip, possible
from tests.soak.stacks import PARTITIONS, Stack
from tests.soak.traffic import Client, Log, now

#: A fault that takes longer to heal is a failure of the campaign.
RECOVERY_LIMIT_S: Final = 60.0
#: Anomalies that mean that something acknowledged is not there; the others are told under their own names.
LOSSES: Final = frozenset({"lost", "unlisted"})


@dataclass
class Injection:
    """One fault done. Times in ns of the log's clock; ``recovered_s`` None: it did not within the limit."""

    name: str
    begun: int
    healed: int = 0
    ended: int = 0
    recovered_s: float | None = None
    #: The texts that Postgres held when the buffer was about to be emptied.
    floor: dict[tuple[str, str, str], str] | None = None


@dataclass
class Line:
    """A fault's line of the table."""

    times: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    reverted: int = 0
    other: int = 0
    excused: int = 0
    recovery_s: float = 0.0
    unrecovered: int = 0


class Campaign:
    """``only``: names of faults; ``clients``: connections at work. ``alike``: only what rivals can bear too, a snapshot of
    each client every 100 ms; else as quick as answers come, with the whole API.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        seconds: float,
        seed: int,
        only: tuple[str, ...] = (),
        clients: int = 24,
        alike: bool = False,
    ) -> None:
        self.stack = stack
        self.seconds = seconds
        self.seed = seed
        self.only = only
        self.alike = alike
        self.log = Log()
        self.injections: list[Injection] = []
        self.skipped: dict[str, str] = {}
        self.anomalies: list[tuple[str, str]] = []
        self.undecided = 0
        self.lines: dict[str, Line] = {}
        self._chance = random.Random(f"faults/{seed}")
        self._clients = [
            Client(self.log, stack.port, number, seed, 0.1 if alike else 0.0) for number in range(clients)
        ]
        self._probes = itertools.count(1)
        self._chats = self._one_a_partition()
        self._ended = threading.Event()

    # ------------------------------------------------------------------ the course of it
    def run(self) -> None:
        """From the first save to the verdict. Raises AssertionError where it cannot even begin."""
        assert self._recovered_within(60.0) is not None, f"{self.stack.name} does not store a save"
        load = threading.Thread(target=lambda: asyncio.run(self._load()), name="clients")
        load.start()
        try:
            self._torment()
        finally:
            for client in self._clients:
                client.stopping = True
            load.join(60)
            assert not load.is_alive(), "clients do not end"
        self._judge()

    async def _load(self) -> None:
        chats = self.stack.name == "blotter" and not self.alike
        lanes = [asyncio.create_task(client.run(chats=chats)) for client in self._clients]
        await asyncio.gather(*lanes)

    def _torment(self) -> None:
        began = time.monotonic()
        kinds = [fault for fault in possible(self.stack) if not self.only or fault.name in self.only]
        with self._bar(self.seconds, self.stack.name) as bar:
            while (passed := time.monotonic() - began) < self.seconds:
                for fault in self._chance.sample(kinds, len(kinds)):
                    passed = time.monotonic() - began
                    if passed >= self.seconds:
                        break
                    bar.n = min(passed, self.seconds)
                    bar.set_postfix_str(f"{self.log.acknowledged:,} saves, {fault.name}")
                    self._inject(fault)
                    # A moment of peace: what is broken by and by must show under the fault that did it.
                    self._ended.wait(self._chance.uniform(0.2, 0.8))
                if not kinds:
                    self._ended.wait(0.5)
            self.log.now_on = "(none)"

    def _inject(self, fault: Fault) -> None:
        chance = random.Random(self._chance.random())
        hold_s = chance.uniform(*fault.hold_s)
        one = Injection(fault.name, now())
        if fault.empties:
            one.floor = self.stack.texts()
        self.log.now_on = fault.name
        try:
            with fault.act(self.stack, chance):
                self._ended.wait(hold_s)
        except Skip as why:
            self.skipped[fault.name] = str(why)
            self.log.now_on = "(none)"
            return
        one.healed = now()
        one.recovered_s = self._recovered_within(RECOVERY_LIMIT_S)
        one.ended = now()
        self.injections.append(one)
        if one.recovered_s is None:
            self.anomalies.append(
                (fault.name, f"not recovered: within {RECOVERY_LIMIT_S:g} s after {fault.name}")
            )

    # ------------------------------------------------------------------ recovery
    def _one_a_partition(self) -> list[str]:
        """Ids of conversations of the owner `probe`, one for each partition."""
        if self.stack.pipeline is None:
            return ["probe"]
        buffer = self.stack.pipeline.buffer
        found: dict[int, str] = {}
        for n in itertools.count():
            found.setdefault(buffer.place("probe", f"p{n}").keys.number, f"p{n}")
            if len(found) == PARTITIONS:
                return list(found.values())
        raise AssertionError

    def _recovered_within(self, limit_s: float) -> float | None:
        """Seconds until a save in every partition was acknowledged and stored, and all programs are there."""
        began = time.monotonic()
        waiting = set(self._chats)
        number = next(self._probes)
        acknowledged: set[str] = set()
        with httpx.Client(
            base_url=f"http://127.0.0.1:{self.stack.port}/api/conversations/",
            headers={"Authorization": f"Bearer {token('probe', ttl_s=86_400)}"},
            timeout=3,
        ) as http:
            while time.monotonic() - began < limit_s:
                for chat in sorted(waiting - acknowledged):
                    try:
                        body = {"id": "m", "role": "user", "content": f"{number}:", "revision": number}
                        if http.put(f"{chat}/messages", json=body).status_code < 300:
                            acknowledged.add(chat)
                    except httpx.TransportError:
                        continue
                if acknowledged:
                    waiting -= self._stored(number)
                if not waiting and self._all_there():
                    return time.monotonic() - began
                self._ended.wait(0.02)
        return None

    def _stored(self, number: int) -> set[str]:
        import psycopg

        statement = (
            "SELECT c.id FROM messages m JOIN conversations c USING (conversation_uid) WHERE c.owner = 'probe' AND m.content = %s"
            if self.stack.name == "blotter"
            else "SELECT conversation FROM saved WHERE owner = 'probe' AND content = %s"
        )
        try:
            with psycopg.connect(self.stack.database_url, connect_timeout=3) as connection:
                return {str(name) for (name,) in connection.execute(statement, (f"{number}:",)).fetchall()}
        except psycopg.Error:
            return set()

    def _all_there(self) -> bool:
        for part in self.stack.parts:
            if not self.stack.pid(part) or (part != "beat" and not self.stack.children(part)):
                return False
        events = self.stack.up.folder / "env"
        for line in events.read_text().splitlines():
            if line.startswith("EVENTS_URL=") and "events" in self.stack.parts:
                try:
                    with urllib.request.urlopen(f"{line.partition('=')[2]}/readyz", timeout=2):
                        pass
                except (urllib.error.URLError, OSError):
                    return False
        return True

    # ------------------------------------------------------------------ judgement
    def _judge(self) -> None:
        for one in self.injections:
            line = self._line(one.name)
            line.times += 1
            line.unrecovered += one.recovered_s is None
            line.recovery_s = max(line.recovery_s, one.recovered_s or 0.0)
        for name, counts in self.log.counts.items():
            self._line(name).counts.update(counts)
        self._drain()
        self._ledger()
        if self.stack.pipeline is not None:
            self._check()
        for surprise in self.log.surprises:
            self.anomalies.append(("(none)", f"wrong answer: {surprise}"))
            self._line("(none)").other += 1

    def _drain(self) -> None:
        """All that was acknowledged is given time, and for Blotter a hand, to reach Postgres."""
        if self.stack.pipeline is None:
            deadline = time.monotonic() + 300
            while self._queued() and time.monotonic() < deadline:
                time.sleep(0.2)
            time.sleep(2)
            return
        settings = self.stack.pipeline.settings
        crew = Crew.connect(settings, role="worker", ring=lambda number: None)
        try:
            drained = crew.drain(within_s=120)
        finally:
            crew.close()
        if not drained.done or drained.dead:
            self._blame("not at rest", f"not at rest: {drained}", now())

    def _queued(self) -> int:
        if self.stack.broker is None:
            return 0
        with redis.Redis.from_url(self.stack.broker.url) as client:
            return int(client.llen("celery")) + int(client.hlen("unacked"))

    def _ledger(self) -> None:
        stored = self.stack.texts()
        emptied = [one for one in self.injections if one.floor is not None]
        for key, mine in self.log.snapshots.items():
            told = [n for n, (fate, _, _) in mine.saves.items() if fate == "acknowledged"]
            if not told:
                continue
            found = int(stored[key].partition(":")[0]) if key in stored else 0
            if found >= max(told):
                continue
            ended = mine.saves[max(told)][2]
            # What was told before the buffer came back empty may be gone, but for what was stored.
            later = [n for n in told if all(mine.saves[n][1] > one.healed for one in emptied)]
            floors = [
                int(one.floor.get(key, "0").partition(":")[0]) for one in emptied if one.floor is not None
            ]
            if emptied and found >= max([*later, *floors, 0]):
                line = self._line(self._at(ended))
                line.excused += 1
                continue
            if found == 0:
                self._blame("lost", f"lost: {key}, acknowledged up to {max(told)}", ended)
            else:
                self._blame("reverted", f"reverted: {key} is {found}, acknowledged up to {max(told)}", ended)

    def _check(self) -> None:
        """The checker, an owner at a time: what one owner does concerns no other."""
        pipeline = self.stack.pipeline
        assert pipeline is not None
        losses: list[h.Entry] = []
        for one in self.injections:
            if one.floor is not None:
                losses.append(h.Fault(what="emptied", start=one.begun, end=one.healed, noticed=one.ended))
                # Some flusher may have had rows in hand: what it committed the new buffer need not know.
                losses.append(
                    h.Flush(client="any", start=one.begun - 1, end=one.ended, partition=0, failed=True)
                )
        gone = {(owner, chat, item): at for owner, chat, item, at in self.log.deleted}
        with self._bar(len(self.log.entries), "checking") as bar:
            for owner, entries in self.log.entries.items():
                chats = sorted({entry.conversation for entry in entries if hasattr(entry, "conversation")})
                places = tuple(
                    place_of(pipeline.buffer, pipeline.store, pipeline, owner, chat) for chat in chats
                )
                log = h.History()
                log.entries = [*entries, *losses]
                verdict = check(log, h.Rest(places=places))
                self.undecided += len(verdict.undecided)
                for anomaly in verdict.anomalies:
                    last = [e.end for e in anomaly.entries if isinstance(e, h.Save) and e.end < h.NEVER]
                    kind = anomaly.name if anomaly.name in LOSSES else "other"
                    self._blame(
                        "lost" if kind != "other" else "other", str(anomaly), max(last, default=now())
                    )
                for place in places:
                    for kind, item in place.shown or {}:
                        at = gone.get((owner, place.conversation, item))
                        if (
                            kind == "m"
                            and at
                            and not any(isinstance(e, h.Fault) and e.end > at for e in losses)
                        ):
                            self._blame("reverted", f"reverted: {item} of {place.conversation} is back", at)
                bar.update()
        for what in left(pipeline.buffer):
            if "leased" not in what:
                self._blame("other", f"not at rest: {what}", now())

    def _blame(self, what: str, text: str, at: int) -> None:
        name = self._at(at)
        line = self._line(name)
        if what == "lost":
            line.lost += 1
        elif what == "reverted":
            line.reverted += 1
        else:
            line.other += 1
        self.anomalies.append((name, text))

    def _at(self, moment: int) -> str:
        """The fault on whose account a moment is: the last that had begun."""
        before = [one for one in self.injections if one.begun <= moment]
        return before[-1].name if before else "(none)"

    def _line(self, name: str) -> Line:
        return self.lines.setdefault(name, Line())

    @staticmethod
    def _bar(total: float, text: str) -> Any:
        return tqdm(
            total=total, desc=text, file=sys.stderr, unit="", mininterval=1, disable=None,
            bar_format="{desc} {percentage:3.0f}%|{bar:20}| {elapsed} {postfix}",
        )  # fmt: skip

    # ------------------------------------------------------------------ told
    @property
    def kept(self) -> bool:
        """Nothing acknowledged was lost, nor anything else wrong."""
        return not self.anomalies

    def document(self) -> dict[str, Any]:
        """All of it for a machine."""
        rows = {
            name: {
                "times": line.times,
                "acknowledged": line.counts["acknowledged"],
                "refused": line.counts["refused"],
                "unknown": line.counts["unknown"],
                "lost": line.lost,
                "reverted": line.reverted,
                "other": line.other,
                "gone_with_the_buffer": line.excused,
                "recovery_s": round(line.recovery_s, 2),
                "unrecovered": line.unrecovered,
            }
            for name, line in sorted(self.lines.items())
        }
        names = (
            "times",
            "acknowledged",
            "refused",
            "unknown",
            "lost",
            "reverted",
            "other",
            "gone_with_the_buffer",
        )
        totals: dict[str, Any] = {name: sum(row[name] for row in rows.values()) for name in names}
        totals["recovery_s"] = max((row["recovery_s"] for row in rows.values()), default=0.0)
        totals["kinds"] = sum(row["times"] > 0 for row in rows.values())
        return {
            "what": self.stack.name,
            "seed": self.seed,
            "seconds": self.seconds,
            "kept": self.kept,
            "totals": totals,
            "faults": rows,
            "skipped": self.skipped,
            "undecided": self.undecided,
            "slowest_answer_ms": round(self.log.slowest_ms),
            "order": [
                [one.name, round((one.begun - self.injections[0].begun) / 1e9, 1)] for one in self.injections
            ],
            "anomalies": [{"fault": name, "text": text} for name, text in self.anomalies],
        }


def unknown_faults(names: tuple[str, ...]) -> list[str]:
    """Those of ``names`` that no fault has."""
    return [name for name in names if name not in FAULTS]
